//! Shapes of models and of loads that the engine is measured with.

use serde_json::{Value, json};

use crate::cli::args::{EngineShape, Workload};

impl EngineShape {
    /// As a checkpoint of that shape says it in its `config.json`.
    pub fn config(self) -> Value {
        let of = |hidden: usize, layers: usize, heads: [usize; 2], ffn: usize, vocab: usize, tied: bool| {
            json!({
                "model_type": "qwen2", "hidden_size": hidden, "num_hidden_layers": layers,
                "num_attention_heads": heads[0], "num_key_value_heads": heads[1], "intermediate_size": ffn,
                "vocab_size": vocab, "tie_word_embeddings": tied, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
                "max_position_embeddings": 32_768, "hidden_act": "silu",
            })
        };
        match self {
            Self::Qwen14b => of(5120, 48, [40, 8], 13_824, 152_064, false),
            Self::Qwen05b => of(896, 24, [14, 2], 4864, 151_936, true),
            Self::Tiny => of(64, 2, [4, 2], 128, 2048, false),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qwen14b => "qwen2.5-14b",
            Self::Qwen05b => "qwen2.5-0.5b",
            Self::Tiny => "tiny",
        }
    }
}

/// What the engine is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub requests: usize,
    pub prompt_tokens: usize,
    /// Of them, those that all requests have in common.
    pub shared_tokens: usize,
    pub output_tokens: usize,
    /// Answers obey a JSON Schema, and end when it is fulfilled.
    pub schema: bool,
    /// Adapters of rank 16 on all linear layers; requests take turns.
    pub adapters: usize,
}

impl Load {
    /// `None`: a workload for a server.
    pub fn of(workload: Workload) -> Option<Self> {
        let of = |requests, prompt_tokens, shared_tokens, output_tokens| Self {
            requests,
            prompt_tokens,
            shared_tokens,
            output_tokens,
            schema: false,
            adapters: 0,
        };
        Some(match workload {
            Workload::W1 => of(1024, 512, 384, 128),
            Workload::W2 => of(256, 2048, 384, 128),
            Workload::W3 => of(256, 64, 0, 512),
            Workload::W4 => of(1, 512, 0, 128),
            Workload::W5 => Self { schema: true, ..of(1024, 512, 384, 160) },
            Workload::W6 => Self { adapters: 3, ..of(1024, 512, 384, 128) },
            _ => return None,
        })
    }
}
