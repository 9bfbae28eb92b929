//! New positions' K and V into the pool.

use half::f16;

use super::LANES;
use super::attention::Stored;
use super::buffer::Shared;
use super::isa::dispatch;
use super::simd::Simd;
use crate::nn::cache::KvShape;

/// Where one position of one sequence lies.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub layer: usize,
    pub block: usize,
    pub slot: usize,
}

dispatch! {
    /// Writes one position: `k` and `v` are `[n_kv_heads, head_dim]`. No other task writes this place or reads
    /// it.
    pub fn write_f32(pool: &Shared<f32>, shape: &KvShape, place: Place, k: &[f32], v: &[f32]) = write_any_f32;
    /// The same, rounded to halves.
    pub fn write_f16(pool: &Shared<f16>, shape: &KvShape, place: Place, k: &[f32], v: &[f32]) = write_any_f16;
}

/// # Safety
/// That of [`write_f32`].
#[inline(always)]
unsafe fn write_any_f32<S: Simd>(pool: &Shared<f32>, shape: &KvShape, place: Place, k: &[f32], v: &[f32]) {
    // SAFETY: passed on to the caller.
    unsafe { write::<S, f32>(pool, shape, place, k, v) }
}

/// # Safety
/// That of [`write_f16`].
#[inline(always)]
unsafe fn write_any_f16<S: Simd>(pool: &Shared<f16>, shape: &KvShape, place: Place, k: &[f32], v: &[f32]) {
    // SAFETY: passed on to the caller.
    unsafe { write::<S, f16>(pool, shape, place, k, v) }
}

/// # Safety
/// No other task writes this place or reads it, and the machine has `S`.
#[inline(always)]
unsafe fn write<S: Simd, T: Stored + Default>(
    pool: &Shared<T>,
    shape: &KvShape,
    place: Place,
    k: &[f32],
    v: &[f32],
) {
    let (half, dim) = (shape.half(), shape.head_dim);
    assert!(place.block < shape.n_blocks && place.slot < shape.block_tokens && dim.is_multiple_of(LANES));
    for (head, (k, v)) in k.chunks_exact(dim).zip(v.chunks_exact(dim)).enumerate() {
        let first = shape.offset(place.layer, place.block, head);
        // SAFETY: this slot's V, this task's alone.
        let to = unsafe { pool.slice(first + half + place.slot * dim, dim) };
        for d in (0..dim).step_by(LANES) {
            let mut lanes = [T::default(); LANES];
            // SAFETY: whole vectors of k and v. Other slots of the block may belong to other tasks, so no slice
            // of the whole head is made: each value of K goes to its place alone.
            unsafe {
                T::store::<S>(to[d..].as_mut_ptr(), S::load(v[d..].as_ptr()));
                T::store::<S>(lanes.as_mut_ptr(), S::load(k[d..].as_ptr()));
                for (i, value) in lanes.into_iter().enumerate() {
                    pool.slice(first + (d + i) * shape.block_tokens + place.slot, 1)[0] = value;
                }
            }
        }
    }
}
