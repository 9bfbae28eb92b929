//! RMS norm.

use super::LANES;
use super::isa::dispatch;
use super::simd::Simd;

dispatch! {
    /// `out = x / sqrt(mean(x²) + eps) · weight`, one row. Lengths are equal and multiples of 16.
    pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = rms;

    /// `out += x / sqrt(mean(x²) + eps) · weight`, one row.
    pub fn add_rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = add_rms;
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn rms<S: Simd>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    // SAFETY: passed on to the caller.
    unsafe { normed::<S>(x, weight, eps, out, |_, v| v) }
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn add_rms<S: Simd>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    // SAFETY: passed on to the caller; `p` points at 16 values of `out`.
    unsafe { normed::<S>(x, weight, eps, out, |p, v| S::add(S::load(p), v)) }
}

/// `into` makes the value that is stored of the place it goes to and the normed value.
/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn normed<S: Simd>(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
    into: impl Fn(*const f32, S::V) -> S::V,
) {
    assert!(x.len() == weight.len() && x.len() == out.len() && x.len().is_multiple_of(LANES));
    // SAFETY: vectors lie inside the slices, whose length is a multiple of a vector's.
    unsafe {
        let mut squares = S::splat(0.0);
        for i in (0..x.len()).step_by(LANES) {
            let v = S::load(x.as_ptr().add(i));
            squares = S::fma(v, v, squares);
        }
        let scale = S::splat(1.0 / (S::sum(squares) / x.len() as f32 + eps).sqrt());
        for i in (0..x.len()).step_by(LANES) {
            let v = S::mul(S::load(x.as_ptr().add(i)), scale);
            let to = out.as_mut_ptr().add(i);
            S::store(to, into(to, S::mul(v, S::load(weight.as_ptr().add(i)))));
        }
    }
}
