//! The decoder on a card: the same operation as [`super::Model`]'s on the same batches, with weights, KV pool and
//! activations in the card's memory.
//!
//! Linear layers that share their input are one product (q|k|v, gate|up), residuals are added by the products
//! themselves, and everything between products is a kernel of [`crate::nn::cuda`]. What a step has to know of its
//! batch goes up in one copy.
//!
//! Numbers are those of the CPU's model but for rounding: activations, K and V are held in the type of the weights.

mod adapters;
mod choose;
mod input;
mod load;
mod step;

use std::collections::HashMap;
use std::sync::Arc;

use super::LoadOptions;
use crate::nn::Error;
use crate::nn::arch::ModelConfig;
use crate::nn::batch::Batch;
use crate::nn::cache::KvShape;
use crate::nn::cuda::Element;
use crate::nn::cuda::attention::Parts;
use crate::nn::cuda::card::{Buffer, Card, Stamp};
use crate::nn::cuda::graph::Graph;
use crate::nn::cuda::rope;
use crate::nn::weights::adapter::Adapter;
use crate::nn::weights::checkpoint::Checkpoint;

/// A loaded decoder. Fields that live on the card are dropped before the card.
pub struct Model<T: Element> {
    config: ModelConfig,
    max_rows: usize,
    context_tokens: usize,
    embedding: Buffer<T>,
    /// None: the embedding is the head.
    head: Option<Buffer<T>>,
    final_norm: Buffer<f32>,
    layers: Vec<Layer<T>>,
    rope: rope::Table,
    /// Of layers with a window.
    local_rope: Option<rope::Table>,
    /// Keys and values, layer after layer.
    pool: Buffer<T>,
    shape: KvShape,
    adapters: adapters::Adapters<T>,
    scratch: Scratch<T>,
    input: input::Input,
    /// By layout of the input; none until it comes a second time.
    graphs: HashMap<Vec<u64>, Option<Graph>>,
    choices: choose::Choices,
    /// Rows of logits of the step that was begun last.
    n_logits: usize,
    /// Around the last step.
    begun: Stamp,
    ended: Stamp,
    /// Per KV block, the span that writes it; all 0 between steps.
    writers: Vec<u32>,
    /// What was read back.
    logits: Vec<f32>,
    card: Card,
}

struct Layer<T> {
    attention_norm: Buffer<f32>,
    /// q|k|v
    qkv: Buffer<T>,
    qkv_bias: Option<Buffer<f32>>,
    /// Norms of the heads of q and of k.
    qk_norms: Option<(Buffer<f32>, Buffer<f32>)>,
    o: Buffer<T>,
    post_attention_norm: Option<Buffer<f32>>,
    ffn_norm: Buffer<f32>,
    /// gate|up
    gate_up: Buffer<T>,
    down: Buffer<T>,
    post_ffn_norm: Option<Buffer<f32>>,
}

/// Rows of a step.
struct Scratch<T> {
    /// Residual stream `[rows, hidden]`.
    h: Buffer<T>,
    /// Normed rows, or what joins the residual stream through a norm.
    normed: Buffer<T>,
    qkv: Buffer<T>,
    attended: Buffer<T>,
    gate_up: Buffer<T>,
    activated: Buffer<T>,
    /// `[logit rows, vocab]`; grows to the largest request.
    logits: Buffer<f32>,
    parts: Parts,
}

/// Bytes of the weights, and of what else a model allocates besides adapters and KV: activations, tables, attention
/// parts, masks and logits for `logit_rows`, and what cuBLAS works with.
pub fn bytes(config: &ModelConfig, max_rows: usize, logit_rows: usize) -> (u64, u64) {
    load::bytes(config, max_rows, logit_rows)
}

impl<T: Element> Model<T> {
    /// Reads all weights onto the card; `on_bytes` as in [`super::Model::load`].
    pub fn load(
        card: Card,
        checkpoint: &Checkpoint,
        options: &LoadOptions,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<Self, Error> {
        load::load(card, checkpoint, options, on_bytes)
    }

    /// Random weights of a shape, to measure with.
    pub fn random(card: Card, config: &ModelConfig, options: &LoadOptions, seed: u64) -> Result<Self, Error> {
        load::random(card, config, options, seed)
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub fn block_tokens(&self) -> usize {
        self.shape.block_tokens
    }

    pub fn n_blocks(&self) -> usize {
        self.shape.n_blocks
    }

    pub fn context_tokens(&self) -> usize {
        self.context_tokens
    }

    pub fn max_rows(&self) -> usize {
        self.max_rows
    }

    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Runs one step, as [`super::Model::forward`] does.
    pub fn forward(&mut self, batch: &Batch) -> Result<&[f32], Error> {
        self.begin(batch)?;
        self.logits.resize(self.n_logits * self.config.vocab, 0.0);
        self.card.read_into(&self.scratch.logits, &mut self.logits)?;
        Ok(&self.logits)
    }

    /// Starts a step and returns; [`Model::choose`] waits for it.
    pub fn begin(&mut self, batch: &Batch) -> Result<(), Error> {
        let limits = super::check::Limits {
            max_rows: self.max_rows,
            vocab: self.config.vocab,
            context_tokens: self.context_tokens,
            block_tokens: self.shape.block_tokens,
            n_blocks: self.shape.n_blocks,
            has_adapter: &|slot| self.adapters.has(slot),
        };
        super::check::check(batch, &limits, &mut self.writers)?;
        self.n_logits = batch.logit_rows.len();
        self.step(batch)
    }

    /// Takes an adapter in and returns its slot; slots of removed ones are used again.
    pub fn add_adapter(&mut self, adapter: &Arc<Adapter>) -> Result<u32, Error> {
        self.adapters.add(&self.card, &self.config, adapter, self.max_rows)
    }

    /// Frees a slot; one that is free stays so.
    pub fn remove_adapter(&mut self, slot: u32) {
        self.adapters.remove(slot);
    }

    /// Bytes on the card: weights, adapters, KV pool, tables and scratch.
    pub fn memory_bytes(&self) -> u64 {
        self.weight_bytes()
            + self.adapters.bytes()
            + self.pool.bytes()
            + self.rope.bytes()
            + self.local_rope.as_ref().map_or(0, rope::Table::bytes)
            + self.scratch.bytes()
            + self.input.bytes()
            + self.choices.bytes()
    }

    /// Bytes of the weights.
    pub fn weight_bytes(&self) -> u64 {
        let layer = |l: &Layer<T>| {
            let norms = [Some(&l.attention_norm), Some(&l.ffn_norm)]
                .into_iter()
                .chain([&l.post_attention_norm, &l.post_ffn_norm, &l.qkv_bias].map(Option::as_ref))
                .flatten()
                .map(Buffer::bytes)
                .sum::<u64>();
            let heads = l.qk_norms.as_ref().map_or(0, |(q, k)| q.bytes() + k.bytes());
            norms + heads + [&l.qkv, &l.o, &l.gate_up, &l.down].map(Buffer::bytes).iter().sum::<u64>()
        };
        self.embedding.bytes()
            + self.head.as_ref().map_or(0, Buffer::bytes)
            + self.final_norm.bytes()
            + self.layers.iter().map(layer).sum::<u64>()
    }
}

impl<T> Scratch<T> {
    fn bytes(&self) -> u64 {
        let rows = [&self.h, &self.normed, &self.qkv, &self.attended, &self.gate_up, &self.activated];
        rows.map(Buffer::bytes).iter().sum::<u64>() + self.logits.bytes() + self.parts.bytes()
    }
}
