//! `config.json` of a Hugging Face checkpoint.

use std::path::Path;

use serde_json::Value;

use super::{Arch, ModelConfig, Own, RopeScaling, scale};
use crate::nn::Error;

/// Reads a config; `generation` is `generation_config.json`, which may name more end tokens.
pub fn config(file: &Path, json: &Value, generation: Option<&Value>) -> Result<ModelConfig, Error> {
    let unsupported = |what: String| Error::unsupported(file, what);
    let model_type = json.get("model_type").and_then(Value::as_str).unwrap_or("none");
    let arch =
        Arch::from_name(model_type).ok_or_else(|| unsupported(format!("model_type {model_type:?}")))?;
    let family = arch.family();
    // a checkpoint that also sees pictures has its decoder's numbers one level down
    let text = json.get("text_config").unwrap_or(json);
    let get = |key: &str| text.get(key).filter(|v| !v.is_null());
    let default = |key: &str| family.defaults.iter().find(|(name, _)| *name == key).map(|(_, n)| *n);
    let optional = |key: &str| get(key).and_then(Value::as_u64).map(|n| n as usize).or_else(|| default(key));
    let need = |key: &str| optional(key).ok_or_else(|| Error::corrupt(file, format!("no number {key}")));
    check_options(arch, text).map_err(unsupported)?;

    let n_heads = need("num_attention_heads")?;
    let hidden = need("hidden_size")?;
    let n_layers = need("num_hidden_layers")?;
    let head_dim = optional("head_dim").unwrap_or(hidden / n_heads.max(1));
    // transformers 5 nests the rope's options, 4 had them flat
    let rope = get("rope_parameters").or_else(|| get("rope_scaling"));
    let rope = rope.map(|r| r.get("full_attention").unwrap_or(r));
    let theta = rope.and_then(|r| r.get("rope_theta")).or_else(|| get("rope_theta"));
    let mut eos = tokens(json.get("eos_token_id").or_else(|| get("eos_token_id")));
    eos.extend(tokens(generation.and_then(|g| g.get("eos_token_id"))));
    eos.sort_unstable();
    eos.dedup();
    let own = (family.from_hf)(text, n_layers).map_err(unsupported)?;
    let config = ModelConfig {
        arch,
        n_layers,
        hidden,
        ffn: need("intermediate_size")?,
        n_heads,
        n_kv_heads: optional("num_key_value_heads").unwrap_or(n_heads),
        head_dim,
        vocab: need("vocab_size")?,
        rope_theta: theta.and_then(Value::as_f64).unwrap_or(family.rope_theta),
        rope_scaling: match rope {
            Some(rope) => scaling(file, rope)?,
            None => RopeScaling::None,
        },
        rms_eps: get("rms_norm_eps").and_then(Value::as_f64).unwrap_or(1e-6),
        tied: get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(family.tied),
        activation: family.activation,
        qkv_bias: family.qkv_bias,
        qk_norm: family.qk_norm,
        post_norms: family.post_norms,
        embedding_scale: 1.0,
        attention_scale: scale(own.attention_scale, head_dim),
        window: own.window,
        max_positions: optional("max_position_embeddings").unwrap_or(2048),
        eos,
        bos: tokens(json.get("bos_token_id").or_else(|| get("bos_token_id"))).first().copied(),
    };
    config.check().map_err(unsupported)?;
    Ok(config)
}

/// Options of `config.json` that no family computes, by name.
fn check_options(arch: Arch, json: &Value) -> Result<(), String> {
    let get = |key: &str| json.get(key).filter(|v| !v.is_null());
    let act = get("hidden_activation").or_else(|| get("hidden_act")).and_then(Value::as_str);
    if let Some(act) = act
        && !arch.family().activation.names().contains(&act)
    {
        return Err(format!("hidden_act {act:?}"));
    }
    for key in ["use_sliding_window", "mlp_bias", "attention_bias"] {
        // Qwen2 says so and means the biases that it always has
        let meant = key == "attention_bias" && arch.family().qkv_bias;
        if !meant && get(key).and_then(Value::as_bool) == Some(true) {
            return Err(format!("{key} = true"));
        }
    }
    match get("quantization_config") {
        Some(_) => Err("quantization_config (a GPTQ, AWQ or similar checkpoint)".into()),
        None => Ok(()),
    }
}

/// The reader of families without options of their own; windows would go unseen.
pub(super) fn plain(json: &Value, _n_layers: usize) -> Result<Own, String> {
    let mut types = json.get("layer_types").and_then(Value::as_array).into_iter().flatten();
    match types.find(|kind| kind.as_str() != Some("full_attention")) {
        Some(kind) => Err(format!("layer type {kind}")),
        None => Ok(Own::default()),
    }
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
