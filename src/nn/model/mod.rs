//! A loaded decoder: weights, KV pool, adapters in slots, scratch; and one operation on a ragged batch.

mod attend;
mod check;
#[cfg(feature = "cuda")]
pub mod cuda;
mod load;
mod lora;
mod merge;
mod scratch;
mod step;

use std::sync::Arc;

use super::Error;
use super::arch::ModelConfig;
use super::batch::Batch;
use super::cache::{KvPool, KvType};
use super::cpu::buffer::Buffer;
use super::cpu::isa::Isa;
use super::cpu::linear::Linear;
use super::cpu::packed::Packed;
use super::cpu::rope;
use super::cpu::threads::Threads;
use super::weights::adapter::Adapter;
use super::weights::checkpoint::Checkpoint;

pub(crate) use scratch::{rope_bytes, scratch_bytes};

/// How a checkpoint is to be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Threads of a step, the caller included; 0: the cores this process may use.
    pub threads: usize,
    /// Positions of one KV block, a multiple of 16.
    pub block_tokens: usize,
    /// Positions of the KV pool, rounded up to whole blocks.
    pub kv_tokens: usize,
    pub kv_type: KvType,
    /// Most rows of one batch.
    pub max_rows: usize,
    /// Longest sequence; 0, or more than the checkpoint was made for: the checkpoint's own.
    pub context_tokens: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            threads: 0,
            block_tokens: 16,
            kv_tokens: 8192,
            kv_type: KvType::default(),
            max_rows: 512,
            context_tokens: 0,
        }
    }
}

pub struct Model {
    config: ModelConfig,
    max_rows: usize,
    context_tokens: usize,
    isa: Isa,
    embedding: Packed,
    /// None: the embedding is the head.
    head: Option<Linear>,
    final_norm: Buffer<f32>,
    layers: Vec<Layer>,
    rope: rope::Table,
    /// Of layers with a window.
    local_rope: Option<rope::Table>,
    pool: KvPool,
    adapters: Vec<Option<Arc<Adapter>>>,
    /// The base with one of them merged in.
    merged: Option<merge::Merged>,
    scratch: scratch::Scratch,
    threads: Threads,
}

struct Layer {
    attention_norm: Buffer<f32>,
    /// q|k|v
    qkv: Linear,
    /// Norms of the heads of q and of k.
    qk_norms: Option<(Buffer<f32>, Buffer<f32>)>,
    o: Linear,
    /// Norm of what attention adds to the residual stream.
    post_attention_norm: Option<Buffer<f32>>,
    ffn_norm: Buffer<f32>,
    /// gate|up
    gate_up: Linear,
    down: Linear,
    post_ffn_norm: Option<Buffer<f32>>,
}

impl Model {
    /// Reads and packs all weights; `on_bytes` gets the bytes read since its last call, and they add up to
    /// [`Checkpoint::load_bytes`].
    pub fn load(
        checkpoint: &Checkpoint,
        options: &LoadOptions,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<Self, Error> {
        load::load(checkpoint, options, on_bytes)
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub fn block_tokens(&self) -> usize {
        self.pool.shape().block_tokens
    }

    pub fn n_blocks(&self) -> usize {
        self.pool.shape().n_blocks
    }

    pub fn context_tokens(&self) -> usize {
        self.context_tokens
    }

    pub fn max_rows(&self) -> usize {
        self.max_rows
    }

    /// The instruction set that the kernels use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Makes the kernels use another instruction set of this machine, to compare them.
    pub fn set_isa(&mut self, isa: Isa) -> Result<(), Error> {
        if !Isa::available().contains(&isa) {
            let cause = format!("{isa:?} is not available here");
            return Err(Error::Option { option: "isa", cause });
        }
        self.isa = isa;
        Ok(())
    }

    /// Runs one step: writes the new positions' K and V, and returns the logits of `batch.logit_rows`,
    /// `[n_logits, vocab]`. A batch that breaks its contract is refused before anything is written.
    pub fn forward(&mut self, batch: &Batch) -> Result<&[f32], Error> {
        let limits = check::Limits {
            max_rows: self.max_rows,
            vocab: self.config.vocab,
            context_tokens: self.context_tokens,
            block_tokens: self.block_tokens(),
            n_blocks: self.n_blocks(),
            has_adapter: &|slot| matches!(self.adapters.get(slot as usize), Some(Some(_))),
        };
        check::check(batch, &limits, &mut self.scratch.writers)?;
        self.step(batch)
    }

    /// Takes an adapter in and returns its slot; slots of removed ones are used again.
    pub fn add_adapter(&mut self, adapter: Arc<Adapter>) -> Result<u32, Error> {
        if adapter.n_layers() != self.config.n_layers {
            let cause = format!("made for {} layers", adapter.n_layers());
            return Err(Error::Option { option: "adapter", cause });
        }
        self.scratch.reserve_rank(adapter.rank())?;
        let slot = match self.adapters.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.adapters.push(None);
                self.adapters.len() - 1
            }
        };
        self.adapters[slot] = Some(adapter);
        Ok(slot as u32)
    }

    /// Frees a slot; one that is free stays so.
    pub fn remove_adapter(&mut self, slot: u32) {
        if self.merged_slot() == Some(slot) {
            self.merged = None;
        }
        if let Some(adapter) = self.adapters.get_mut(slot as usize) {
            *adapter = None;
        }
    }

    /// Bytes that this model holds: weights, adapters, a merged copy, KV pool, tables and scratch.
    pub fn memory_bytes(&self) -> u64 {
        self.weight_bytes()
            + self.adapters.iter().flatten().map(|a| a.bytes()).sum::<u64>()
            + self.merged_bytes()
            + self.pool.bytes()
            + self.rope.bytes()
            + self.local_rope.as_ref().map_or(0, rope::Table::bytes)
            + self.scratch.bytes()
    }

    /// Bytes of the packed weights.
    pub fn weight_bytes(&self) -> u64 {
        let layer = |l: &Layer| {
            l.attention_norm.bytes()
                + l.ffn_norm.bytes()
                + [&l.post_attention_norm, &l.post_ffn_norm]
                    .into_iter()
                    .flatten()
                    .map(Buffer::bytes)
                    .sum::<u64>()
                + l.qk_norms.as_ref().map_or(0, |(q, k)| q.bytes() + k.bytes())
                + [&l.qkv, &l.o, &l.gate_up, &l.down].iter().map(|m| m.bytes()).sum::<u64>()
        };
        self.embedding.bytes()
            + self.head.as_ref().map_or(0, Linear::bytes)
            + self.final_norm.bytes()
            + self.layers.iter().map(layer).sum::<u64>()
    }
}
