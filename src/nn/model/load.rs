//! Weights from a checkpoint into a model.

use std::sync::Arc;

use super::scratch::Scratch;
use super::{Layer, LoadOptions, Model};
use crate::nn::Error;
use crate::nn::arch::names::{Module, Role};
use crate::nn::cache::{KvPool, KvShape};
use crate::nn::cpu::LANES;
use crate::nn::cpu::buffer::Buffer;
use crate::nn::cpu::isa::Isa;
use crate::nn::cpu::linear::{Linear, Part};
use crate::nn::cpu::packed::Packed;
use crate::nn::cpu::rope;
use crate::nn::cpu::threads::Threads;
use crate::nn::weights::checkpoint::{Checkpoint, Reader};

pub(super) fn load(
    checkpoint: &Checkpoint,
    options: &LoadOptions,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Model, Error> {
    let config = checkpoint.config().clone();
    for (option, value) in [("max_rows", options.max_rows), ("kv_tokens", options.kv_tokens)] {
        if value == 0 {
            return Err(Error::Option { option, cause: "is 0".into() });
        }
    }
    let context_tokens = match options.context_tokens {
        0 => config.max_positions,
        n => n.min(config.max_positions),
    };
    let threads = Threads::new(options.threads)
        .map_err(|e| Error::Option { option: "threads", cause: e.to_string() })?;
    // the pool and the scratch first: a load that cannot fit fails before it has read anything
    let shape = KvShape {
        n_layers: config.n_layers,
        n_blocks: options.kv_tokens.div_ceil(options.block_tokens.max(1)),
        n_kv_heads: config.n_kv_heads,
        head_dim: config.head_dim,
        block_tokens: options.block_tokens,
    };
    let pool = KvPool::new(shape, options.kv_type)?;
    let n_blocks = pool.shape().n_blocks;
    let scratch = Scratch::new(&config, options.max_rows, context_tokens, n_blocks, threads.count())?;
    let rope = rope::Table::new(&config.inverse_frequencies(), context_tokens)?;
    let local = config.local_frequencies();
    let local_rope = local.map(|local| rope::Table::new(&local, context_tokens)).transpose()?;
    let mut loader = Loader { checkpoint, reader: Reader::new(), threads, on_bytes };
    let embedding = loader.matrix(Role::Embedding, 0)?;
    let head = match config.tied {
        true => None,
        false => Some(Linear { parts: vec![loader.part(Role::Head, None, 0, 0)?] }),
    };
    let final_norm = loader.norm(Role::FinalNorm, 0)?;
    let layers = (0..config.n_layers).map(|layer| loader.layer(layer)).collect::<Result<_, _>>()?;
    Ok(Model {
        config,
        max_rows: options.max_rows,
        context_tokens,
        isa: Isa::detect(),
        embedding,
        head,
        final_norm,
        layers,
        rope,
        local_rope,
        pool,
        adapters: Vec::new(),
        merged: None,
        scratch,
        threads: loader.threads,
    })
}

struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    reader: Reader,
    threads: Threads,
    on_bytes: &'a mut dyn FnMut(u64),
}

impl Loader<'_> {
    fn layer(&mut self, layer: usize) -> Result<Layer, Error> {
        let config = self.checkpoint.config();
        let qk_norms = match config.qk_norm {
            true => Some((self.norm(Role::QNorm, layer)?, self.norm(Role::KNorm, layer)?)),
            false => None,
        };
        let mut post = |role| config.post_norms.then(|| self.norm(role, layer)).transpose();
        let (post_attention_norm, post_ffn_norm) = (post(Role::PostAttentionNorm)?, post(Role::PostFfnNorm)?);
        Ok(Layer {
            attention_norm: self.norm(Role::AttentionNorm, layer)?,
            qkv: self.linear(&[Module::Q, Module::K, Module::V], layer)?,
            qk_norms,
            o: self.linear(&[Module::O], layer)?,
            post_attention_norm,
            ffn_norm: self.norm(Role::FfnNorm, layer)?,
            gate_up: self.linear(&[Module::Gate, Module::Up], layer)?,
            down: self.linear(&[Module::Down], layer)?,
            post_ffn_norm,
        })
    }

    /// The weight of a norm, as the kernels multiply by it.
    fn norm(&mut self, role: Role, layer: usize) -> Result<Buffer<f32>, Error> {
        let mut weight = self.vector(role, layer)?;
        let shift = self.checkpoint.norm_shift();
        weight.iter_mut().for_each(|w| *w += shift);
        Ok(weight)
    }

    fn linear(&mut self, modules: &[Module], layer: usize) -> Result<Linear, Error> {
        let config = self.checkpoint.config();
        let mut column = 0;
        let mut parts = Vec::with_capacity(modules.len());
        for module in modules {
            let biased = config.qkv_bias && matches!(module, Module::Q | Module::K | Module::V);
            let bias = biased.then_some(Role::Bias(*module));
            parts.push(self.part(Role::Weight(*module), bias, layer, column)?);
            column += module.shape(config)[0];
        }
        Ok(Linear { parts })
    }

    fn part(&mut self, weight: Role, bias: Option<Role>, layer: usize, column: usize) -> Result<Part, Error> {
        let weight = self.matrix(weight, layer)?;
        let bias = bias.map(|role| self.vector(role, layer)).transpose()?;
        Ok(Part { weight: Arc::new(weight), bias: bias.map(Arc::new), column })
    }

    fn matrix(&mut self, role: Role, layer: usize) -> Result<Packed, Error> {
        let tensor = self.checkpoint.tensor(role, layer)?;
        let half = self.checkpoint.config().head_dim / 2;
        let raw = self.reader.bytes(tensor, self.on_bytes)?;
        let (n, k) = (tensor.shape[0], tensor.shape[1]);
        let rotated = matches!(role, Role::Weight(Module::Q | Module::K));
        if rotated && self.checkpoint.interleaves_rope() {
            // row 2i+j of a head there is row j·half+i here
            let row_of = |row: usize| {
                let (head, at) = (row / (2 * half), row % (2 * half));
                head * 2 * half + 2 * (at % half) + at / half
            };
            return Packed::pack(tensor.dtype, raw, n, k, &row_of, &mut self.threads);
        }
        Packed::pack(tensor.dtype, raw, n, k, &|row| row, &mut self.threads)
    }

    /// A vector as f32, padded to whole vectors of lanes.
    fn vector(&mut self, role: Role, layer: usize) -> Result<Buffer<f32>, Error> {
        let tensor = self.checkpoint.tensor(role, layer)?;
        let values = self.reader.floats(tensor, self.on_bytes)?;
        let mut buffer = Buffer::zeroed(values.len().next_multiple_of(LANES), "weights")?;
        buffer[..values.len()].copy_from_slice(&values);
        Ok(buffer)
    }
}
