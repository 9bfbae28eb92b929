//! New positions' K and V into the pool.

use super::buffer::Shared;
use crate::nn::cache::KvShape;

/// Writes one position of one sequence: `k` and `v` are `[n_kv_heads, head_dim]`, `block` and `slot` say
/// where it lies.
///
/// # Safety
/// No other task writes this (block, slot) or reads it; both are inside the pool.
pub unsafe fn kv_write(
    pool: &Shared<f32>,
    shape: &KvShape,
    layer: usize,
    block: usize,
    slot: usize,
    k: &[f32],
    v: &[f32],
) {
    let (half, dim) = (shape.half(), shape.head_dim);
    assert!(block < shape.n_blocks && slot < shape.block_tokens);
    for (head, (k, v)) in k.chunks_exact(dim).zip(v.chunks_exact(dim)).enumerate() {
        let first = shape.offset(layer, block, head);
        // other slots of the block may belong to other tasks, so no slice of the whole head is made
        for (d, value) in k.iter().enumerate() {
            // SAFETY: inside the head's K; this slot is this task's alone.
            unsafe { pool.slice(first + d * shape.block_tokens + slot, 1)[0] = *value };
        }
        // SAFETY: this slot's V, this task's alone.
        unsafe { pool.slice(first + half + slot * dim, dim) }.copy_from_slice(v);
    }
}
