//! One forward pass.
//!
//! ```text
//! embed → { norm → q|k|v → (norm) → rope, KV write → attention → o → (norm) + residual
//!           norm → gate|up → activation·mul → down → (norm) + residual } per layer → norm → head, for the rows wanted
//! ```
//! Some families have the norms in parentheses. After each linear layer, the adapters of the spans add theirs.

use super::scratch::{AttentionTask, LoraTask, Scratch};
use super::{Layer, Model};
use crate::nn::Error;
use crate::nn::arch::names::Module;
use crate::nn::arch::{Activation, ModelConfig};
use crate::nn::batch::{Batch, Span};
use crate::nn::cache::KvPool;
use crate::nn::cpu::activation::{gelu_mul, silu_mul};
use crate::nn::cpu::attention;
use crate::nn::cpu::buffer::Shared;
use crate::nn::cpu::embedding;
use crate::nn::cpu::isa::Isa;
use crate::nn::cpu::kv_write::kv_write;
use crate::nn::cpu::linear::{self, Linear, QuantisedRows, Rows};
use crate::nn::cpu::norm::{add_rms_norm, rms_norm};
use crate::nn::cpu::packed::{Format, Packed};
use crate::nn::cpu::rope::{self, rotate};
use crate::nn::cpu::threads::Threads;
use crate::nn::weights::adapter::Adapter;
use std::sync::Arc;

/// Rows that a task of a row-by-row operation takes.
const ROWS: usize = 4;
/// Largest head that is normed on the stack.
const MAX_HEAD_DIM: usize = 512;

/// What the parts of a step share.
pub(super) struct Step<'a> {
    config: &'a ModelConfig,
    pub batch: &'a Batch,
    pub isa: Isa,
    pub adapters: &'a [Option<Arc<Adapter>>],
    rope: &'a rope::Table,
    local_rope: Option<&'a rope::Table>,
}

impl Model {
    pub(super) fn step(&mut self, batch: &Batch) -> Result<&[f32], Error> {
        let n_logits = batch.logit_rows.len();
        self.scratch.reserve_logits(n_logits * self.config.vocab)?;
        let step = Step {
            config: &self.config,
            batch,
            isa: self.isa,
            adapters: &self.adapters,
            rope: &self.rope,
            local_rope: self.local_rope.as_ref(),
        };
        let (scratch, threads) = (&mut self.scratch, &mut self.threads);
        step.plan(scratch);
        let m = batch.n_rows();
        let h = &mut scratch.h[..m * self.config.hidden];
        embedding::gather(&self.embedding, &batch.tokens, self.config.embedding_scale, h, threads);
        for (i, layer) in self.layers.iter().enumerate() {
            step.attention_block(i, layer, &mut self.pool, scratch, threads);
            step.ffn_block(i, layer, scratch, threads);
        }
        if n_logits > 0 {
            let head = match &self.head {
                Some(head) => &head.parts[0].weight,
                None => &self.embedding,
            };
            step.head(head, &self.final_norm, scratch, threads);
        }
        Ok(&self.scratch.logits[..n_logits * self.config.vocab])
    }
}

impl Step<'_> {
    pub(super) fn m(&self) -> usize {
        self.batch.n_rows()
    }

    /// Cuts attention and adapters into tasks, the same for every layer.
    fn plan(&self, scratch: &mut Scratch) {
        scratch.attention_tasks.clear();
        let tile = scratch.tile_sizes.rows;
        for (i, span) in self.batch.spans.iter().enumerate() {
            let n = span.n_tokens as usize;
            // long tiles first: the last tasks of a region should be short
            for first in (0..n).step_by(tile).rev() {
                for kv_head in 0..self.config.n_kv_heads as u32 {
                    let rows = tile.min(n - first) as u32;
                    let task = AttentionTask { span: i as u32, first: first as u32, rows, kv_head };
                    scratch.attention_tasks.push(task);
                }
            }
        }
        self.plan_lora(scratch);
    }

    fn attention_block(
        &self,
        index: usize,
        layer: &Layer,
        pool: &mut KvPool,
        scratch: &mut Scratch,
        threads: &mut Threads,
    ) {
        let (m, width) = (self.m(), self.config.q_dim() + 2 * self.config.kv_dim());
        norm_rows(&scratch.h, &layer.attention_norm, self.config, m, &mut scratch.normed, self.isa, threads);
        let site = Site { layer: index, modules: &[Module::Q, Module::K, Module::V], linear: &layer.qkv };
        let Scratch { normed, quantised, qkv, lora, lora_tasks, .. } = scratch;
        self.apply(&site, normed, quantised, (qkv, width, false), (lora, lora_tasks), threads);
        self.write_kv(index, layer, pool, &mut scratch.qkv, threads);
        self.attend(index, pool, scratch, threads);
        let site = Site { layer: index, modules: &[Module::O], linear: &layer.o };
        let Scratch { attended, normed, quantised, h, lora, lora_tasks, .. } = scratch;
        let residual = Residual { h, free: normed, post_norm: layer.post_attention_norm.as_deref() };
        self.join(&site, attended, quantised, residual, (lora, lora_tasks), threads);
    }

    fn ffn_block(&self, index: usize, layer: &Layer, scratch: &mut Scratch, threads: &mut Threads) {
        let (m, ffn) = (self.m(), self.config.ffn);
        norm_rows(&scratch.h, &layer.ffn_norm, self.config, m, &mut scratch.normed, self.isa, threads);
        let site = Site { layer: index, modules: &[Module::Gate, Module::Up], linear: &layer.gate_up };
        let Scratch { normed, quantised, gate_up, lora, lora_tasks, .. } = scratch;
        self.apply(&site, normed, quantised, (gate_up, 2 * ffn, false), (lora, lora_tasks), threads);
        let (gate_up, activated) = (&scratch.gate_up, Shared::new(&mut scratch.activated));
        let (isa, activation) = (self.isa, self.config.activation);
        threads.run(m.div_ceil(ROWS), &|task, _| {
            for row in task * ROWS..m.min((task + 1) * ROWS) {
                let (gate, up) = gate_up[row * 2 * ffn..(row + 1) * 2 * ffn].split_at(ffn);
                // SAFETY: each task writes its own rows; `isa` was detected.
                unsafe {
                    let out = activated.slice(row * ffn, ffn);
                    match activation {
                        Activation::Silu => silu_mul(isa, gate, up, out),
                        Activation::GeluTanh => gelu_mul(isa, gate, up, out),
                    }
                }
            }
        });
        let site = Site { layer: index, modules: &[Module::Down], linear: &layer.down };
        let Scratch { activated, normed, quantised, h, lora, lora_tasks, .. } = scratch;
        let residual = Residual { h, free: normed, post_norm: layer.post_ffn_norm.as_deref() };
        self.join(&site, activated, quantised, residual, (lora, lora_tasks), threads);
    }

    /// A linear layer whose output joins the residual stream, through a norm where the family has one there.
    fn join(
        &self,
        site: &Site,
        x: &[f32],
        quantised: &mut QuantisedRows,
        residual: Residual,
        lora: (&mut [f32], &[LoraTask]),
        threads: &mut Threads,
    ) {
        let (m, hidden) = (self.m(), self.config.hidden);
        let Residual { h, free, post_norm } = residual;
        let Some(weight) = post_norm else {
            return self.apply(site, x, quantised, (h, hidden, true), lora, threads);
        };
        self.apply(site, x, quantised, (free, hidden, false), lora, threads);
        let (added, h, eps) = (&*free, Shared::new(h), self.config.rms_eps as f32);
        threads.run(m.div_ceil(ROWS), &|task, _| {
            for row in task * ROWS..m.min((task + 1) * ROWS) {
                let added = &added[row * hidden..(row + 1) * hidden];
                // SAFETY: each task writes its own rows; `isa` was detected.
                unsafe { add_rms_norm(self.isa, added, weight, eps, h.slice(row * hidden, hidden)) }
            }
        });
    }

    /// One linear layer over all rows, then what the adapters add.
    fn apply(
        &self,
        site: &Site,
        x: &[f32],
        quantised: &mut QuantisedRows,
        (out, stride, accumulate): (&mut [f32], usize, bool),
        (lora, tasks): (&mut [f32], &[LoraTask]),
        threads: &mut Threads,
    ) {
        let (m, k) = (self.m(), site.linear.parts[0].weight.k());
        let wants = site.linear.wants_quantised();
        if wants {
            quantised.fill(x, m, k, self.isa, threads);
        }
        let rows = Rows { x, quantised: wants.then_some(&*quantised), m };
        linear::forward(site.linear, &rows, out, stride, accumulate, self.isa, threads);
        if !tasks.is_empty() {
            self.add_lora(site, x, k, (out, stride), (lora, tasks), threads);
        }
    }

    /// Norms (where the family has them) and turns q and k, and writes k and v into the pool.
    fn write_kv(
        &self,
        index: usize,
        layer: &Layer,
        pool: &mut KvPool,
        qkv: &mut [f32],
        threads: &mut Threads,
    ) {
        let shape = pool.shape();
        let pool = Shared::new(pool.data_mut());
        let (q_dim, kv_dim) = (self.config.q_dim(), self.config.kv_dim());
        let width = q_dim + 2 * kv_dim;
        let rows = Shared::new(qkv);
        let rope = self.rope_of(index);
        threads.run(self.m().div_ceil(ROWS), &|task, _| {
            for row in task * ROWS..self.m().min((task + 1) * ROWS) {
                let span = self.span_of(row);
                let position = span.past as usize + row - span.first_row as usize;
                // SAFETY: each task has its own rows.
                let values = unsafe { rows.slice(row * width, width) };
                let (q, kv) = values.split_at_mut(q_dim);
                let (k, v) = kv.split_at_mut(kv_dim);
                if let Some((q_norm, k_norm)) = &layer.qk_norms {
                    self.norm_heads(q, q_norm);
                    self.norm_heads(k, k_norm);
                }
                let (cos, sin) = rope.at(position);
                let block = self.batch.blocks_of(span)[position / shape.block_tokens] as usize;
                let slot = position % shape.block_tokens;
                // SAFETY: `isa` was detected; no two rows have the same position of the same sequence, and
                // `check_batch` saw to it that no block is written by two.
                unsafe {
                    rotate(self.isa, q, cos, sin);
                    rotate(self.isa, k, cos, sin);
                    kv_write(&pool, &shape, index, block, slot, k, v);
                }
            }
        });
    }

    fn rope_of(&self, layer: usize) -> &rope::Table {
        self.local_rope.filter(|_| self.config.window_of(layer).is_some()).unwrap_or(self.rope)
    }

    fn norm_heads(&self, heads: &mut [f32], weight: &[f32]) {
        let dim = self.config.head_dim;
        let mut copy = [0f32; MAX_HEAD_DIM];
        for head in heads.chunks_exact_mut(dim) {
            copy[..dim].copy_from_slice(head);
            // SAFETY: `isa` was detected.
            unsafe { rms_norm(self.isa, &copy[..dim], weight, self.config.rms_eps as f32, head) }
        }
    }

    fn span_of(&self, row: usize) -> &Span {
        let after = self.batch.spans.partition_point(|span| span.first_row as usize <= row);
        &self.batch.spans[after - 1]
    }

    fn attend(&self, index: usize, pool: &KvPool, scratch: &mut Scratch, threads: &mut Threads) {
        let (shape, sizes) = (pool.shape(), scratch.tile_sizes);
        let layer = &pool.data()[shape.offset(index, 0, 0)..shape.offset(index + 1, 0, 0)];
        let (qkv, tasks) = (&scratch.qkv, &scratch.attention_tasks);
        let tiles = Shared::new(&mut scratch.tiles);
        let attended = Shared::new(&mut scratch.attended);
        let dim = self.config.head_dim;
        let group = self.config.n_heads / self.config.n_kv_heads;
        let (q_dim, width) = (self.config.q_dim(), self.config.q_dim() + 2 * self.config.kv_dim());
        let scale = self.config.attention_scale;
        let window = self.config.window_of(index).unwrap_or(usize::MAX);
        threads.run(tasks.len(), &|i, thread| {
            let task = tasks[i];
            let span = &self.batch.spans[task.span as usize];
            let (rows, head) = (task.rows as usize, task.kv_head as usize * group * dim);
            let row = (span.first_row + task.first) as usize;
            // SAFETY: one tile per thread.
            let tile = unsafe { tiles.slice(thread * sizes.total, sizes.total) };
            let (queries, rest) = tile.split_at_mut(sizes.queries);
            let (out, scores) = rest.split_at_mut(sizes.queries);
            for r in 0..rows {
                let from = &qkv[(row + r) * width + head..][..group * dim];
                for (to, q) in queries[r * group * dim..].iter_mut().zip(from) {
                    *to = q * scale;
                }
            }
            let args = attention::Args {
                queries,
                n_queries: rows * group,
                group,
                first_length: (span.past + task.first) as usize + 1,
                window,
                head_dim: dim,
                block_tokens: shape.block_tokens,
                pool: &layer[task.kv_head as usize * 2 * shape.half()..],
                block_stride: shape.n_kv_heads * 2 * shape.half(),
                blocks: self.batch.blocks_of(span),
            };
            // SAFETY: `isa` was detected; the kernel asserts its extents; each task writes its own rows' heads.
            unsafe {
                attention::attend(self.isa, &args, scores, sizes.score_stride, out);
                for r in 0..rows {
                    attended
                        .slice((row + r) * q_dim + head, group * dim)
                        .copy_from_slice(&out[r * group * dim..(r + 1) * group * dim]);
                }
            }
        });
    }

    /// Logits of the wanted rows.
    fn head(&self, weight: &Packed, norm: &[f32], scratch: &mut Scratch, threads: &mut Threads) {
        let (hidden, isa, eps) = (self.config.hidden, self.isa, self.config.rms_eps as f32);
        let wanted = &self.batch.logit_rows;
        let (h, normed) = (&scratch.h, Shared::new(&mut scratch.normed));
        threads.run(wanted.len(), &|i, _| {
            let row = wanted[i] as usize;
            // SAFETY: each task writes its own row; `isa` was detected.
            unsafe {
                rms_norm(
                    isa,
                    &h[row * hidden..(row + 1) * hidden],
                    norm,
                    eps,
                    normed.slice(i * hidden, hidden),
                );
            }
        });
        let wants = matches!(weight.format(), Format::Blocks(_));
        if wants {
            scratch.quantised.fill(&scratch.normed, wanted.len(), hidden, isa, threads);
        }
        let quantised = wants.then_some(&scratch.quantised);
        let rows = Rows { x: &scratch.normed, quantised, m: wanted.len() };
        linear::forward_one(weight, &rows, &mut scratch.logits, self.config.vocab, isa, threads);
    }
}

/// A linear layer and the modules it consists of.
pub(super) struct Site<'a> {
    pub layer: usize,
    pub modules: &'a [Module],
    pub linear: &'a Linear,
}

/// Where a block's output goes.
struct Residual<'a> {
    /// Residual stream `[rows, hidden]`.
    h: &'a mut [f32],
    /// Rows of the same width that are free just now.
    free: &'a mut [f32],
    post_norm: Option<&'a [f32]>,
}

fn norm_rows(
    x: &[f32],
    weight: &[f32],
    config: &ModelConfig,
    m: usize,
    out: &mut [f32],
    isa: Isa,
    threads: &mut Threads,
) {
    let (hidden, eps) = (config.hidden, config.rms_eps as f32);
    let out = Shared::new(out);
    threads.run(m.div_ceil(ROWS), &|task, _| {
        for row in task * ROWS..m.min((task + 1) * ROWS) {
            let range = row * hidden..(row + 1) * hidden;
            // SAFETY: each task writes its own rows; `isa` was detected.
            unsafe { rms_norm(isa, &x[range], weight, eps, out.slice(row * hidden, hidden)) }
        }
    });
}
