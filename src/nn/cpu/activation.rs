//! The gate of a feed-forward block.

use super::LANES;
use super::isa::dispatch;
use super::simd::Simd;

dispatch! {
    /// `out = gate / (1 + e^-gate) · up`, one row. Lengths are equal and multiples of 16.
    pub fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) = silu;

    /// `out = gate / 2 · (1 + tanh(√(2/π)·(gate + 0.044715·gate³))) · up`, one row: GELU as Gemma's reference
    /// approximates it.
    pub fn gelu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) = gelu;
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn silu<S: Simd>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    // SAFETY: passed on to the caller.
    unsafe { gated::<S>(gate, up, out, |g| g) }
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn gelu<S: Simd>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    // (1 + tanh(z))/2 = 1/(1 + e^-2z), with z = √(2/π)·(g + 0.044715·g³)
    const LINEAR: f32 = 1.595_769_2;
    const CUBIC: f32 = LINEAR * 0.044_715;
    // SAFETY: passed on to the caller.
    unsafe {
        gated::<S>(gate, up, out, |g| {
            let inner = S::fma(S::mul(g, g), S::splat(CUBIC), S::splat(LINEAR));
            S::mul(g, inner)
        })
    }
}

/// `out = gate / (1 + e^-slope(gate)) · up`
/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn gated<S: Simd>(gate: &[f32], up: &[f32], out: &mut [f32], slope: impl Fn(S::V) -> S::V) {
    assert!(gate.len() == up.len() && up.len() == out.len() && out.len().is_multiple_of(LANES));
    // SAFETY: vectors lie inside the slices.
    unsafe {
        for i in (0..out.len()).step_by(LANES) {
            let g = S::load(gate.as_ptr().add(i));
            let decay = S::exp(S::sub(S::splat(0.0), slope(g)));
            let gated = S::div(g, S::add(S::splat(1.0), decay));
            S::store(out.as_mut_ptr().add(i), S::mul(gated, S::load(up.as_ptr().add(i))));
        }
    }
}
