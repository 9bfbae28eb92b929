//! One forward pass on the card; the order of things is that of the CPU's.

use super::adapters::Adapters;
use super::input::Section;
use super::{Layer, Model};
use crate::nn::Error;
use crate::nn::arch::Activation;
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
        let normed = scratch.normed.part(0..m * hidden);
        product(card, normed, layer.qkv.all(), scratch.qkv.part_mut(0..m * width), hidden, false)?;
        let site = adapters.site(config, 0);
        add_lora(card, adapters, &site, (index, 0), input.lora(), normed, &mut scratch.qkv, m)?;
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
        let normed = scratch.normed.part(0..m * hidden);
        product(card, normed, layer.gate_up.all(), scratch.gate_up.part_mut(0..m * 2 * ffn), hidden, false)?;
        let site = adapters.site(config, 2);
        add_lora(card, adapters, &site, (index, 2), input.lora(), normed, &mut scratch.gate_up, m)?;
        let gate_up = scratch.gate_up.part(0..m * 2 * ffn);
        let activated = scratch.activated.part_mut(0..m * ffn);
        match config.activation {
            Activation::Silu => silu_mul(card, gate_up, activated, ffn)?,
            Activation::GeluTanh => gelu_mul(card, gate_up, activated, ffn)?,
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
        let x = x.part(0..m * k);
        let site = adapters.site(config, site_index);
        let place = (index, site_index);
        let Some(post) = post else {
            product(card, x, weight.all(), scratch.h.part_mut(0..m * hidden), k, true)?;
            return add_lora(card, adapters, &site, place, input.lora(), x, &mut scratch.h, m);
        };
        product(card, x, weight.all(), scratch.normed.part_mut(0..m * hidden), k, false)?;
        add_lora(card, adapters, &site, place, input.lora(), x, &mut scratch.normed, m)?;
        let (x, h) = (scratch.normed.part(0..m * hidden), scratch.h.part_mut(0..m * hidden));
        add_normed(card, x, (post.all(), config.rms_eps as f32), h)
    }
}

/// What the adapters add to a linear layer's output.
#[allow(clippy::too_many_arguments)]
fn add_lora<T: Element>(
    card: &Card,
    adapters: &mut Adapters<T>,
    site: &lora::Site,
    (layer, index): (usize, usize),
    rows: Option<lora::Rows>,
    x: View<T>,
    out: &mut Buffer<T>,
    m: usize,
) -> Result<(), Error> {
    let Some(rows) = rows else { return Ok(()) };
    let (pairs, low) = adapters.of(layer, index);
    lora::add(card, site, pairs, rows, x, &low, &out.part_mut(0..m * site.outputs))
}
