//! One forward pass on the card; the order of things is that of the CPU's.

use super::adapters::Adapters;
use super::input::Section;
use super::{Layer, Model};
use crate::nn::Error;
use crate::nn::arch::{Activation, ModelConfig};
use crate::nn::batch::Batch;
use crate::nn::cuda::activation::{gelu_mul, silu_mul};
use crate::nn::cuda::attention::attend;
use crate::nn::cuda::attention::plan::Sizes;
use crate::nn::cuda::card::{Buffer, Card, View};
use crate::nn::cuda::embedding::gather;
use crate::nn::cuda::gemm::{product, product_f32};
use crate::nn::cuda::graph::Graph;
use crate::nn::cuda::norm::{add_normed, add_rms_norm, rms_norm_rows};
use crate::nn::cuda::rope::{Args, rotate_and_write};
use crate::nn::cuda::{Element, lora};

/// Blocks of wide tiles from which on they are 128 queries wide rather than 64: about two per multiprocessor.
const MANY_TILES: usize = 256;
/// Steps of up to so many rows are recorded; in larger ones launches cost little beside the work.
const RECORDED_ROWS: usize = 1024;
const MOST_GRAPHS: usize = 64;

impl<T: Element> Model<T> {
    /// Starts a checked batch; its logits lie in the scratch once the card has come so far.
    pub(super) fn step(&mut self, batch: &Batch) -> Result<(), Error> {
        let group = self.config.n_heads / self.config.n_kv_heads;
        let tiles = batch.n_rows() * group / 128 * self.config.n_kv_heads;
        let sizes = Sizes {
            group,
            block_tokens: self.shape.block_tokens,
            wide: if tiles >= MANY_TILES { 128 } else { 64 },
            max_parts: self.scratch.parts.max_parts(),
            cascade: true,
        };
        let is_recorded = batch.n_rows() <= RECORDED_ROWS;
        self.input.fill(&self.card, batch, &sizes, is_recorded.then_some(self.max_rows))?;
        self.card.set(&self.begun)?;
        let (m, n_logits) = self.input.sizes();
        if self.scratch.logits.len() < n_logits * self.config.vocab {
            self.scratch.logits = self.card.zeroed(n_logits * self.config.vocab, "logits")?;
        }
        if is_recorded { self.replay(m, n_logits) } else { self.launch(m, n_logits) }?;
        self.card.set(&self.ended)
    }

    /// Launches as one graph, which is recorded when a layout comes for the second time: the first time loads kernels,
    /// which cannot be recorded.
    fn replay(&mut self, m: usize, n_logits: usize) -> Result<(), Error> {
        let mut key = self.input.layout();
        key.extend([self.scratch.logits.all().address(), self.adapters.layout()]);
        match self.graphs.get(&key) {
            Some(Some(graph)) => return graph.replay(),
            Some(None) => {}
            None => {
                if self.graphs.len() >= MOST_GRAPHS {
                    self.card.wait()?;
                    self.graphs.clear();
                }
                self.graphs.insert(key, None);
                return self.launch(m, n_logits);
            }
        }
        Graph::begin(&self.card)?;
        let outcome = self.launch(m, n_logits);
        let graph = Graph::end(&self.card);
        outcome?;
        let graph = graph?;
        graph.replay()?;
        self.graphs.insert(key, Some(graph));
        Ok(())
    }

    /// Everything between the input's way up and the logits: launches alone.
    fn launch(&mut self, m: usize, n_logits: usize) -> Result<(), Error> {
        let (hidden, eps) = (self.config.hidden, self.config.rms_eps as f32);
        let tokens = self.input.section(Section::Tokens);
        let h = self.scratch.h.part_mut(0..m * hidden);
        gather(&self.card, self.embedding.all(), tokens, self.config.embedding_scale, h)?;
        for index in 0..self.layers.len() {
            self.attention_block(index, m)?;
            self.ffn_block(index, m)?;
        }
        if n_logits == 0 {
            return Ok(());
        }
        let Self { scratch, input, card, .. } = self;
        let rows = input.section(Section::LogitRows);
        let (h, normed) = (scratch.h.part_mut(0..m * hidden), scratch.normed.part_mut(0..n_logits * hidden));
        rms_norm_rows(card, h, (self.final_norm.all(), eps), rows, normed)?;
        let head = self.head.as_ref().unwrap_or(&self.embedding).all();
        let logits = scratch.logits.part_mut(0..n_logits * self.config.vocab);
        product_f32(card, scratch.normed.part(0..n_logits * hidden), head, logits, hidden)
    }

    fn attention_block(&mut self, index: usize, m: usize) -> Result<(), Error> {
        let Self { config, layers, scratch, input, card, pool, shape, adapters, rope, local_rope, .. } = self;
        let layer = &layers[index];
        let (hidden, q_dim, eps) = (config.hidden, config.q_dim(), config.rms_eps as f32);
        let width = q_dim + 2 * config.kv_dim();
        let norm = (layer.attention_norm.all(), eps);
        let (h, normed) = (scratch.h.part_mut(0..m * hidden), scratch.normed.part_mut(0..m * hidden));
        add_rms_norm(card, None, h, norm, normed)?;
        let x = (scratch.normed.part(0..m * hidden), layer.qkv.all());
        linear(card, config, adapters, (index, 0), input.lora(), x, (&mut scratch.qkv, m), false)?;
        let table = match config.window_of(index) {
            Some(_) => local_rope.as_ref().unwrap_or(rope),
            None => rope,
        };
        let args = Args {
            bias: layer.qkv_bias.as_ref().map(Buffer::all),
            norms: layer.qk_norms.as_ref().map(|(q, k)| (q.all(), k.all())),
            eps,
            positions: input.section(Section::Positions),
            slots: input.section(Section::Slots),
            table,
        };
        let own = shape.layer(index);
        let qkv = scratch.qkv.part_mut(0..m * width);
        rotate_and_write(card, &args, config.n_heads, shape, qkv, pool.part_mut(own.clone()))?;
        let how = (config.window_of(index), config.attention_scale);
        let (qkv, attended) = (scratch.qkv.part(0..m * width), scratch.attended.part_mut(0..m * q_dim));
        attend(
            card,
            &input.planned(),
            &mut scratch.parts,
            shape,
            config.n_heads,
            how,
            qkv,
            pool.part(own),
            &attended,
        )?;
        self.join(index, m, 1)
    }

    fn ffn_block(&mut self, index: usize, m: usize) -> Result<(), Error> {
        let Self { config, layers, scratch, input, card, adapters, .. } = self;
        let layer = &layers[index];
        let (hidden, ffn, eps) = (config.hidden, config.ffn, config.rms_eps as f32);
        let norm = (layer.ffn_norm.all(), eps);
        let (h, normed) = (scratch.h.part_mut(0..m * hidden), scratch.normed.part_mut(0..m * hidden));
        add_rms_norm(card, None, h, norm, normed)?;
        let (normed, weight) = (scratch.normed.part(0..m * hidden), layer.gate_up.all());
        let (both, activated) = (0..m * 2 * ffn, scratch.activated.part_mut(0..m * ffn));
        let is_gelu = config.activation == Activation::GeluTanh;
        match input.lora() {
            // what adapters add goes through the gate without a way through memory
            Some(rows) => {
                let site = adapters.site(config, 2);
                let (pairs, low) = adapters.of(index, 2);
                let tables = lora::Tables { pairs, rows };
                lora::begin(card, &site, &tables, normed, &low)?;
                product(card, normed, weight, scratch.gate_up.part_mut(both.clone()), hidden, false)?;
                let gate_up = scratch.gate_up.part(both);
                lora::finish_gate(card, &site, &tables, &low, gate_up, (&activated, is_gelu))?;
            }
            None => {
                product(card, normed, weight, scratch.gate_up.part_mut(both.clone()), hidden, false)?;
                let gate_up = scratch.gate_up.part(both);
                if is_gelu {
                    gelu_mul(card, gate_up, activated, ffn)
                } else {
                    silu_mul(card, gate_up, activated, ffn)
                }?;
            }
        }
        self.join(index, m, 3)
    }

    /// The linear layer at the end of a block, whose output joins the residual stream: by itself, or through a norm
    /// where the family has one there.
    fn join(&mut self, index: usize, m: usize, site_index: usize) -> Result<(), Error> {
        let Self { config, layers, scratch, input, card, adapters, .. } = self;
        let layer: &Layer<T> = &layers[index];
        let hidden = config.hidden;
        let (x, k, weight, post) = match site_index {
            1 => (&scratch.attended, config.q_dim(), &layer.o, &layer.post_attention_norm),
            _ => (&scratch.activated, config.ffn, &layer.down, &layer.post_ffn_norm),
        };
        let (x, place) = ((x.part(0..m * k), weight.all()), (index, site_index));
        let Some(post) = post else {
            return linear(card, config, adapters, place, input.lora(), x, (&mut scratch.h, m), true);
        };
        linear(card, config, adapters, place, input.lora(), x, (&mut scratch.normed, m), false)?;
        let (x, h) = (scratch.normed.part(0..m * hidden), scratch.h.part_mut(0..m * hidden));
        add_normed(card, x, (post.all(), config.rms_eps as f32), h)
    }
}

/// A linear layer with what the adapters add to its output.
#[allow(clippy::too_many_arguments)]
fn linear<T: Element>(
    card: &Card,
    config: &ModelConfig,
    adapters: &mut Adapters<T>,
    (layer, index): (usize, usize),
    rows: Option<lora::Rows>,
    (x, weight): (View<T>, View<T>),
    (out, m): (&mut Buffer<T>, usize),
    accumulate: bool,
) -> Result<(), Error> {
    let k = x.len() / m;
    let n = m * (weight.len() / k);
    let Some(rows) = rows else { return product(card, x, weight, out.part_mut(0..n), k, accumulate) };
    let site = adapters.site(config, index);
    let (pairs, low) = adapters.of(layer, index);
    let tables = lora::Tables { pairs, rows };
    lora::begin(card, &site, &tables, x, &low)?;
    product(card, x, weight, out.part_mut(0..n), k, accumulate)?;
    lora::finish(card, &site, &tables, &low, &out.part_mut(0..n))
}
