//! What a card can do at most, as measured: the rates that figures are put beside.

use half::bf16;

use super::Element;
use super::card::{Buffer, Card};
use super::gemm::{product, product_f32};
use super::graph::time_ms;
use crate::nn::Error;
use crate::nn::weights::random::Values;

/// Values of the memory test: 2 GiB.
const LARGE: usize = 1 << 30;
const SIDE: usize = 8192;

/// Bytes a second: the better of a copy (read and written) and of a product that only reads.
pub fn gb_s(card: &Card) -> Result<f64, Error> {
    let (from, mut to) = (values(card, LARGE)?, card.zeroed::<bf16>(LARGE, "a measurement")?);
    let copy = median_ms(card, || card.copy(from.all(), &to.all_mut()))?;
    let k = 4096;
    let (x, mut out) = (values(card, k)?, card.zeroed::<f32>(LARGE / k, "a measurement")?);
    let read = median_ms(card, || product_f32(card, x.all(), from.all(), out.all_mut(), k))?;
    let bytes = (2 * LARGE) as f64;
    Ok((2.0 * bytes / copy).max(bytes / read) / 1e6)
}

/// Of a product of square matrices in bf16.
pub fn product_tflop_s(card: &Card) -> Result<f64, Error> {
    let (x, w) = (values(card, SIDE * SIDE)?, values(card, SIDE * SIDE)?);
    let mut out = card.zeroed::<bf16>(SIDE * SIDE, "a measurement")?;
    let ms = median_ms(card, || product(card, x.all(), w.all(), out.all_mut(), SIDE, false))?;
    Ok(2.0 * (SIDE as f64).powi(3) / ms / 1e9)
}

fn median_ms(card: &Card, mut work: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    work()?;
    let mut times = (0..9).map(|_| time_ms(card, &mut work)).collect::<Result<Vec<f32>, Error>>()?;
    times.sort_by(f32::total_cmp);
    Ok(f64::from(times[times.len() / 2]))
}

/// Random, because products of zeros run faster.
fn values(card: &Card, n: usize) -> Result<Buffer<bf16>, Error> {
    let period = (1 << 20).min(n);
    let some: Vec<bf16> = Values::new(3).take(period, 1.0).map(<bf16 as Element>::from_f32).collect();
    let some = card.upload(&some, "a measurement")?;
    let mut all = card.zeroed(n, "a measurement")?;
    for first in (0..n).step_by(period) {
        let end = n.min(first + period);
        card.copy(some.part(0..end - first), &all.part_mut(first..end))?;
    }
    Ok(all)
}
