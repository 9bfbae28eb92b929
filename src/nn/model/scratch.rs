//! Everything a step writes besides the KV pool, allocated once.

use crate::nn::Error;
use crate::nn::arch::ModelConfig;
use crate::nn::cpu::LANES;
use crate::nn::cpu::attention::{Segment, TILE};
use crate::nn::cpu::buffer::Buffer;
use crate::nn::cpu::linear::QuantisedRows;

/// Rows of logits that are there from the start; more are allocated when first asked for.
const LOGIT_ROWS: usize = 64;

pub(super) struct Scratch {
    /// Residual stream `[rows, hidden]`.
    pub h: Buffer<f32>,
    /// Normed rows `[rows, hidden]`.
    pub normed: Buffer<f32>,
    /// `[rows, q|k|v]`
    pub qkv: Buffer<f32>,
    /// `[rows, q]`
    pub attended: Buffer<f32>,
    /// `[rows, gate|up]`
    pub gate_up: Buffer<f32>,
    /// `[rows, ffn]`
    pub activated: Buffer<f32>,
    pub quantised: QuantisedRows,
    /// `[rows, rank]` of the widest adapter.
    pub lora: Buffer<f32>,
    pub logits: Buffer<f32>,
    /// Per thread: queries, output and scores of a tile.
    pub tiles: Buffer<f32>,
    pub tile_sizes: TileSizes,
    pub attention_tasks: Vec<AttentionTask>,
    pub segments: Vec<PlannedSegment>,
    /// Spans in the order in which they are cut into tiles.
    pub span_order: Vec<u32>,
    pub lora_tasks: Vec<LoraTask>,
    /// Per KV block, the span that writes it; all 0 between steps.
    pub writers: Vec<u32>,
    max_rows: usize,
}

/// Parts of a thread's tile.
#[derive(Clone, Copy)]
pub(super) struct TileSizes {
    /// Most rows of a tile.
    pub rows: usize,
    /// Queries, and output: rows × heads of a group × head_dim.
    pub queries: usize,
    /// Positions of a row of scores.
    pub score_stride: usize,
    pub total: usize,
}

/// A tile for one KV head: some segments that lie side by side in [`Scratch::segments`].
#[derive(Clone, Copy)]
pub(super) struct AttentionTask {
    pub first_segment: u32,
    pub n_segments: u32,
    /// Positions from the start that the segments share.
    pub shared: u32,
    pub kv_head: u32,
    /// What a tile takes, for the order in which tasks begin: rows × positions.
    pub cost: u32,
}

/// Neighbouring rows of a span.
#[derive(Clone, Copy)]
pub(super) struct PlannedSegment {
    pub first_row: u32,
    pub segment: Segment,
}

/// Some neighbouring rows that use one adapter.
#[derive(Clone, Copy)]
pub(super) struct LoraTask {
    pub row: usize,
    pub rows: usize,
    pub slot: usize,
}

fn widest(config: &ModelConfig) -> usize {
    config.hidden.max(config.ffn).max(config.q_dim())
}

fn row_values(config: &ModelConfig) -> usize {
    2 * config.hidden + 2 * config.q_dim() + 2 * config.kv_dim() + 3 * config.ffn
}

/// Bytes of rows and first logits: what grows with `max_rows`.
pub(crate) fn scratch_bytes(config: &ModelConfig, max_rows: usize) -> u64 {
    let k = widest(config);
    let quantised = max_rows * (k + 2 * k.div_ceil(32) * 4 + k.div_ceil(16) * 4);
    let logits = max_rows.min(LOGIT_ROWS) * config.vocab * 4;
    (max_rows * row_values(config) * 4 + quantised + logits) as u64
}

/// Bytes of the rope tables of a sequence of this many positions.
pub(crate) fn rope_bytes(config: &ModelConfig, positions: usize) -> u64 {
    let tables = 1 + usize::from(config.window.is_some());
    (tables * positions * config.head_dim * size_of::<f32>()) as u64
}

impl Scratch {
    pub fn new(
        config: &ModelConfig,
        max_rows: usize,
        context_tokens: usize,
        n_blocks: usize,
        threads: usize,
    ) -> Result<Self, Error> {
        let rows = |width: usize| Buffer::zeroed(max_rows * width, "activations");
        let group = config.n_heads / config.n_kv_heads;
        let tile_rows = (TILE / group).max(1);
        let queries = tile_rows * group * config.head_dim;
        let score_stride = context_tokens.next_multiple_of(LANES);
        let total = 2 * queries + tile_rows * group * score_stride;
        Ok(Self {
            h: rows(config.hidden)?,
            normed: rows(config.hidden)?,
            qkv: rows(config.q_dim() + 2 * config.kv_dim())?,
            attended: rows(config.q_dim())?,
            gate_up: rows(2 * config.ffn)?,
            activated: rows(config.ffn)?,
            quantised: QuantisedRows::new(max_rows, widest(config))?,
            lora: rows(0)?,
            logits: Buffer::zeroed(max_rows.min(LOGIT_ROWS) * config.vocab, "logits")?,
            tiles: Buffer::zeroed(threads * total, "attention scores")?,
            tile_sizes: TileSizes { rows: tile_rows, queries, score_stride, total },
            attention_tasks: Vec::with_capacity(max_rows * config.n_kv_heads),
            segments: Vec::with_capacity(max_rows),
            span_order: Vec::with_capacity(max_rows),
            lora_tasks: Vec::with_capacity(max_rows),
            writers: vec![0; n_blocks],
            max_rows,
        })
    }

    pub fn reserve_rank(&mut self, rank: usize) -> Result<(), Error> {
        if self.lora.len() < self.max_rows * rank {
            self.lora = Buffer::zeroed(self.max_rows * rank, "activations")?;
        }
        Ok(())
    }

    pub fn reserve_logits(&mut self, values: usize) -> Result<(), Error> {
        if self.logits.len() < values {
            self.logits = Buffer::zeroed(values, "logits")?;
        }
        Ok(())
    }

    pub fn bytes(&self) -> u64 {
        let floats = [
            &self.h,
            &self.normed,
            &self.qkv,
            &self.attended,
            &self.gate_up,
            &self.activated,
            &self.lora,
            &self.logits,
            &self.tiles,
        ];
        floats.iter().map(|b| b.bytes()).sum::<u64>()
            + self.quantised.bytes()
            + (self.writers.len() * size_of::<u32>()) as u64
            + (self.attention_tasks.capacity() * size_of::<AttentionTask>()) as u64
            + (self.segments.capacity() * size_of::<PlannedSegment>()) as u64
            + (self.span_order.capacity() * size_of::<u32>()) as u64
            + (self.lora_tasks.capacity() * size_of::<LoraTask>()) as u64
    }
}
