//! What a family of models computes, and what its tensors are called.
//!
//! All of them are one decoder ([`super::model`]). A family's file says where it departs from the plain one
//! ([`Family::PLAIN`]); with a checkpoint's numbers ([`hf`], [`gguf`]) that makes a [`ModelConfig`], which is
//! all that the decoder sees. Names are those of Hugging Face checkpoints or of GGUF ([`names`]).

pub mod gemma3;
pub mod gguf;
pub mod hf;
pub mod llama;
pub mod names;
pub mod qwen2;
pub mod qwen3;

use candle_core::quantized::gguf_file;

use super::weights::dtype::DType;

/// Families that the decoder runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    Llama,
    Qwen2,
    Qwen3,
    Gemma3,
}

impl Arch {
    const ALL: [Self; 4] = [Self::Llama, Self::Qwen2, Self::Qwen3, Self::Gemma3];

    pub fn family(self) -> &'static Family {
        match self {
            Self::Llama => &llama::FAMILY,
            Self::Qwen2 => &qwen2::FAMILY,
            Self::Qwen3 => &qwen3::FAMILY,
            Self::Gemma3 => &gemma3::FAMILY,
        }
    }

    /// The word that GGUF files use.
    pub fn as_str(self) -> &'static str {
        self.family().names[0]
    }

    /// By a word of `config.json` or GGUF.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|arch| arch.family().names.contains(&name))
    }
}

/// What sets a family apart.
pub struct Family {
    /// Its words in files: GGUF's first, then others of `config.json`.
    pub names: &'static [&'static str],
    pub activation: Activation,
    /// Biases on q, k and v.
    pub qkv_bias: bool,
    /// RMS norms on each head of q and k.
    pub qk_norm: bool,
    /// Norms also behind attention and feed-forward, before their outputs join the residual stream.
    pub post_norms: bool,
    /// Hugging Face files store norm weights less 1; GGUF files do not.
    pub norms_less_one: bool,
    /// Embeddings are multiplied by √hidden.
    pub scaled_embedding: bool,
    /// GGUF files hold the rows of q and k in the order of interleaved rotary pairs.
    pub interleaved_in_gguf: bool,
    /// Where a file does not say.
    pub rope_theta: f64,
    pub tied: bool,
    /// Numbers that `config.json` may leave out.
    pub defaults: &'static [(&'static str, usize)],
    /// Reads what only this family has; an error names what is not supported.
    pub from_hf: fn(&serde_json::Value, usize) -> Result<Own, String>,
    /// The same from metadata, by key without the architecture's prefix.
    pub from_gguf: FromGguf,
}

type FromGguf = fn(&dyn Fn(&str) -> Option<gguf_file::Value>, usize) -> Result<Own, String>;

/// What a family's own reader found.
#[derive(Default)]
pub struct Own {
    /// None: 1/√head_dim.
    pub attention_scale: Option<f64>,
    pub window: Option<Window>,
}

impl Family {
    /// Norm → attention → norm → gated SiLU, rotary positions, nothing else.
    pub const PLAIN: Self = Self {
        names: &[],
        activation: Activation::Silu,
        qkv_bias: false,
        qk_norm: false,
        post_norms: false,
        norms_less_one: false,
        scaled_embedding: false,
        interleaved_in_gguf: false,
        rope_theta: 10_000.0,
        tied: false,
        defaults: &[],
        from_hf: hf::plain,
        from_gguf: |_, _| Ok(Own { attention_scale: None, window: None }),
    };
}

/// What the gate of a feed-forward block goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Silu,
    /// GELU by its tanh approximation.
    GeluTanh,
}

impl Activation {
    /// The words of `config.json`.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Silu => &["silu", "swish"],
            Self::GeluTanh => &["gelu_pytorch_tanh"],
        }
    }
}

/// Layers that see only the last positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Positions that a row sees, its own included.
    pub tokens: usize,
    /// Rope base of these layers; their frequencies are never stretched.
    pub theta: f64,
    /// Which layers they are.
    pub local: Vec<bool>,
}

/// The shape of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub arch: Arch,
    pub n_layers: usize,
    pub hidden: usize,
    pub ffn: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    pub rope_theta: f64,
    pub rope_scaling: RopeScaling,
    pub rms_eps: f64,
    /// The head is the embedding matrix.
    pub tied: bool,
    pub activation: Activation,
    /// Biases on q, k and v.
    pub qkv_bias: bool,
    /// RMS norms on each head of q and k.
    pub qk_norm: bool,
    /// Norms behind attention and feed-forward.
    pub post_norms: bool,
    /// Factor of embeddings.
    pub embedding_scale: f32,
    /// Factor of scores.
    pub attention_scale: f32,
    pub window: Option<Window>,
    pub max_positions: usize,
    pub eos: Vec<u32>,
    pub bos: Option<u32>,
}

/// The factor of scores, in f32 as the kernels use it.
fn scale(own: Option<f64>, head_dim: usize) -> f32 {
    own.map_or_else(|| 1.0 / (head_dim as f32).sqrt(), |scale| scale as f32)
}

/// How the rotary frequencies were stretched.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    None,
    Linear {
        factor: f64,
    },
    /// Llama 3.1's.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    /// Each frequency by its own divisor: what GGUF files hold of Llama 3.1's.
    Divided {
        by: Vec<f32>,
    },
}

impl ModelConfig {
    /// Width of all query heads.
    pub fn q_dim(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of all key (or value) heads.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Positions that a row of this layer sees; None: all up to its own.
    pub fn window_of(&self, layer: usize) -> Option<usize> {
        self.window.as_ref().filter(|window| window.local[layer]).map(|window| window.tokens)
    }

    /// What embeddings are multiplied by where the embedding matrix is stored like this. The reference keeps
    /// the factor in the type of the weights; llama.cpp, and so every GGUF file, in f32.
    pub(crate) fn embedding_scale_for(&self, stored: Option<DType>) -> f32 {
        let root = (self.hidden as f32).sqrt();
        match stored {
            _ if !self.arch.family().scaled_embedding => 1.0,
            Some(DType::Bf16) => half::bf16::from_f32(root).to_f32(),
            Some(DType::F16) => half::f16::from_f32(root).to_f32(),
            _ => root,
        }
    }

    /// Angle per position of each pair of a head in layers with a window: `[head_dim/2]`.
    pub fn local_frequencies(&self) -> Option<Vec<f64>> {
        self.window.as_ref().map(|window| self.plain_frequencies(window.theta).collect())
    }

    fn plain_frequencies(&self, theta: f64) -> impl Iterator<Item = f64> {
        let dim = self.head_dim;
        (0..dim / 2).map(move |i| theta.powf(-2.0 * i as f64 / dim as f64))
    }

    /// The same of all other layers.
    pub fn inverse_frequencies(&self) -> Vec<f64> {
        let plain = self.plain_frequencies(self.rope_theta);
        match &self.rope_scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Divided { by } => plain.zip(by).map(|(f, by)| f / f64::from(*by)).collect(),
            RopeScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
            &RopeScaling::Llama3 { factor, low, high, original } => plain
                .map(|f| {
                    let wavelength = std::f64::consts::TAU / f;
                    if wavelength < original / high {
                        f
                    } else if wavelength > original / low {
                        f / factor
                    } else {
                        let smooth = (original / wavelength - low) / (high - low);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                })
                .collect(),
        }
    }

    /// What the kernels need of the shape; the first thing that is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let ModelConfig { n_layers, hidden, ffn, n_heads, n_kv_heads, head_dim, vocab, .. } = *self;
        let sizes = [
            ("layers", n_layers),
            ("hidden size", hidden),
            ("feed-forward size", ffn),
            ("attention heads", n_heads),
            ("KV heads", n_kv_heads),
            ("head size", head_dim),
            ("vocabulary", vocab),
            ("positions", self.max_positions),
        ];
        for (what, size) in sizes {
            if size == 0 || size > 1 << 24 {
                return Err(format!("{what} = {size}"));
            }
        }
        for (what, size) in &sizes[1..3] {
            if !size.is_multiple_of(16) {
                return Err(format!("{what} of {size}, no multiple of 16,"));
            }
        }
        if !head_dim.is_multiple_of(16) || head_dim > 512 {
            return Err(format!("head size of {head_dim}, not a multiple of 16 up to 512,"));
        }
        if !n_heads.is_multiple_of(n_kv_heads) || n_heads / n_kv_heads > 64 {
            return Err(format!("{n_heads} heads over {n_kv_heads} KV heads"));
        }
        let positive = |x: f64| x.is_finite() && x > 0.0;
        if !positive(self.rope_theta) || !positive(self.rms_eps) {
            return Err(format!("rope_theta {} with rms_norm_eps {}", self.rope_theta, self.rms_eps));
        }
        if let RopeScaling::Divided { by } = &self.rope_scaling
            && (by.len() != head_dim / 2 || !by.iter().all(|by| positive(f64::from(*by))))
        {
            return Err(format!("{} divisors of {} rotary frequencies", by.len(), head_dim / 2));
        }
        if let Some(window) = &self.window
            && (window.tokens == 0 || !positive(window.theta))
        {
            return Err(format!("a window of {} with rope base {}", window.tokens, window.theta));
        }
        Ok(())
    }
}
