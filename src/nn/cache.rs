//! The paged KV pool: `[layer][block][kv_head]{ K: [head_dim][block_tokens], V: [block_tokens][head_dim] }`.
//!
//! K lies transposed, so that one vector load takes a value of 16 neighbouring tokens and scores need no
//! sums across lanes. Which sequence owns a block is the scheduler's business.

use half::f16;

use super::Error;
use super::cpu::LANES;
use super::cpu::buffer::Buffer;

/// How K and V are held. Sums are f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// Rounded to 11 bits: half the memory, and half the bytes that a decoding step reads.
    #[default]
    F16,
    /// As computed.
    F32,
}

impl KvType {
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

pub struct KvPool {
    data: KvData,
    shape: KvShape,
}

pub enum KvData {
    F16(Buffer<f16>),
    F32(Buffer<f32>),
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

    /// Values of one layer.
    pub fn layer(&self, layer: usize) -> std::ops::Range<usize> {
        self.offset(layer, 0, 0)..self.offset(layer + 1, 0, 0)
    }

    fn len(&self) -> usize {
        self.n_layers * self.n_blocks * self.n_kv_heads * 2 * self.half()
    }
}

impl KvPool {
    pub fn new(shape: KvShape, kv_type: KvType) -> Result<Self, Error> {
        if shape.block_tokens == 0 || !shape.block_tokens.is_multiple_of(LANES) {
            let cause = format!("{} is not a multiple of {LANES}", shape.block_tokens);
            return Err(Error::Option { option: "block_tokens", cause });
        }
        let data = match kv_type {
            KvType::F16 => KvData::F16(Buffer::zeroed(shape.len(), "KV pool")?),
            KvType::F32 => KvData::F32(Buffer::zeroed(shape.len(), "KV pool")?),
        };
        Ok(Self { data, shape })
    }

    pub fn shape(&self) -> KvShape {
        self.shape
    }

    pub fn bytes(&self) -> u64 {
        match &self.data {
            KvData::F16(data) => data.bytes(),
            KvData::F32(data) => data.bytes(),
        }
    }

    pub fn data(&self) -> &KvData {
        &self.data
    }

    pub fn data_mut(&mut self) -> &mut KvData {
        &mut self.data
    }
}
