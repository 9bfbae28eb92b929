//! Gemma 3: norms on both sides of attention and feed-forward, layers that see a window only and turn
//! faster, tanh-approximated GELU, scaled embeddings.
//!
//! Source: `modeling_gemma3.py` of transformers; for GGUF, llama.cpp's `gemma3.cpp`. Of a checkpoint that also
//! sees pictures, the text part is read.

use candle_core::quantized::gguf_file::Value as GgufValue;
use serde_json::Value;

use super::{Activation, Family, Own, Window};

/// Every sixth layer sees everything, where a file does not say otherwise.
const PATTERN: usize = 6;
/// Rope base of the layers with a window, where a file does not name one.
const LOCAL_THETA: f64 = 10_000.0;

pub const FAMILY: Family = Family {
    names: &["gemma3", "gemma3_text"],
    activation: Activation::GeluTanh,
    qk_norm: true,
    post_norms: true,
    norms_less_one: true,
    scaled_embedding: true,
    rope_theta: 1_000_000.0,
    tied: true,
    // configs of pictures-and-text checkpoints leave out what has transformers' default
    defaults: &[
        ("num_attention_heads", 8),
        ("num_key_value_heads", 4),
        ("head_dim", 256),
        ("vocab_size", 262_208),
        ("max_position_embeddings", 131_072),
    ],
    from_hf,
    from_gguf,
    ..Family::PLAIN
};

/// Window layers up to each full one.
fn every(pattern: usize, n_layers: usize) -> Vec<bool> {
    (1..=n_layers).map(|i| pattern == 0 || !i.is_multiple_of(pattern)).collect()
}

fn from_hf(json: &Value, n_layers: usize) -> Result<Own, String> {
    let get = |key: &str| json.get(key).filter(|v| !v.is_null());
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if get(key).is_some() {
            return Err(key.into());
        }
    }
    if get("use_bidirectional_attention").and_then(Value::as_bool) == Some(true) {
        return Err("use_bidirectional_attention = true".into());
    }
    let number = |key: &str| get(key).and_then(Value::as_u64).map(|n| n as usize);
    let local = match get("layer_types").and_then(Value::as_array) {
        Some(types) => types.iter().map(layer_type).collect::<Result<Vec<bool>, String>>()?,
        None => {
            let pattern = number("sliding_window_pattern").or_else(|| number("_sliding_window_pattern"));
            every(pattern.unwrap_or(PATTERN), n_layers)
        }
    };
    if local.len() != n_layers {
        return Err(format!("layer_types of {} for {n_layers} layers", local.len()));
    }
    // transformers 5 has options for each type of layer, 4 had a key of its own for the second base
    let rope = get("rope_parameters").and_then(|r| r.get("sliding_attention"));
    let kind = rope.and_then(|r| r.get("rope_type")).and_then(Value::as_str);
    if kind.is_some_and(|kind| kind != "default") {
        return Err(format!("rope_type {kind:?} of window layers"));
    }
    let theta = rope.and_then(|r| r.get("rope_theta")).or_else(|| get("rope_local_base_freq"));
    let scalar = get("query_pre_attn_scalar").and_then(Value::as_f64).unwrap_or(256.0);
    Ok(Own {
        attention_scale: Some(scalar.powf(-0.5)),
        window: Some(Window {
            tokens: number("sliding_window").unwrap_or(4096),
            theta: theta.and_then(Value::as_f64).unwrap_or(LOCAL_THETA),
            local,
        }),
    })
}

fn layer_type(value: &Value) -> Result<bool, String> {
    match value.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => Err(format!("layer type {value}")),
    }
}

fn from_gguf(get: &dyn Fn(&str) -> Option<GgufValue>, n_layers: usize) -> Result<Own, String> {
    let float = |key: &str| get(key).and_then(|v| v.to_f32().ok()).map(f64::from).filter(|x| *x > 0.0);
    if float("final_logit_softcapping").is_some() {
        return Err("final_logit_softcapping".into());
    }
    let integer = |key: &str| get(key).and_then(|v| v.to_u64().ok()).map(|n| n as usize);
    let window = integer("attention.sliding_window").filter(|tokens| *tokens > 0);
    let local = match get("attention.sliding_window_pattern") {
        Some(GgufValue::Array(layers)) => layers.iter().filter_map(|v| v.to_bool().ok()).collect(),
        Some(pattern) => every(pattern.to_u64().map_err(|e| e.to_string())? as usize, n_layers),
        None => every(PATTERN, n_layers),
    };
    if local.len() != n_layers {
        return Err(format!("a sliding_window_pattern of {} for {n_layers} layers", local.len()));
    }
    // the file has no key for it: the largest model alone scales by hidden size over heads (168 for 256)
    let largest = n_layers == 62;
    let ratio = || Some(integer("embedding_length")? as f64 / integer("attention.head_count")? as f64);
    Ok(Own {
        attention_scale: if largest { ratio().map(|scalar| scalar.powf(-0.5)) } else { None },
        window: window.map(|tokens| Window {
            tokens,
            theta: float("rope.freq_base_swa").unwrap_or(LOCAL_THETA),
            local,
        }),
    })
}
