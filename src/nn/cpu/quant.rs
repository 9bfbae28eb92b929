//! Rows of activations as integers: 32 values share a scale, largest magnitude at ±127.
//!
//! The scheme of llama.cpp's Q8 blocks; the error is at most 1/254 of a block's largest value.

use super::isa::dispatch;
use super::simd::Simd;

/// Values that share a scale.
pub const BLOCK: usize = 32;

dispatch! {
    /// `x[k]` to `bytes[k]`, `scales[k/32]`, `sums[k/16]` (sums of the bytes) and `weighted[k/32]` (scale ×
    /// sum of the block's bytes). `k` is a multiple of 32.
    pub fn quantise_row(x: &[f32], bytes: &mut [i8], scales: &mut [f32], sums: &mut [i32], weighted: &mut [f32]) = quantise;
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn quantise<S: Simd>(
    x: &[f32],
    bytes: &mut [i8],
    scales: &mut [f32],
    sums: &mut [i32],
    weighted: &mut [f32],
) {
    let n_blocks = x.len() / BLOCK;
    assert!(
        bytes.len() >= n_blocks * BLOCK
            && scales.len() >= n_blocks
            && weighted.len() >= n_blocks
            && sums.len() >= 2 * n_blocks
    );
    for b in 0..n_blocks {
        // SAFETY: two vectors per block, inside the lengths asserted above.
        unsafe {
            let p = x.as_ptr().add(b * BLOCK);
            let (low, high) = (S::load(p), S::load(p.add(16)));
            let largest = S::largest(S::max(S::abs(low), S::abs(high)));
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            let to = bytes.as_mut_ptr().add(b * BLOCK);
            sums[2 * b] = S::store_i8(to, S::mul(low, S::splat(inverse)));
            sums[2 * b + 1] = S::store_i8(to.add(16), S::mul(high, S::splat(inverse)));
            scales[b] = largest / 127.0;
            weighted[b] = scales[b] * (sums[2 * b] + sums[2 * b + 1]) as f32;
        }
    }
}
