//! Weights from a checkpoint onto a card.

use std::collections::HashMap;

use super::adapters::Adapters;
use super::choose::Choices;
use super::input::Input;
use super::{Layer, Model, Scratch};
use crate::nn::Error;
use crate::nn::arch::ModelConfig;
use crate::nn::arch::names::{Module, Role, expected};
use crate::nn::cache::KvShape;
use crate::nn::cuda::Element;
use crate::nn::cuda::attention::Parts;
use crate::nn::cuda::card::{Buffer, Card, WORKSPACE_BYTES};
use crate::nn::cuda::{norm, rope};
use crate::nn::model::LoadOptions;
use crate::nn::weights::checkpoint::{Checkpoint, Reader};
use crate::nn::weights::dtype::DType;
use crate::nn::weights::random::Values;

/// Bytes of attention parts, about: rows beyond what fits are not cut.
const PARTS_BYTES: usize = 128 << 20;

pub(super) fn load<T: Element>(
    card: Card,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Model<T>, Error> {
    let source = Source::Files { checkpoint, reader: Reader::new(), on_bytes };
    fill(card, checkpoint.config().clone(), source, options)
}

/// A model of random weights that keep activations of about the size of a trained one's.
pub(super) fn random<T: Element>(
    card: Card,
    config: &ModelConfig,
    options: &LoadOptions,
    seed: u64,
) -> Result<Model<T>, Error> {
    fill(
        card,
        config.clone(),
        Source::Random { values: Values::new(seed), periods: Vec::new(), at: 0 },
        options,
    )
}

fn fill<T: Element>(
    card: Card,
    config: ModelConfig,
    source: Source<T>,
    options: &LoadOptions,
) -> Result<Model<T>, Error> {
    check(&config, options)?;
    let context_tokens = match options.context_tokens {
        0 => config.max_positions,
        n => n.min(config.max_positions),
    };
    // the pool and the scratch first: a load that cannot fit fails before it has read anything
    let shape = KvShape {
        n_layers: config.n_layers,
        n_blocks: options.kv_tokens.div_ceil(options.block_tokens),
        n_kv_heads: config.n_kv_heads,
        head_dim: config.head_dim,
        block_tokens: options.block_tokens,
    };
    let pool = card.zeroed(shape.layer(config.n_layers).start, "KV pool")?;
    let scratch = Scratch::new(&card, &config, options.max_rows)?;
    let rope = rope::Table::new(&card, &config.inverse_frequencies(), context_tokens)?;
    let local = config.local_frequencies();
    let local_rope = local.map(|local| rope::Table::new(&card, &local, context_tokens)).transpose()?;
    let mut loader = Loader { card: &card, config: &config, source, values: Vec::new() };
    let embedding = loader.matrix(&[(Role::Embedding, None)], 0)?;
    let head = match config.tied {
        true => None,
        false => Some(loader.matrix(&[(Role::Head, None)], 0)?),
    };
    let final_norm = loader.norm(Role::FinalNorm, 0)?;
    let layers = (0..config.n_layers).map(|layer| loader.layer(layer)).collect::<Result<_, _>>()?;
    card.wait()?;
    Ok(Model {
        adapters: Adapters::new(&card, &config)?,
        input: Input::new(&card)?,
        graphs: HashMap::new(),
        choices: Choices::new(&card)?,
        n_logits: 0,
        begun: card.stamp()?,
        ended: card.stamp()?,
        writers: vec![0; shape.n_blocks],
        logits: Vec::new(),
        config,
        max_rows: options.max_rows,
        context_tokens,
        embedding,
        head,
        final_norm,
        layers,
        rope,
        local_rope,
        pool,
        shape,
        scratch,
        card,
    })
}

pub(super) fn bytes(config: &ModelConfig, max_rows: usize, logit_rows: usize) -> (u64, u64) {
    let weights: usize = expected(config)
        .iter()
        .map(|(_, _, shape)| shape.iter().product::<usize>() * if shape.len() > 1 { 2 } else { 4 })
        .sum();
    let widths = 2 * config.hidden + 2 * config.q_dim() + 2 * config.kv_dim() + 3 * config.ffn;
    let tables = 1 + usize::from(config.window.is_some());
    let rope = tables * config.max_positions * config.head_dim * size_of::<f32>();
    let logits = logit_rows * (config.vocab * size_of::<f32>() + config.vocab.div_ceil(8));
    (weights as u64, (max_rows * widths * 2 + rope + logits + PARTS_BYTES + WORKSPACE_BYTES) as u64)
}

/// What the kernels need of shape and options.
fn check(config: &ModelConfig, options: &LoadOptions) -> Result<(), Error> {
    let refuse = |option, cause: String| Err(Error::Option { option, cause });
    for (option, value) in [("max_rows", options.max_rows), ("kv_tokens", options.kv_tokens)] {
        if value == 0 {
            return refuse(option, "is 0".into());
        }
    }
    let block_tokens = options.block_tokens;
    if block_tokens < 16 || !block_tokens.is_power_of_two() {
        return refuse("block_tokens", format!("{block_tokens} is not a power of two from 16 on"));
    }
    if !rope::HEAD_DIMS.contains(&config.head_dim) {
        let cause =
            format!("heads of {}; on a card there are kernels for {:?}", config.head_dim, rope::HEAD_DIMS);
        return refuse("device", cause);
    }
    if config.hidden > norm::MAX_HIDDEN {
        return refuse("device", format!("rows of {} are longer than {}", config.hidden, norm::MAX_HIDDEN));
    }
    Ok(())
}

impl<T: Element> Scratch<T> {
    fn new(card: &Card, config: &ModelConfig, max_rows: usize) -> Result<Self, Error> {
        let rows = |width: usize| card.zeroed(max_rows * width, "activations");
        let part_bytes = config.n_heads * (config.head_dim + 1) * size_of::<f32>();
        Ok(Self {
            h: rows(config.hidden)?,
            normed: rows(config.hidden)?,
            qkv: rows(config.q_dim() + 2 * config.kv_dim())?,
            attended: rows(config.q_dim())?,
            gate_up: rows(2 * config.ffn)?,
            activated: rows(config.ffn)?,
            logits: card.zeroed(0, "logits")?,
            parts: Parts::new(card, PARTS_BYTES / part_bytes, config.n_heads, config.head_dim)?,
        })
    }
}

struct Loader<'a, 's, T> {
    card: &'a Card,
    config: &'a ModelConfig,
    source: Source<'s, T>,
    /// A matrix on its way up.
    values: Vec<T>,
}

/// Where weights come from.
enum Source<'a, T> {
    Files {
        checkpoint: &'a Checkpoint,
        reader: Reader,
        on_bytes: &'a mut dyn FnMut(u64),
    },
    Random {
        values: Values,
        /// Values on the card by the inputs that they are scaled for: matrices are copies of them, end to end.
        periods: Vec<(usize, Buffer<T>)>,
        /// Where the next copy begins.
        at: usize,
    },
}

/// Of random values on the card; not a multiple of any row's length.
const PERIOD: usize = (1 << 20) - 3;

impl<T: Element> Loader<'_, '_, T> {
    fn layer(&mut self, layer: usize) -> Result<Layer<T>, Error> {
        let config = self.config;
        let weights = |modules: &[Module]| -> Vec<(Role, Option<Module>)> {
            modules.iter().map(|m| (Role::Weight(*m), Some(*m))).collect()
        };
        let qk_norms = match config.qk_norm {
            true => Some((self.norm(Role::QNorm, layer)?, self.norm(Role::KNorm, layer)?)),
            false => None,
        };
        let qkv_bias = match config.qkv_bias {
            true => Some(self.bias(layer)?),
            false => None,
        };
        let mut post = |role| config.post_norms.then(|| self.norm(role, layer)).transpose();
        let (post_attention_norm, post_ffn_norm) = (post(Role::PostAttentionNorm)?, post(Role::PostFfnNorm)?);
        Ok(Layer {
            attention_norm: self.norm(Role::AttentionNorm, layer)?,
            qkv: self.matrix(&weights(&[Module::Q, Module::K, Module::V]), layer)?,
            qkv_bias,
            qk_norms,
            o: self.matrix(&weights(&[Module::O]), layer)?,
            post_attention_norm,
            ffn_norm: self.norm(Role::FfnNorm, layer)?,
            gate_up: self.matrix(&weights(&[Module::Gate, Module::Up]), layer)?,
            down: self.matrix(&weights(&[Module::Down]), layer)?,
            post_ffn_norm,
        })
    }

    /// The weight of a norm, as the kernels multiply by it.
    fn norm(&mut self, role: Role, layer: usize) -> Result<Buffer<f32>, Error> {
        let weight = match &mut self.source {
            Source::Files { checkpoint, reader, on_bytes } => {
                let mut weight = reader.floats(checkpoint.tensor(role, layer)?, *on_bytes)?;
                weight.iter_mut().for_each(|w| *w += checkpoint.norm_shift());
                weight
            }
            Source::Random { .. } => vec![1.0; shape(self.config, role)[0]],
        };
        self.card.upload(&weight, "weights")
    }

    fn bias(&mut self, layer: usize) -> Result<Buffer<f32>, Error> {
        let mut all = Vec::new();
        for module in [Module::Q, Module::K, Module::V] {
            let role = Role::Bias(module);
            match &mut self.source {
                Source::Files { checkpoint, reader, on_bytes } => {
                    all.extend(reader.floats(checkpoint.tensor(role, layer)?, *on_bytes)?);
                }
                Source::Random { values, .. } => {
                    all.extend(values.take(shape(self.config, role)[0], 0.1));
                }
            }
        }
        self.card.upload(&all, "weights")
    }

    /// Matrices of the same inputs, one below the other.
    fn matrix(&mut self, parts: &[(Role, Option<Module>)], layer: usize) -> Result<Buffer<T>, Error> {
        let n = parts.iter().map(|(role, _)| shape(self.config, *role).iter().product::<usize>()).sum();
        let mut matrix = self.card.zeroed(n, "weights")?;
        let Self { card, config, source, values } = self;
        let (checkpoint, reader, on_bytes) = match source {
            Source::Files { checkpoint, reader, on_bytes } => (checkpoint, reader, on_bytes),
            Source::Random { values, periods, at } => {
                let k = shape(config, parts[0].0)[1];
                // embeddings are about as large as what comes out of a norm
                let inputs = if parts[0].0 == Role::Embedding && !config.tied { 1 } else { k };
                if !periods.iter().any(|(of, _)| *of == inputs) {
                    let size = (3.0 / inputs as f32).sqrt();
                    let period: Vec<T> = values.take(PERIOD, size).map(T::from_f32).collect();
                    periods.push((inputs, card.upload(&period, "weights")?));
                }
                let (_, period) = periods.iter().find(|(of, _)| *of == inputs).expect("made above");
                let mut done = 0;
                while done < n {
                    let some = (n - done).min(PERIOD - *at);
                    card.copy(period.part(*at..*at + some), &matrix.part_mut(done..done + some))?;
                    (done, *at) = (done + some, (*at + some) % PERIOD);
                }
                return Ok(matrix);
            }
        };
        let mut at = 0;
        for (role, module) in parts {
            let tensor = checkpoint.tensor(*role, layer)?;
            let (rows, k) = (tensor.shape[0], tensor.shape[1]);
            values.clear();
            match (tensor.dtype, T::NAME) {
                (DType::Bf16, "bf16") | (DType::F16, "f16") => {
                    let raw = reader.bytes(tensor, *on_bytes)?;
                    let bits = raw.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
                    values.extend(bits.map(T::from_bits));
                }
                _ => {
                    let floats = reader.floats(tensor, *on_bytes)?;
                    values.extend(floats.into_iter().map(T::from_f32));
                }
            }
            if matches!(module, Some(Module::Q | Module::K)) && checkpoint.interleaves_rope() {
                *values = straighten(values, rows, k, config.head_dim / 2);
            }
            card.write_part(values, &matrix.part_mut(at..at + rows * k))?;
            at += rows * k;
        }
        Ok(matrix)
    }
}

/// Of a tensor; every layer's are alike.
fn shape(config: &ModelConfig, role: Role) -> Vec<usize> {
    match role {
        Role::Embedding | Role::Head => vec![config.vocab, config.hidden],
        Role::Weight(module) => module.shape(config).to_vec(),
        Role::Bias(module) => vec![module.shape(config)[0]],
        Role::QNorm | Role::KNorm => vec![config.head_dim],
        Role::FinalNorm
        | Role::AttentionNorm
        | Role::PostAttentionNorm
        | Role::FfnNorm
        | Role::PostFfnNorm => {
            vec![config.hidden]
        }
    }
}

/// Rows of q or k in the order of interleaved pairs: row 2i+j of a head becomes row j·half+i.
fn straighten<T: Copy>(values: &[T], rows: usize, k: usize, half: usize) -> Vec<T> {
    let row_of = |row: usize| {
        let (head, at) = (row / (2 * half), row % (2 * half));
        head * 2 * half + 2 * (at % half) + at / half
    };
    (0..rows).flat_map(|row| &values[row_of(row) * k..][..k]).copied().collect()
}
