//! Tensor names and shapes of a decoder.

use super::ModelConfig;

/// Where a name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    HuggingFace,
    Gguf,
}

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Embedding,
    FinalNorm,
    Head,
    AttentionNorm,
    PostAttentionNorm,
    FfnNorm,
    PostFfnNorm,
    QNorm,
    KNorm,
    Weight(Module),
    Bias(Module),
}

/// The linear layers of a block; the targets of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

impl Module {
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// Last part of its Hugging Face name; what adapters call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The part of a block it lies in, in Hugging Face names.
    pub fn parent(self) -> &'static str {
        match self {
            Self::Q | Self::K | Self::V | Self::O => "self_attn",
            _ => "mlp",
        }
    }

    fn gguf(self) -> &'static str {
        match self {
            Self::Q => "attn_q",
            Self::K => "attn_k",
            Self::V => "attn_v",
            Self::O => "attn_output",
            Self::Gate => "ffn_gate",
            Self::Up => "ffn_up",
            Self::Down => "ffn_down",
        }
    }

    /// Outputs and inputs: the shape of its weight.
    pub fn shape(self, config: &ModelConfig) -> [usize; 2] {
        match self {
            Self::Q => [config.q_dim(), config.hidden],
            Self::K | Self::V => [config.kv_dim(), config.hidden],
            Self::O => [config.hidden, config.q_dim()],
            Self::Gate | Self::Up => [config.ffn, config.hidden],
            Self::Down => [config.hidden, config.ffn],
        }
    }
}

/// The names in one checkpoint's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    pub scheme: Scheme,
    post_norms: bool,
}

impl Names {
    pub fn new(scheme: Scheme, config: &ModelConfig) -> Self {
        Self { scheme, post_norms: config.post_norms }
    }

    /// `layer` is ignored for tensors outside the blocks.
    pub fn of(self, role: Role, layer: usize) -> String {
        match self.scheme {
            Scheme::HuggingFace => self.hugging_face(role, layer),
            Scheme::Gguf => gguf(role, layer),
        }
    }

    fn hugging_face(self, role: Role, layer: usize) -> String {
        let block = format!("model.layers.{layer}");
        match role {
            Role::Embedding => "model.embed_tokens.weight".into(),
            Role::FinalNorm => "model.norm.weight".into(),
            Role::Head => "lm_head.weight".into(),
            Role::AttentionNorm => format!("{block}.input_layernorm.weight"),
            // without norms behind it, the norm before the feed-forward is the one after attention
            Role::FfnNorm if self.post_norms => format!("{block}.pre_feedforward_layernorm.weight"),
            Role::FfnNorm | Role::PostAttentionNorm => format!("{block}.post_attention_layernorm.weight"),
            Role::PostFfnNorm => format!("{block}.post_feedforward_layernorm.weight"),
            Role::QNorm => format!("{block}.self_attn.q_norm.weight"),
            Role::KNorm => format!("{block}.self_attn.k_norm.weight"),
            Role::Weight(m) => format!("{block}.{}.{}.weight", m.parent(), m.as_str()),
            Role::Bias(m) => format!("{block}.{}.{}.bias", m.parent(), m.as_str()),
        }
    }
}

fn gguf(role: Role, layer: usize) -> String {
    match role {
        Role::Embedding => "token_embd.weight".into(),
        Role::FinalNorm => "output_norm.weight".into(),
        Role::Head => "output.weight".into(),
        Role::AttentionNorm => format!("blk.{layer}.attn_norm.weight"),
        Role::PostAttentionNorm => format!("blk.{layer}.post_attention_norm.weight"),
        Role::FfnNorm => format!("blk.{layer}.ffn_norm.weight"),
        Role::PostFfnNorm => format!("blk.{layer}.post_ffw_norm.weight"),
        Role::QNorm => format!("blk.{layer}.attn_q_norm.weight"),
        Role::KNorm => format!("blk.{layer}.attn_k_norm.weight"),
        Role::Weight(m) => format!("blk.{layer}.{}.weight", m.gguf()),
        Role::Bias(m) => format!("blk.{layer}.{}.bias", m.gguf()),
    }
}

/// The name that a decoder alone would give a tensor of a checkpoint that also sees pictures: `model.…` for
/// `language_model.model.…` (transformers 4) and `model.language_model.…` (5).
pub fn text_part(name: &str) -> String {
    name.replacen("language_model.", "", 1)
}

/// Every tensor that a decoder of this shape reads: role, layer, shape.
pub fn expected(config: &ModelConfig) -> Vec<(Role, usize, Vec<usize>)> {
    let mut all = vec![
        (Role::Embedding, 0, vec![config.vocab, config.hidden]),
        (Role::FinalNorm, 0, vec![config.hidden]),
    ];
    if !config.tied {
        all.push((Role::Head, 0, vec![config.vocab, config.hidden]));
    }
    for layer in 0..config.n_layers {
        all.push((Role::AttentionNorm, layer, vec![config.hidden]));
        all.push((Role::FfnNorm, layer, vec![config.hidden]));
        if config.post_norms {
            all.push((Role::PostAttentionNorm, layer, vec![config.hidden]));
            all.push((Role::PostFfnNorm, layer, vec![config.hidden]));
        }
        if config.qk_norm {
            all.push((Role::QNorm, layer, vec![config.head_dim]));
            all.push((Role::KNorm, layer, vec![config.head_dim]));
        }
        for module in Module::ALL {
            let shape = module.shape(config);
            all.push((Role::Weight(module), layer, shape.to_vec()));
            if config.qkv_bias && matches!(module, Module::Q | Module::K | Module::V) {
                all.push((Role::Bias(module), layer, vec![shape[0]]));
            }
        }
    }
    all
}
