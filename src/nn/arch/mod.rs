//! What a family of models computes, and what its tensors are called.
//!
//! All of them are one decoder ([`super::model`]); a [`ModelConfig`] says where they differ. Names are
//! those of Hugging Face checkpoints or of GGUF.

pub mod gguf;
pub mod hf;
pub mod names;

/// Families that the decoder runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// Llama, SmolLM2, Mistral without a window.
    Llama,
    /// Qwen2 and Qwen2.5: biases on q, k and v.
    Qwen2,
    /// Qwen3: norms on the heads of q and k.
    Qwen3,
}

impl Arch {
    /// The word that `config.json` and GGUF files use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Llama, Self::Qwen2, Self::Qwen3].into_iter().find(|arch| arch.as_str() == name)
    }
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
    /// Biases on q, k and v.
    pub qkv_bias: bool,
    /// RMS norms on each head of q and k.
    pub qk_norm: bool,
    pub max_positions: usize,
    pub eos: Vec<u32>,
    pub bos: Option<u32>,
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

    /// Angle per position of each pair of a head: `[head_dim/2]`.
    pub fn inverse_frequencies(&self) -> Vec<f64> {
        let plain =
            (0..self.head_dim / 2).map(|i| self.rope_theta.powf(-2.0 * i as f64 / self.head_dim as f64));
        match self.rope_scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
            RopeScaling::Llama3 { factor, low, high, original } => plain
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
        Ok(())
    }
}
