//! The gate of a feed-forward block.

use super::Element;
use super::card::{Card, Launch, View, ViewMut};
use crate::nn::Error;

/// `out = gate / (1 + e^-gate) · up`, of `[rows, gate|up]`; `out` is `[rows, ffn]`.
pub fn silu_mul<T: Element>(card: &Card, gate_up: View<T>, out: ViewMut<T>, ffn: usize) -> Result<(), Error> {
    gated(card, "silu_mul", gate_up, out, ffn)
}

/// The same with GELU by its tanh approximation.
pub fn gelu_mul<T: Element>(card: &Card, gate_up: View<T>, out: ViewMut<T>, ffn: usize) -> Result<(), Error> {
    gated(card, "gelu_mul", gate_up, out, ffn)
}

fn gated<T: Element>(
    card: &Card,
    what: &str,
    gate_up: View<T>,
    out: ViewMut<T>,
    ffn: usize,
) -> Result<(), Error> {
    assert!(
        ffn > 0 && ffn.is_multiple_of(8) && out.len().is_multiple_of(ffn) && gate_up.len() == 2 * out.len()
    );
    let rows = out.len() / ffn;
    let name = format!("{what}_{}", T::NAME);
    let grid = [(ffn / 8).div_ceil(256), rows.min(65_535)];
    let launch = Launch { file: "activation", name: &name, grid, threads: 256, shared_bytes: 0 };
    // SAFETY: the sizes were checked.
    unsafe { card.launch(&launch, &[gate_up.into(), (&out).into(), rows.into(), ffn.into()]) }
}
