//! Rotary positions, in the layout of the Hugging Face checkpoints: value `i` of a head turns with value
//! `i + head_dim/2`. GGUF files of arch `llama` interleave the pairs; they are put back when read.

use super::LANES;
use super::buffer::Buffer;
use super::isa::dispatch;
use super::simd::Simd;
use crate::nn::Error;

/// Cosines and sines of every position: `[positions, head_dim/2]` each.
pub struct Table {
    cos: Buffer<f32>,
    sin: Buffer<f32>,
    half: usize,
}

impl Table {
    /// `inverse_frequencies[i]` is the angle per position of pair `i`.
    pub fn new(inverse_frequencies: &[f64], positions: usize) -> Result<Self, Error> {
        let half = inverse_frequencies.len();
        let mut cos = Buffer::zeroed(positions * half, "rope tables")?;
        let mut sin = Buffer::zeroed(positions * half, "rope tables")?;
        for position in 0..positions {
            for (i, frequency) in inverse_frequencies.iter().enumerate() {
                // the reference multiplies in f32 before taking the cosine
                let angle = f64::from(position as f32 * *frequency as f32);
                cos[position * half + i] = angle.cos() as f32;
                sin[position * half + i] = angle.sin() as f32;
            }
        }
        Ok(Self { cos, sin, half })
    }

    pub fn bytes(&self) -> u64 {
        self.cos.bytes() + self.sin.bytes()
    }

    /// Cosines and sines of one position: `[head_dim/2]` each.
    pub fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.half..(position + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}

dispatch! {
    /// Turns neighbouring heads in place: `x` is `[n_heads, 2·half]`, `cos` and `sin` are `[half]`.
    pub fn rotate(x: &mut [f32], cos: &[f32], sin: &[f32]) = rotate_any;
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn rotate_any<S: Simd>(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    assert!(sin.len() == half && x.len().is_multiple_of(2 * half));
    for head in x.chunks_exact_mut(2 * half) {
        let (a, b) = head.split_at_mut(half);
        let whole = half - half % LANES;
        for i in (0..whole).step_by(LANES) {
            // SAFETY: `i + 16 <= half`, the length of all four slices.
            unsafe {
                let (c, s) = (S::load(cos.as_ptr().add(i)), S::load(sin.as_ptr().add(i)));
                let (u, v) = (S::load(a.as_ptr().add(i)), S::load(b.as_ptr().add(i)));
                S::store(a.as_mut_ptr().add(i), S::sub(S::mul(u, c), S::mul(v, s)));
                S::store(b.as_mut_ptr().add(i), S::fma(v, c, S::mul(u, s)));
            }
        }
        for i in whole..half {
            let (u, v) = (a[i], b[i]);
            a[i] = u * cos[i] - v * sin[i];
            b[i] = v * cos[i] + u * sin[i];
        }
    }
}
