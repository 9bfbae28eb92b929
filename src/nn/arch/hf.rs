//! `config.json` of a Hugging Face checkpoint.

use std::path::Path;

use serde_json::Value;

use super::{Arch, ModelConfig, RopeScaling};
use crate::nn::Error;

/// Reads a config; `generation` is `generation_config.json`, which may name more end tokens.
pub fn config(file: &Path, json: &Value, generation: Option<&Value>) -> Result<ModelConfig, Error> {
    let get = |key: &str| json.get(key).filter(|v| !v.is_null());
    let optional = |key: &str| get(key).and_then(Value::as_u64).map(|n| n as usize);
    let need = |key: &str| optional(key).ok_or_else(|| Error::corrupt(file, format!("no number {key}")));
    let flag = |key: &str| get(key).and_then(Value::as_bool).unwrap_or(false);
    let unsupported = |what: String| Error::unsupported(file, what);

    let model_type = get("model_type").and_then(Value::as_str).unwrap_or("none");
    let arch =
        Arch::from_name(model_type).ok_or_else(|| unsupported(format!("model_type {model_type:?}")))?;
    if let Some(act) = get("hidden_act").and_then(Value::as_str)
        && act != "silu"
    {
        return Err(unsupported(format!("hidden_act {act:?}")));
    }
    for key in ["use_sliding_window", "mlp_bias"] {
        if flag(key) {
            return Err(unsupported(format!("{key} = true")));
        }
    }
    if arch != Arch::Qwen2 && flag("attention_bias") {
        return Err(unsupported("attention_bias = true".into()));
    }
    if get("quantization_config").is_some() {
        return Err(unsupported("quantization_config (a GPTQ, AWQ or similar checkpoint)".into()));
    }
    let n_heads = need("num_attention_heads")?;
    let hidden = need("hidden_size")?;
    // transformers 5 nests the rope's options, 4 had them flat
    let rope = get("rope_parameters").or_else(|| get("rope_scaling"));
    let theta = rope.and_then(|r| r.get("rope_theta")).or_else(|| get("rope_theta"));
    let mut eos = tokens(get("eos_token_id"));
    eos.extend(tokens(generation.and_then(|g| g.get("eos_token_id"))));
    eos.sort_unstable();
    eos.dedup();
    let config = ModelConfig {
        arch,
        n_layers: need("num_hidden_layers")?,
        hidden,
        ffn: need("intermediate_size")?,
        n_heads,
        n_kv_heads: optional("num_key_value_heads").unwrap_or(n_heads),
        head_dim: optional("head_dim").unwrap_or(hidden / n_heads.max(1)),
        vocab: need("vocab_size")?,
        rope_theta: theta.and_then(Value::as_f64).unwrap_or(10_000.0),
        rope_scaling: match rope {
            Some(rope) => scaling(file, rope)?,
            None => RopeScaling::None,
        },
        rms_eps: get("rms_norm_eps").and_then(Value::as_f64).unwrap_or(1e-6),
        tied: flag("tie_word_embeddings"),
        qkv_bias: arch == Arch::Qwen2,
        qk_norm: arch == Arch::Qwen3,
        max_positions: optional("max_position_embeddings").unwrap_or(2048),
        eos,
        bos: tokens(get("bos_token_id")).first().copied(),
    };
    config.check().map_err(unsupported)?;
    Ok(config)
}

/// A token id or a list of them.
fn tokens(value: Option<&Value>) -> Vec<u32> {
    let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn scaling(file: &Path, rope: &Value) -> Result<RopeScaling, Error> {
    let kind = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str);
    let number = |key: &str| {
        rope.get(key)
            .and_then(Value::as_f64)
            .filter(|x| *x > 0.0)
            .ok_or_else(|| Error::corrupt(file, format!("no positive number {key} in the rope's options")))
    };
    match kind {
        None | Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: number("factor")? }),
        Some("llama3") => Ok(RopeScaling::Llama3 {
            factor: number("factor")?,
            low: number("low_freq_factor")?,
            high: number("high_freq_factor")?,
            original: number("original_max_position_embeddings")?,
        }),
        Some(other) => Err(Error::unsupported(file, format!("rope_type {other:?}"))),
    }
}
