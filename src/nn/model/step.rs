//! One forward pass.
//!
//! ```text
//! embed → { norm → q|k|v → (norm) → rope, KV write → attention → o → (norm) + residual
//!           norm → gate|up → activation·mul → down → (norm) + residual } per layer → norm → head, for the rows wanted
//! ```
//! Some families have the norms in parentheses. After each linear layer, the adapters of the spans add theirs.

use super::merge::{Merged, SiteIndex};
use super::scratch::{LoraTask, Scratch};
use super::{Layer, Model};
use crate::nn::Error;
use crate::nn::arch::names::Module;
use crate::nn::arch::{Activation, ModelConfig};
use crate::nn::batch::Batch;
use crate::nn::cache::KvPool;
use crate::nn::cpu::activation::{gelu_mul, silu_mul};
use crate::nn::cpu::buffer::Shared;
use crate::nn::cpu::embedding;
use crate::nn::cpu::isa::Isa;
use crate::nn::cpu::linear::{self, Linear, QuantisedRows, Rows};
use crate::nn::cpu::norm::{add_rms_norm, rms_norm};
use crate::nn::cpu::packed::{Format, Packed};
use crate::nn::cpu::rope;
use crate::nn::cpu::threads::Threads;
use crate::nn::weights::adapter::Adapter;
use std::sync::Arc;

/// Rows that a task of a row-by-row operation takes.
pub(super) const ROWS: usize = 4;

/// What the parts of a step share.
pub(super) struct Step<'a> {
    pub config: &'a ModelConfig,
    pub batch: &'a Batch,
    pub isa: Isa,
    pub adapters: &'a [Option<Arc<Adapter>>],
    /// The base with an adapter merged in, where every row of the batch uses that one.
    merged: Option<&'a Merged>,
    pub rope: &'a rope::Table,
    pub local_rope: Option<&'a rope::Table>,
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
            merged: self
                .merged
                .as_ref()
                .filter(|merged| batch.spans.iter().all(|span| span.adapter == Some(merged.slot()))),
            rope: &self.rope,
            local_rope: self.local_rope.as_ref(),
        };
        let (scratch, threads) = (&mut self.scratch, &mut self.threads);
        step.plan_attention(self.pool.shape().block_tokens, threads.count(), scratch);
        step.plan_lora(scratch);
        if step.merged.is_some() {
            scratch.lora_tasks.clear();
        }
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

    /// A block's linear layer, or what an adapter made of it.
    fn linear<'b>(&'b self, own: &'b Linear, layer: usize, site: SiteIndex) -> &'b Linear {
        self.merged.and_then(|merged| merged.site(layer, site)).unwrap_or(own)
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
        let site = Site {
            layer: index,
            modules: &[Module::Q, Module::K, Module::V],
            linear: self.linear(&layer.qkv, index, SiteIndex::Qkv),
        };
        let Scratch { normed, quantised, qkv, lora, lora_tasks, .. } = scratch;
        self.apply(&site, normed, quantised, (qkv, width, false), (lora, lora_tasks), threads);
        self.write_kv(index, layer, pool, &mut scratch.qkv, threads);
        self.attend(index, pool, scratch, threads);
        let site =
            Site { layer: index, modules: &[Module::O], linear: self.linear(&layer.o, index, SiteIndex::O) };
        let Scratch { attended, normed, quantised, h, lora, lora_tasks, .. } = scratch;
        let residual = Residual { h, free: normed, post_norm: layer.post_attention_norm.as_deref() };
        self.join(&site, attended, quantised, residual, (lora, lora_tasks), threads);
    }

    fn ffn_block(&self, index: usize, layer: &Layer, scratch: &mut Scratch, threads: &mut Threads) {
        let (m, ffn) = (self.m(), self.config.ffn);
        norm_rows(&scratch.h, &layer.ffn_norm, self.config, m, &mut scratch.normed, self.isa, threads);
        let site = Site {
            layer: index,
            modules: &[Module::Gate, Module::Up],
            linear: self.linear(&layer.gate_up, index, SiteIndex::GateUp),
        };
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
        let site = Site {
            layer: index,
            modules: &[Module::Down],
            linear: self.linear(&layer.down, index, SiteIndex::Down),
        };
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
