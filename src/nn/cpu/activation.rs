//! The gate of a feed-forward block.

use super::LANES;
use super::isa::dispatch;
use super::simd::Simd;

dispatch! {
    /// `out = gate / (1 + e^-gate) · up`, one row. Lengths are equal and multiples of 16.
    pub fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) = silu;
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn silu<S: Simd>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && up.len() == out.len() && out.len().is_multiple_of(LANES));
    // SAFETY: vectors lie inside the slices.
    unsafe {
        for i in (0..out.len()).step_by(LANES) {
            let g = S::load(gate.as_ptr().add(i));
            let decay = S::exp(S::sub(S::splat(0.0), g));
            let silu = S::div(g, S::add(S::splat(1.0), decay));
            S::store(out.as_mut_ptr().add(i), S::mul(silu, S::load(up.as_ptr().add(i))));
        }
    }
}
