//! Files: GGUF against safetensors of the same weights, and everything that can be wrong with one.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use serde_json::json;

use adit::nn::Error;
use adit::nn::arch::names::{self, Names, Scheme};
use adit::nn::arch::{ModelConfig, RopeScaling, hf};
use adit::nn::model::{LoadOptions, Model};
use adit::nn::weights::adapter::Adapter;
use adit::nn::weights::checkpoint::Checkpoint;

use super::harness::{ARCHS, add, difference, fixture, load, prompt};
use super::random;

/// Largest relative error that rounding activations to 8 bits may cause in the fixtures' two layers.
const ROUNDING: f32 = 0.05;
const PROMPT: [u32; 9] = [7, 250, 13, 99, 180, 31, 5, 300, 64];

/// Interleaves the halves of each head, as llama.cpp's converter does for arch `llama`.
fn interleave(weight: &Tensor, heads: usize) -> Tensor {
    let (n, k) = weight.dims2().unwrap();
    weight
        .reshape((heads, 2, n / heads / 2, k))
        .unwrap()
        .transpose(1, 2)
        .unwrap()
        .contiguous()
        .unwrap()
        .reshape((n, k))
        .unwrap()
}

/// Writes a checkpoint as GGUF: matrices as `dtype`, or rounded to it and then stored as `stored`.
fn write_gguf(base: &Path, dtype: GgmlDType, stored: GgmlDType, path: &Path) {
    let checkpoint = Checkpoint::open(base).unwrap();
    let config = checkpoint.config();
    let arch = config.arch.as_str();
    let tensors: HashMap<String, Tensor> =
        candle_core::safetensors::load(base.join("model.safetensors"), &Device::Cpu).unwrap();
    let (from, to) = (Names::new(Scheme::HuggingFace, config), Names::new(Scheme::Gguf, config));
    let mut quantised = Vec::new();
    for (role, layer, shape) in names::expected(config) {
        let tensor = &tensors[&from.of(role, layer)];
        let name = to.of(role, layer);
        let tensor = match name.rsplit_once('.').unwrap().0.rsplit('.').next().unwrap() {
            "attn_q" if arch == "llama" => interleave(tensor, config.n_heads),
            "attn_k" if arch == "llama" => interleave(tensor, config.n_kv_heads),
            // as llama.cpp's converter does
            norm if arch == "gemma3" && norm.ends_with("norm") => (tensor + 1.0).unwrap(),
            _ => tensor.clone(),
        };
        let matrix = shape.len() == 2;
        let (dtype, stored) = if matrix { (dtype, stored) } else { (GgmlDType::F32, GgmlDType::F32) };
        let mut rounded = QTensor::quantize(&tensor, dtype).unwrap();
        if stored != dtype {
            let values = rounded.dequantize(&Device::Cpu).unwrap();
            rounded = QTensor::quantize(&values, stored).unwrap();
        }
        quantised.push((name, rounded));
    }
    if let RopeScaling::Llama3 { .. } = config.rope_scaling {
        let plain = ModelConfig { rope_scaling: RopeScaling::None, ..config.clone() };
        let pairs = plain.inverse_frequencies().into_iter().zip(config.inverse_frequencies());
        let divisors: Vec<f32> = pairs.map(|(plain, stretched)| (plain / stretched) as f32).collect();
        assert!(divisors.first() == Some(&1.0) && divisors.last() > Some(&1.5), "{divisors:?}");
        let divisors = Tensor::new(divisors, &Device::Cpu).unwrap();
        quantised.push(("rope_freqs.weight".into(), QTensor::quantize(&divisors, GgmlDType::F32).unwrap()));
    }
    let metadata = metadata(config);
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<(&str, &QTensor)> = quantised.iter().map(|(n, t)| (n.as_str(), t)).collect();
    gguf_file::write(&mut fs::File::create(path).unwrap(), &metadata, &tensors).unwrap();
}

/// The keys that llama.cpp's converter writes.
fn metadata(config: &ModelConfig) -> Vec<(String, Value)> {
    let number = |n: usize| Value::U32(n as u32);
    let mut own = vec![
        ("block_count", number(config.n_layers)),
        ("embedding_length", number(config.hidden)),
        ("feed_forward_length", number(config.ffn)),
        ("attention.head_count", number(config.n_heads)),
        ("attention.head_count_kv", number(config.n_kv_heads)),
        ("attention.layer_norm_rms_epsilon", Value::F32(config.rms_eps as f32)),
        ("rope.freq_base", Value::F32(config.rope_theta as f32)),
        ("context_length", number(config.max_positions)),
    ];
    if config.head_dim * config.n_heads != config.hidden {
        own.push(("attention.key_length", number(config.head_dim)));
        own.push(("attention.value_length", number(config.head_dim)));
    }
    if let Some(window) = &config.window {
        own.push(("attention.sliding_window", number(window.tokens)));
        let local = window.local.iter().map(|local| Value::Bool(*local)).collect();
        own.push(("attention.sliding_window_pattern", Value::Array(local)));
    }
    let arch = config.arch.as_str();
    let mut all: Vec<_> = own.into_iter().map(|(key, value)| (format!("{arch}.{key}"), value)).collect();
    all.push(("general.architecture".into(), Value::String(arch.into())));
    all.push(("tokenizer.ggml.eos_token_id".into(), number(2)));
    all
}

fn load_gguf(base: &Path, dtype: GgmlDType, stored: GgmlDType) -> Model {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.gguf");
    write_gguf(base, dtype, stored, &file);
    let model = load(&file);
    assert_eq!(model.config().eos, [2]);
    model
}

/// Root mean square of the difference over that of the reference.
fn check_agree(want: &[f32], got: &[f32], tolerance: f32, what: &str) {
    let square = |v: &mut dyn Iterator<Item = f32>| v.map(|x| x * x).sum::<f32>();
    let off = square(&mut want.iter().zip(got).map(|(a, b)| a - b)) / square(&mut want.iter().copied());
    let off = off.sqrt();
    println!("{what}: {off}");
    assert!(off < tolerance, "{what}: off by {off}");
}

/// Base and adapter of a fixture, in two forms.
fn check_both(arch: &str, reference: &mut Model, model: &mut Model, tolerance: f32, what: &str) {
    for kind in [None, Some("concept")] {
        let slots = kind.map(|k| (add(reference, arch, k), add(model, arch, k)));
        let want = prompt(reference, &PROMPT, slots.map(|s| s.0));
        let got = prompt(model, &PROMPT, slots.map(|s| s.1));
        check_agree(&want, &got, tolerance, &format!("{arch} {what}, adapter {kind:?}"));
    }
}

#[test]
fn gguf_and_safetensors_of_the_same_weights_agree() {
    use GgmlDType::{BF16, F16, F32};
    for arch in ARCHS {
        let dir = fixture(arch).join("base");
        check_both(arch, &mut load(&dir), &mut load_gguf(&dir, F32, F32), 1e-6, "F32");
        // the same rounded weights, once as f32: what is kept in 16 bits is exact
        for dtype in [F16, BF16] {
            let mut rounded = load_gguf(&dir, dtype, F32);
            check_both(arch, &mut rounded, &mut load_gguf(&dir, dtype, dtype), 1e-6, "16 bits");
        }
    }
}

/// Llama 3.1's frequencies: options in `config.json`, a tensor of divisors in GGUF.
#[test]
fn stretched_frequencies_survive_the_way_through_gguf() {
    let base = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 320, "rope_theta": 100.0,
        "max_position_embeddings": 128, "tie_word_embeddings": true,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    });
    random::write(base.path(), &config, 4);
    let want = prompt(&mut load(base.path()), &PROMPT, None);
    let got = prompt(&mut load_gguf(base.path(), GgmlDType::F32, GgmlDType::F32), &PROMPT, None);
    check_agree(&want, &got, 1e-6, "stretched");
    let mut plain = config.clone();
    plain["rope_scaling"] = serde_json::Value::Null;
    fs::write(base.path().join("config.json"), plain.to_string()).unwrap();
    assert!(difference(&want, &prompt(&mut load(base.path()), &PROMPT, None)) > 0.01, "it matters");
}

/// Only the rounding of the rows to 8 bits is left, and a random model of 64 columns amplifies it.
#[test]
fn integer_blocks_agree_with_their_weights_as_floats() {
    use GgmlDType::{F32, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
    for arch in ARCHS {
        let dir = fixture(arch).join("base");
        for dtype in [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0] {
            let mut floats = load_gguf(&dir, dtype, F32);
            let mut blocks = load_gguf(&dir, dtype, dtype);
            check_both(arch, &mut floats, &mut blocks, ROUNDING, &format!("{dtype:?}"));
        }
    }
}

/// The formats whose rows are blocks of 256, on models that are wide enough for them.
#[test]
fn blocks_of_256_agree_with_their_weights_as_floats() {
    use GgmlDType::{F32, Q2K, Q3K, Q4K, Q5K, Q6K};
    for (seed, arch) in ["llama", "qwen2", "qwen3", "gemma3_text"].into_iter().enumerate() {
        let base = tempfile::tempdir().unwrap();
        let act = if arch == "gemma3_text" { "gelu_pytorch_tanh" } else { "silu" };
        let config = json!({
            "model_type": arch, "hidden_act": act, "hidden_size": 256, "intermediate_size": 512,
            "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32,
            "vocab_size": 320, "tie_word_embeddings": seed % 2 == 1, "sliding_window": 4,
            "query_pre_attn_scalar": 32, "max_position_embeddings": 128, "rope_theta": 10000.0,
        });
        random::write(base.path(), &config, seed as u64);
        for dtype in [Q4K, Q5K, Q6K, Q2K, Q3K] {
            let mut floats = load_gguf(base.path(), dtype, F32);
            let mut blocks = load_gguf(base.path(), dtype, dtype);
            let (want, got) = (prompt(&mut floats, &PROMPT, None), prompt(&mut blocks, &PROMPT, None));
            check_agree(&want, &got, ROUNDING, &format!("{arch} {dtype:?}"));
        }
    }
}

/// Text parts of checkpoints that also see pictures: numbers one level down, names with another prefix.
#[test]
fn the_decoder_inside_a_pictures_checkpoint_is_read() {
    let base = fixture("gemma3").join("base");
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(base.join("config.json")).unwrap()).unwrap();
    let tensors = candle_core::safetensors::load(base.join("model.safetensors"), &Device::Cpu).unwrap();
    let want = prompt(&mut load(&base), &PROMPT, None);
    for prefix in ["language_model.model.", "model.language_model."] {
        let dir = tempfile::tempdir().unwrap();
        let nested = json!({"model_type": "gemma3", "eos_token_id": [1, 106], "text_config": config});
        fs::write(dir.path().join("config.json"), nested.to_string()).unwrap();
        let mut renamed: HashMap<String, Tensor> =
            tensors.iter().map(|(name, t)| (name.replacen("model.", prefix, 1), t.clone())).collect();
        let picture = Tensor::zeros((4, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
        renamed.insert("vision_tower.patch.weight".into(), picture);
        candle_core::safetensors::save(&renamed, dir.path().join("model.safetensors")).unwrap();
        let mut model = load(dir.path());
        assert_eq!(model.config().eos, [1, 106]);
        assert_eq!(prompt(&mut model, &PROMPT, None), want);
    }
}

/// What published configs of such checkpoints leave out has the reference's default.
#[test]
fn a_sparse_config_of_a_pictures_checkpoint_is_completed() {
    let text = json!({
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
    });
    let json = json!({"model_type": "gemma3", "eos_token_id": [1, 106], "text_config": text});
    let config = hf::config(Path::new("config.json"), &json, None).unwrap();
    assert_eq!((config.n_heads, config.n_kv_heads, config.head_dim, config.vocab), (8, 4, 256, 262_208));
    assert_eq!((config.attention_scale, config.max_positions, config.tied), (1.0 / 16.0, 131_072, true));
    assert_eq!((config.rope_theta, &config.rope_scaling), (1e6, &RopeScaling::Linear { factor: 8.0 }));
    let seen: Vec<Option<usize>> = (0..34).map(|layer| config.window_of(layer)).collect();
    for (layer, window) in seen.into_iter().enumerate() {
        assert_eq!(window, if layer % 6 == 5 { None } else { Some(1024) }, "layer {layer}");
    }
    // layers with a window are not stretched, and turn faster
    let (local, global) = (config.local_frequencies().unwrap(), config.inverse_frequencies());
    assert_eq!((local[0], global[0]), (1.0, 1.0 / 8.0));
    let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a} {b}");
    near(local[64], 1e4f64.powf(-0.5));
    near(global[64], 1e6f64.powf(-0.5) / 8.0);
}

/// The reference multiplies embeddings by a factor that it keeps in the type of the weights.
#[test]
fn the_scale_of_embeddings_is_rounded_like_the_weights() {
    use candle_core::DType::{BF16, F16, F32};
    let config = json!({
        "model_type": "gemma3_text", "hidden_size": 640, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 17,
    });
    let base = tempfile::tempdir().unwrap();
    random::write(base.path(), &config, 1);
    let file = base.path().join("model.safetensors");
    let tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    // √640 = 25.298…
    for (dtype, scale) in [(F32, 640f32.sqrt()), (BF16, 25.25), (F16, 25.296_875)] {
        let cast: HashMap<String, Tensor> =
            tensors.iter().map(|(name, t)| (name.clone(), t.to_dtype(dtype).unwrap())).collect();
        candle_core::safetensors::save(&cast, &file).unwrap();
        assert_eq!(Checkpoint::open(base.path()).unwrap().config().embedding_scale, scale);
        let gguf = base.path().join("model.gguf");
        let f32s: HashMap<String, Tensor> =
            cast.iter().map(|(name, t)| (name.clone(), t.to_dtype(F32).unwrap())).collect();
        candle_core::safetensors::save(&f32s, &file).unwrap();
        write_gguf(base.path(), GgmlDType::BF16, GgmlDType::BF16, &gguf);
        assert_eq!(Checkpoint::open(&gguf).unwrap().config().embedding_scale, 640f32.sqrt());
    }
}

/// A copy of the fixture's base that a test may damage.
fn copy(dir: &Path) -> PathBuf {
    for entry in fs::read_dir(fixture("llama").join("base")).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, dir.join(from.file_name().unwrap())).unwrap();
    }
    dir.join("model.safetensors")
}

fn open(dir: &Path) -> Error {
    Checkpoint::open(dir).err().expect("refused")
}

#[test]
fn a_damaged_checkpoint_is_refused_by_file_and_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let file = copy(dir.path());
    let whole = fs::read(&file).unwrap();

    fs::write(&file, &whole[..whole.len() - 100]).unwrap();
    let error = open(dir.path());
    assert_eq!(error.code(), "model_file_corrupt");
    assert!(error.to_string().contains("model.safetensors") && error.to_string().contains("tensor model."));

    fs::write(&file, b"not a checkpoint, but longer than eight bytes").unwrap();
    assert_eq!(open(dir.path()).code(), "model_file_corrupt");

    let renamed = String::from_utf8_lossy(&whole[..4096]).replace("model.norm.weight", "model.none.weight");
    assert!(renamed.contains("model.none.weight"), "the header is in the first part");
    let at = whole.windows(17).position(|w| w == b"model.norm.weight").unwrap();
    let mut other = whole.clone();
    other[at..at + 17].copy_from_slice(b"model.none.weight");
    fs::write(&file, &other).unwrap();
    let error = open(dir.path());
    assert!(
        matches!(&error, Error::TensorMissing { tensor, .. } if tensor == "model.norm.weight"),
        "{error}"
    );

    fs::remove_file(&file).unwrap();
    assert_eq!(open(dir.path()).code(), "model_file_missing");
}

#[test]
fn a_config_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path());
    let file = dir.path().join("config.json");
    let text = fs::read_to_string(&file).unwrap();
    let with = |from: &str, to: &str| {
        assert!(text.contains(from));
        fs::write(&file, text.replace(from, to)).unwrap();
        open(dir.path())
    };
    let error = with("\"vocab_size\": 320", "\"vocab_size\": 336");
    assert!(
        matches!(&error, Error::ShapeMismatch { tensor, expected, found, .. }
            if tensor == "model.embed_tokens.weight" && *expected == [336, 64] && *found == [320, 64]),
        "{error}"
    );
    assert_eq!(with("\"model_type\": \"llama\"", "\"model_type\": \"rwkv\"").code(), "model_unsupported");
    assert_eq!(with("\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"").code(), "model_unsupported");
    let window = "\"hidden_act\": \"silu\", \"layer_types\": [\"full_attention\", \"sliding_attention\"]";
    let error = with("\"hidden_act\": \"silu\"", window);
    assert!(
        error.code() == "model_unsupported" && error.to_string().contains("sliding_attention"),
        "{error}"
    );
    // the flat spelling of older files is read too
    let flat = text
        .replace("\"rope_theta\": 100000.0,", "")
        .replace("\"vocab_size\"", "\"rope_theta\": 100000.0, \"vocab_size\"");
    fs::write(&file, flat).unwrap();
    assert_eq!(Checkpoint::open(dir.path()).unwrap().config().rope_theta, 100_000.0);
}

#[test]
fn a_truncated_gguf_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.gguf");
    write_gguf(&fixture("llama").join("base"), GgmlDType::Q8_0, GgmlDType::Q8_0, &file);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert!(open(&file).to_string().contains("truncated: tensor"));
    fs::write(&file, &whole[..100]).unwrap();
    assert_eq!(open(&file).code(), "model_file_corrupt");
}

#[test]
fn a_part_of_a_split_gguf_is_refused_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model-00001-of-00003.gguf");
    let metadata =
        [("general.architecture", &Value::String("llama".into())), ("split.count", &Value::U16(3))];
    gguf_file::write(&mut fs::File::create(&file).unwrap(), &metadata, &[]).unwrap();
    let error = open(&file);
    assert!(error.code() == "model_unsupported" && error.to_string().contains("3 parts"), "{error}");
}

#[test]
fn an_adapter_that_does_not_fit_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let from = fixture("llama").join("adapter_concept");
    let base = Checkpoint::open(&fixture("llama").join("base")).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(from.join(name), dir.path().join(name)).unwrap();
    }
    let refuse =
        |config: &adit::nn::arch::ModelConfig| Adapter::load(dir.path(), config).err().expect("refused");
    let mut narrow = base.config().clone();
    narrow.ffn = 64;
    assert_eq!(refuse(&narrow).code(), "shape_mismatch");
    let mut shallow = base.config().clone();
    shallow.n_layers = 1;
    assert_eq!(refuse(&shallow).code(), "adapter_target");

    let file = dir.path().join("adapter_config.json");
    let text = fs::read_to_string(&file).unwrap();
    for (from, to, code, word) in [
        ("\"use_dora\": false", "\"use_dora\": true", "model_unsupported", "use_dora"),
        ("\"bias\": \"none\"", "\"bias\": \"all\"", "model_unsupported", "bias"),
        (
            "\"modules_to_save\": null",
            "\"modules_to_save\": [\"lm_head\"]",
            "model_unsupported",
            "modules_to_save",
        ),
        ("\"q_proj\"", "\"c_attn\"", "adapter_target", "c_attn"),
        ("\"r\": 4", "\"r\": 8", "shape_mismatch", "lora_"),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&file, text.replace(from, to)).unwrap();
        let error = refuse(base.config());
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(refuse(base.config()).code(), "model_file_missing");
}

#[test]
fn memory_is_what_the_headers_said() {
    for arch in ARCHS {
        let checkpoint = Checkpoint::open(&fixture(arch).join("base")).unwrap();
        let options = LoadOptions { threads: 1, kv_tokens: 160, max_rows: 32, ..LoadOptions::default() };
        let model = Model::load(&checkpoint, &options, &mut |_| ()).unwrap();
        assert_eq!(model.weight_bytes(), checkpoint.weight_bytes());
        let least = checkpoint.weight_bytes()
            + 160 * checkpoint.kv_bytes_per_token(options.kv_type)
            + checkpoint.activation_bytes(32);
        assert!(model.memory_bytes() >= least && model.memory_bytes() < least + (1 << 20));
    }
}
