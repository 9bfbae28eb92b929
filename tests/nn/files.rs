//! Files: GGUF against safetensors of the same weights, and everything that can be wrong with one.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use adit::nn::Error;
use adit::nn::arch::names::{self, Scheme};
use adit::nn::model::{LoadOptions, Model};
use adit::nn::weights::adapter::Adapter;
use adit::nn::weights::checkpoint::Checkpoint;

use super::harness::{add, fixture, load, prompt};

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

/// Writes the fixture's base as GGUF: matrices as `dtype`, or rounded to it and then stored as `stored`.
fn write_gguf(arch: &str, dtype: GgmlDType, stored: GgmlDType, path: &Path) {
    let base = fixture(arch).join("base");
    let checkpoint = Checkpoint::open(&base).unwrap();
    let config = checkpoint.config();
    let tensors: HashMap<String, Tensor> =
        candle_core::safetensors::load(base.join("model.safetensors"), &Device::Cpu).unwrap();
    let mut quantised = Vec::new();
    for (role, layer, shape) in names::expected(config) {
        let tensor = &tensors[&Scheme::HuggingFace.name(role, layer)];
        let name = Scheme::Gguf.name(role, layer);
        let tensor = match name.rsplit_once('.').unwrap().0.rsplit('.').next().unwrap() {
            "attn_q" if arch == "llama" => interleave(tensor, config.n_heads),
            "attn_k" if arch == "llama" => interleave(tensor, config.n_kv_heads),
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
    let number = |n: usize| Value::U32(n as u32);
    let metadata = [
        ("general.architecture".to_string(), Value::String(arch.into())),
        (format!("{arch}.block_count"), number(config.n_layers)),
        (format!("{arch}.embedding_length"), number(config.hidden)),
        (format!("{arch}.feed_forward_length"), number(config.ffn)),
        (format!("{arch}.attention.head_count"), number(config.n_heads)),
        (format!("{arch}.attention.head_count_kv"), number(config.n_kv_heads)),
        (format!("{arch}.attention.layer_norm_rms_epsilon"), Value::F32(config.rms_eps as f32)),
        (format!("{arch}.rope.freq_base"), Value::F32(config.rope_theta as f32)),
        (format!("{arch}.context_length"), number(config.max_positions)),
        ("tokenizer.ggml.eos_token_id".to_string(), number(2)),
    ];
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<(&str, &QTensor)> = quantised.iter().map(|(n, t)| (n.as_str(), t)).collect();
    gguf_file::write(&mut fs::File::create(path).unwrap(), &metadata, &tensors).unwrap();
}

fn load_gguf(arch: &str, dtype: GgmlDType, stored: GgmlDType) -> Model {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.gguf");
    write_gguf(arch, dtype, stored, &file);
    let model = load(&file);
    assert_eq!(model.config().eos, [2]);
    model
}

/// Root mean square of the difference over that of the reference, base and adapter.
fn check_agree(arch: &str, reference: &mut Model, model: &mut Model, tolerance: f32, what: &str) {
    for kind in [None, Some("concept")] {
        let slots = kind.map(|k| (add(reference, arch, k), add(model, arch, k)));
        let want = prompt(reference, &PROMPT, slots.map(|s| s.0));
        let got = prompt(model, &PROMPT, slots.map(|s| s.1));
        let square = |v: &mut dyn Iterator<Item = f32>| v.map(|x| x * x).sum::<f32>();
        let off = square(&mut want.iter().zip(&got).map(|(a, b)| a - b)) / square(&mut want.iter().copied());
        let off = off.sqrt();
        println!("{arch} {what}, adapter {kind:?}: {off}");
        assert!(off < tolerance, "{arch} {what}, adapter {kind:?}: off by {off}");
    }
}

#[test]
fn gguf_and_safetensors_of_the_same_weights_agree() {
    use GgmlDType::{BF16, F16, F32};
    for arch in ["llama", "qwen2"] {
        let mut base = load(&fixture(arch).join("base"));
        check_agree(arch, &mut base, &mut load_gguf(arch, F32, F32), 1e-6, "F32");
        // the same rounded weights, once as f32: what is kept in 16 bits is exact
        for dtype in [F16, BF16] {
            let mut rounded = load_gguf(arch, dtype, F32);
            check_agree(arch, &mut rounded, &mut load_gguf(arch, dtype, dtype), 1e-6, "16 bits");
        }
    }
}

/// Only the rounding of the rows to 8 bits is left, and a random model of 64 columns amplifies it.
#[test]
fn integer_blocks_agree_with_their_weights_as_floats() {
    use GgmlDType::{F32, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
    for arch in ["llama", "qwen2"] {
        for dtype in [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0] {
            let mut floats = load_gguf(arch, dtype, F32);
            let mut blocks = load_gguf(arch, dtype, dtype);
            check_agree(arch, &mut floats, &mut blocks, ROUNDING, &format!("{dtype:?}"));
        }
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
    write_gguf("llama", GgmlDType::Q8_0, GgmlDType::Q8_0, &file);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert!(open(&file).to_string().contains("truncated: tensor"));
    fs::write(&file, &whole[..100]).unwrap();
    assert_eq!(open(&file).code(), "model_file_corrupt");
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
    for arch in ["llama", "qwen2"] {
        let checkpoint = Checkpoint::open(&fixture(arch).join("base")).unwrap();
        let options = LoadOptions { threads: 1, kv_tokens: 160, max_rows: 32, ..LoadOptions::default() };
        let model = Model::load(&checkpoint, &options, &mut |_| ()).unwrap();
        assert_eq!(model.weight_bytes(), checkpoint.weight_bytes());
        let least = checkpoint.weight_bytes()
            + 160 * checkpoint.kv_bytes_per_token()
            + checkpoint.activation_bytes(32);
        assert!(model.memory_bytes() >= least && model.memory_bytes() < least + (1 << 20));
    }
}
