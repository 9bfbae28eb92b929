//! The metadata of a GGUF file.

use std::path::Path;

use candle_core::quantized::gguf_file::{Content, Value};

use super::{Arch, ModelConfig, RopeScaling, scale};
use crate::nn::Error;

/// Reads the metadata; `rope_divisors` is the tensor that converters write for Llama 3.1's stretched frequencies.
pub fn config(file: &Path, content: &Content, rope_divisors: Option<Vec<f32>>) -> Result<ModelConfig, Error> {
    let get = |key: &str| content.metadata.get(key);
    let unsupported = |what: String| Error::unsupported(file, what);
    let name = match get("general.architecture") {
        Some(Value::String(name)) => name.as_str(),
        _ => return Err(Error::corrupt(file, "no general.architecture")),
    };
    let arch = Arch::from_name(name).ok_or_else(|| unsupported(format!("architecture {name:?}")))?;
    if let Some(parts) = get("split.count").and_then(|v| v.to_u64().ok()).filter(|parts| *parts > 1) {
        return Err(unsupported(format!("one of {parts} parts of a split file (join them first)")));
    }
    let own = |key: &str| get(&format!("{name}.{key}"));
    let optional = |key: &str| own(key).and_then(|v| v.to_u64().ok()).map(|n| n as usize);
    let need =
        |key: &str| optional(key).ok_or_else(|| Error::corrupt(file, format!("no number {name}.{key}")));
    let float = |key: &str| own(key).and_then(|v| v.to_f32().map(f64::from).or_else(|_| v.to_f64()).ok());
    let family = arch.family();
    let n_layers = need("block_count")?;
    let n_heads = need("attention.head_count")?;
    let hidden = need("embedding_length")?;
    let head_dim = optional("attention.key_length").unwrap_or(hidden / n_heads.max(1));
    if optional("rope.dimension_count").is_some_and(|rotated| rotated != head_dim) {
        return Err(unsupported("a rope over a part of each head".into()));
    }
    if optional("attention.value_length").is_some_and(|length| length != head_dim) {
        return Err(unsupported("values of another size than keys".into()));
    }
    if optional("expert_count").is_some_and(|n| n > 0) {
        return Err(unsupported("a mixture of experts".into()));
    }
    let vocab =
        content
            .tensor_infos
            .get("token_embd.weight")
            .and_then(|t| t.shape.dims().first().copied())
            .ok_or_else(|| Error::TensorMissing { file: file.into(), tensor: "token_embd.weight".into() })?;
    let rope_scaling = match own("rope.scaling.type") {
        None => RopeScaling::None,
        Some(Value::String(kind)) if kind == "none" => RopeScaling::None,
        Some(Value::String(kind)) if kind == "linear" => {
            RopeScaling::Linear { factor: float("rope.scaling.factor").unwrap_or(1.0) }
        }
        Some(other) => return Err(unsupported(format!("rope scaling {other:?}"))),
    };
    let rope_scaling = match (rope_divisors, rope_scaling) {
        (Some(by), RopeScaling::None) => RopeScaling::Divided { by },
        (Some(_), other) => return Err(unsupported(format!("rope divisors with rope scaling {other:?}"))),
        (None, scaling) => scaling,
    };
    let token = |key: &str| {
        get(&format!("tokenizer.ggml.{key}"))
            .and_then(|v| v.to_u64().ok())
            .and_then(|n| u32::try_from(n).ok())
    };
    let mut eos: Vec<u32> = ["eos_token_id", "eot_token_id"].into_iter().filter_map(token).collect();
    eos.sort_unstable();
    eos.dedup();
    let own_of_family = (family.from_gguf)(&|key| own(key).cloned(), n_layers).map_err(unsupported)?;
    let config = ModelConfig {
        arch,
        n_layers,
        hidden,
        ffn: need("feed_forward_length")?,
        n_heads,
        n_kv_heads: optional("attention.head_count_kv").unwrap_or(n_heads),
        head_dim,
        vocab,
        rope_theta: float("rope.freq_base").unwrap_or(family.rope_theta),
        rope_scaling,
        rms_eps: float("attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
        tied: !content.tensor_infos.contains_key("output.weight"),
        activation: family.activation,
        qkv_bias: family.qkv_bias,
        qk_norm: family.qk_norm,
        post_norms: family.post_norms,
        embedding_scale: 1.0,
        attention_scale: scale(own_of_family.attention_scale, head_dim),
        window: own_of_family.window,
        max_positions: need("context_length")?,
        eos,
        bos: token("bos_token_id"),
    };
    config.check().map_err(unsupported)?;
    Ok(config)
}
