//! The paged KV pool: `[layer][block][kv_head]{ K: [head_dim][block_tokens], V: [block_tokens][head_dim] }`.
//!
//! K lies transposed, so that one vector load takes a value of 16 neighbouring tokens and scores need no
//! sums across lanes. Which sequence owns a block is the scheduler's business.

use super::Error;
use super::cpu::LANES;
use super::cpu::buffer::Buffer;

pub struct KvPool {
    data: Buffer<f32>,
    shape: KvShape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    pub n_layers: usize,
    pub n_blocks: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    /// A multiple of 16.
    pub block_tokens: usize,
}

impl KvShape {
    /// Values of K (or of V) of one head in one block.
    pub fn half(&self) -> usize {
        self.head_dim * self.block_tokens
    }

    /// Where K of (layer, block, head) begins; V follows after [`Self::half`].
    pub fn offset(&self, layer: usize, block: usize, head: usize) -> usize {
        ((layer * self.n_blocks + block) * self.n_kv_heads + head) * 2 * self.half()
    }

    fn len(&self) -> usize {
        self.n_layers * self.n_blocks * self.n_kv_heads * 2 * self.half()
    }
}

impl KvPool {
    pub fn new(shape: KvShape) -> Result<Self, Error> {
        if shape.block_tokens == 0 || !shape.block_tokens.is_multiple_of(LANES) {
            let cause = format!("{} is not a multiple of {LANES}", shape.block_tokens);
            return Err(Error::Option { option: "block_tokens", cause });
        }
        Ok(Self { data: Buffer::zeroed(shape.len(), "KV pool")?, shape })
    }

    pub fn shape(&self) -> KvShape {
        self.shape
    }

    pub fn bytes(&self) -> u64 {
        self.data.bytes()
    }

    pub fn data(&self) -> &[f32] {
        &self.data
    }

    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }
}
