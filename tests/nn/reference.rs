//! Our forward passes against candle-transformers' on random checkpoints of odd shapes.
//!
//! The other implementation has its own names, rope, attention, cache and order of summation; the files
//! are all that both share.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{gemma3, llama, qwen2, qwen3};
use serde_json::{Value, json};

use super::harness::{Sequence, difference, load, step};
use super::random::{Random, write};

/// Largest difference between two logits over the largest logit: f32 in other orders of summation, through
/// up to three layers. The largest seen is 3.1e-6.
const TOLERANCE: f32 = 2e-5;
const SEEDS: u64 = 3;

/// Logits of the last of some tokens, which follow those of the calls before.
type Reference = Box<dyn FnMut(&[u32], usize) -> Vec<f32>>;

fn reference(dir: &Path, config: &Value) -> Reference {
    let tensors = candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu).unwrap();
    let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let input = |tokens: &[u32]| Tensor::new(tokens, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let values = |logits: Tensor| logits.flatten_all().unwrap().to_vec1().unwrap();
    match config["model_type"].as_str().unwrap() {
        "llama" => {
            let config: llama::LlamaConfig = serde_json::from_value(config.clone()).unwrap();
            let config = config.into_config(false);
            let mut cache = llama::Cache::new(true, DType::F32, &config, &Device::Cpu).unwrap();
            let model = llama::Llama::load(weights, &config).unwrap();
            Box::new(move |tokens, past| values(model.forward(&input(tokens), past, &mut cache).unwrap()))
        }
        "qwen2" => {
            let config: qwen2::Config = serde_json::from_value(config.clone()).unwrap();
            let mut model = qwen2::ModelForCausalLM::new(&config, weights).unwrap();
            Box::new(move |tokens, past| values(model.forward(&input(tokens), past).unwrap()))
        }
        "qwen3" => {
            let config: qwen3::Config = serde_json::from_value(config.clone()).unwrap();
            let mut model = qwen3::ModelForCausalLM::new(&config, weights).unwrap();
            Box::new(move |tokens, past| values(model.forward(&input(tokens), past).unwrap()))
        }
        "gemma3_text" => {
            let mut config: gemma3::Config = serde_json::from_value(config.clone()).unwrap();
            // candle's window counts the positions before a row's own
            config.sliding_window -= 1;
            let mut model = gemma3::Model::new(false, &config, weights).unwrap();
            Box::new(move |tokens, past| values(model.forward(&input(tokens), past).unwrap()))
        }
        other => panic!("no reference for {other}"),
    }
}

/// A prompt in one step, then tokens one by one, then a few at once.
fn check(config: &Value) {
    check_steps(config, &[19, 1, 1, 1, 6, 1, 1]);
}

fn check_steps(config: &Value, steps: &[usize]) {
    for seed in 1..=SEEDS {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), config, seed);
        let mut model = load(dir.path());
        let mut reference = reference(dir.path(), config);
        let mut random = Random(1000 + seed);
        let mut sequence = Sequence::new(seed as u32, None);
        for &n in steps {
            let tokens = random.tokens(n, model.config().vocab);
            let want = reference(&tokens, sequence.past);
            let past = sequence.past;
            let got = step(&mut model, &mut [(&mut sequence, &tokens)]).remove(0);
            let largest = want.iter().fold(0f32, |m, x| m.max(x.abs()));
            let off = difference(&got, &want) / largest;
            assert!(largest > 0.5, "the logits say something");
            assert!(off < TOLERANCE, "{config} seed {seed}, {n} tokens after {past}: off by {off}");
        }
    }
}

/// What all families share.
fn config(model_type: &str, own: Value) -> Value {
    let mut config = json!({
        "model_type": model_type, "hidden_act": "silu", "max_position_embeddings": 256,
        "bos_token_id": 1, "eos_token_id": 2, "attention_bias": false,
        "use_sliding_window": false, "sliding_window": 4096, "max_window_layers": 28,
    });
    for (key, value) in own.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

#[test]
fn llama_agrees_with_candle() {
    check(&config(
        "llama",
        json!({
            "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 3,
            "num_key_value_heads": 1, "vocab_size": 97, "tie_word_embeddings": false,
            "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
        }),
    ));
    // head of 80, as many KV heads as heads
    check(&config(
        "llama",
        json!({
            "hidden_size": 160, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 2, "vocab_size": 33, "tie_word_embeddings": true,
            "rope_theta": 500000.0, "rms_norm_eps": 1e-6,
        }),
    ));
}

#[test]
fn llama_with_stretched_frequencies_agrees_with_candle() {
    check(&config(
        "llama",
        json!({
            "hidden_size": 96, "intermediate_size": 208, "num_hidden_layers": 2, "num_attention_heads": 3,
            "num_key_value_heads": 3, "vocab_size": 131, "tie_word_embeddings": true,
            "rope_theta": 100.0, "rms_norm_eps": 1e-5,
            "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
        }),
    ));
}

#[test]
fn qwen2_agrees_with_candle() {
    check(&config(
        "qwen2",
        json!({
            "hidden_size": 112, "intermediate_size": 176, "num_hidden_layers": 2, "num_attention_heads": 7,
            "num_key_value_heads": 1, "vocab_size": 101, "tie_word_embeddings": false,
            "rope_theta": 1000000.0, "rms_norm_eps": 1e-6,
        }),
    ));
    check(&config(
        "qwen2",
        json!({
            "hidden_size": 64, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
            "num_key_value_heads": 1, "vocab_size": 49, "tie_word_embeddings": true,
            "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
        }),
    ));
}

/// Heads that are wider, and narrower, than hidden size over heads.
#[test]
fn qwen3_agrees_with_candle() {
    for (heads, head_dim, tied) in [(4, 48, false), (2, 16, true)] {
        check(&config(
            "qwen3",
            json!({
                "hidden_size": 80, "intermediate_size": 144, "num_hidden_layers": 3,
                "num_attention_heads": heads, "num_key_value_heads": 2, "head_dim": head_dim,
                "vocab_size": 77, "tie_word_embeddings": tied, "rope_theta": 1000000.0, "rms_norm_eps": 1e-6,
            }),
        ));
    }
}

/// Windows: what candle computes of a whole prompt is right, what it computes after one is not (its cache
/// keeps too little, and a second prompt sees none of the first), so prompts beyond the window come alone.
#[test]
fn gemma3_agrees_with_candle() {
    for (window, steps) in [(9, &[26][..]), (5, &[41]), (200, &[19, 1, 1, 1, 6, 1, 1])] {
        check_steps(
            &config(
                "gemma3_text",
                json!({
                    "hidden_size": 80, "intermediate_size": 112, "num_hidden_layers": 4,
                    "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 48, "vocab_size": 83,
                    "rope_theta": 1000000.0, "rope_local_base_freq": 100.0, "rms_norm_eps": 1e-6,
                    "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 48,
                    "sliding_window": window, "sliding_window_pattern": 3,
                }),
            ),
            steps,
        );
    }
}
