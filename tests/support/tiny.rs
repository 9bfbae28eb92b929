//! Small random checkpoints with a real tokenizer, and ways to damage them.
//!
//! Weights are random but fixed by the seed, scaled so that activations neither vanish nor grow; greedy
//! tokens are arbitrary but stable. The tokenizer is the committed fixture (1,310 tokens); the model's
//! vocabulary is padded beyond it, as those of published checkpoints are.

#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// Rows of the embedding; the tokenizer knows fewer, the rest is padding.
pub const VOCAB: usize = 1344;
pub const CONTEXT_TOKENS: usize = 8192;
/// `<|im_end|>`, which ends an answer.
pub const STOP: u32 = 2;

/// Every linear layer that an adapter may target.
pub const ALL_TARGETS: &[&str] =
    &["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    Qwen2,
    Llama,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    F32,
    Bf16,
}

/// Writes a 2-layer checkpoint into `dir` (made if need be) and returns it.
pub fn tiny_model(dir: impl AsRef<Path>, arch: Arch, seed: u64) -> PathBuf {
    Tiny::new(arch, seed).write(dir)
}

/// The same weights as [`tiny_model`], in three shards with an index.
pub fn sharded_model(dir: impl AsRef<Path>, arch: Arch, seed: u64) -> PathBuf {
    Tiny::new(arch, seed).shards(3).write(dir)
}

/// Writes a rank-4 PEFT adapter that fits [`tiny_model`] of either architecture.
pub fn tiny_adapter(dir: impl AsRef<Path>, seed: u64, targets: &[&str]) -> PathBuf {
    Tiny::new(Arch::Qwen2, 0).write_adapter(dir, seed, targets)
}

/// Shape of a random checkpoint.
#[derive(Clone, Debug)]
pub struct Tiny {
    arch: Arch,
    seed: u64,
    hidden: usize,
    ffn: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    context: usize,
    shards: usize,
    dtype: Dtype,
}

impl Tiny {
    pub fn new(arch: Arch, seed: u64) -> Self {
        Self {
            arch,
            seed,
            hidden: 64,
            ffn: 128,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            context: CONTEXT_TOKENS,
            shards: 1,
            dtype: Dtype::F32,
        }
    }

    /// Width of the residual stream and of the feed-forward layer. A multiple of 64; head size grows with it.
    pub fn width(mut self, hidden: usize, ffn: usize) -> Self {
        assert_eq!(hidden % 64, 0);
        (self.hidden, self.ffn) = (hidden, ffn);
        self
    }

    pub fn layers(mut self, layers: usize) -> Self {
        self.layers = layers;
        self
    }

    pub fn context(mut self, tokens: usize) -> Self {
        self.context = tokens;
        self
    }

    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    pub fn dtype(mut self, dtype: Dtype) -> Self {
        self.dtype = dtype;
        self
    }

    /// Bytes of all tensors.
    pub fn weight_bytes(&self) -> u64 {
        let width = if self.dtype == Dtype::F32 { 4 } else { 2 };
        self.shapes().iter().map(|(_, shape)| shape.iter().product::<usize>() as u64 * width).sum()
    }

    pub fn write(&self, dir: impl AsRef<Path>) -> PathBuf {
        let dir = dir.as_ref();
        fs::create_dir_all(dir).unwrap();
        self.write_texts(dir);
        let shapes = self.shapes();
        if self.shards <= 1 {
            self.write_weights(&dir.join("model.safetensors"), &shapes);
            return dir.to_path_buf();
        }
        let mut weight_map = Map::new();
        let per_shard = shapes.len().div_ceil(self.shards);
        for (index, part) in shapes.chunks(per_shard).enumerate() {
            let file = format!("model-{:05}-of-{:05}.safetensors", index + 1, self.shards);
            self.write_weights(&dir.join(&file), part);
            for (name, _) in part {
                weight_map.insert(name.clone(), json!(file));
            }
        }
        let index = json!({"metadata": {"total_size": self.weight_bytes()}, "weight_map": weight_map});
        write_json(&dir.join("model.safetensors.index.json"), &index);
        dir.to_path_buf()
    }

    /// A PEFT adapter of rank 4 for a checkpoint of this shape.
    pub fn write_adapter(&self, dir: impl AsRef<Path>, seed: u64, targets: &[&str]) -> PathBuf {
        const RANK: usize = 4;
        let dir = dir.as_ref();
        fs::create_dir_all(dir).unwrap();
        let mut file = SafetensorsFile::default();
        for (name, shape) in self.shapes() {
            let Some(module) = name.strip_suffix(".weight") else { continue };
            if !targets.iter().any(|target| module.ends_with(&format!(".{target}"))) {
                continue;
            }
            let [out, inner] = shape[..] else { continue };
            for (side, shape) in [("lora_A", [RANK, inner]), ("lora_B", [out, RANK])] {
                let name = format!("base_model.model.{module}.{side}.weight");
                let values = random(seed, &name, shape[0] * shape[1], 1.0 / (shape[1] as f32).sqrt(), 0.0);
                file.push(&name, &shape, Dtype::F32, &values);
            }
        }
        file.write(&dir.join("adapter_model.safetensors"));
        let config = json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "../base",
            "r": RANK, "lora_alpha": 8, "lora_dropout": 0.0, "bias": "none", "use_rslora": false,
            "use_dora": false, "fan_in_fan_out": false, "inference_mode": true, "rank_pattern": {},
            "alpha_pattern": {}, "modules_to_save": null, "layers_to_transform": null,
            "target_modules": targets,
        });
        write_json(&dir.join("adapter_config.json"), &config);
        dir.to_path_buf()
    }

    /// Names and shapes in the order in which they are written.
    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let head = self.hidden / self.heads;
        let (hidden, kv) = (self.hidden, self.kv_heads * head);
        let mut shapes = vec![("model.embed_tokens.weight".to_string(), vec![VOCAB, hidden])];
        for layer in 0..self.layers {
            let mut push = |name: &str, shape: &[usize]| {
                shapes.push((format!("model.layers.{layer}.{name}"), shape.to_vec()));
            };
            push("input_layernorm.weight", &[hidden]);
            push("self_attn.q_proj.weight", &[hidden, hidden]);
            push("self_attn.k_proj.weight", &[kv, hidden]);
            push("self_attn.v_proj.weight", &[kv, hidden]);
            if self.arch == Arch::Qwen2 {
                push("self_attn.q_proj.bias", &[hidden]);
                push("self_attn.k_proj.bias", &[kv]);
                push("self_attn.v_proj.bias", &[kv]);
            }
            push("self_attn.o_proj.weight", &[hidden, hidden]);
            push("post_attention_layernorm.weight", &[hidden]);
            push("mlp.gate_proj.weight", &[self.ffn, hidden]);
            push("mlp.up_proj.weight", &[self.ffn, hidden]);
            push("mlp.down_proj.weight", &[hidden, self.ffn]);
        }
        shapes.push(("model.norm.weight".into(), vec![hidden]));
        // Qwen2 here has a head of its own, Llama is tied: both kinds are exercised
        if self.arch == Arch::Qwen2 {
            shapes.push(("lm_head.weight".into(), vec![VOCAB, hidden]));
        }
        shapes
    }

    fn write_weights(&self, path: &Path, shapes: &[(String, Vec<usize>)]) {
        let mut file = SafetensorsFile::default();
        for (name, shape) in shapes {
            let count = shape.iter().product();
            let (std, mean) = match shape[..] {
                [_] if name.ends_with("norm.weight") => (0.1, 1.0),
                [_] => (0.1, 0.0),
                _ if name.contains("embed") => (0.5, 0.0),
                _ => (1.0 / (shape[1] as f32).sqrt(), 0.0),
            };
            file.push(name, shape, self.dtype, &random(self.seed, name, count, std, mean));
        }
        file.write(path);
    }

    fn write_texts(&self, dir: &Path) {
        let (architecture, model_type) = match self.arch {
            Arch::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
            Arch::Llama => ("LlamaForCausalLM", "llama"),
        };
        let config = json!({
            "architectures": [architecture], "model_type": model_type, "hidden_act": "silu",
            "hidden_size": self.hidden, "intermediate_size": self.ffn, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
            "max_position_embeddings": self.context, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "vocab_size": VOCAB, "tie_word_embeddings": self.arch == Arch::Llama,
            "torch_dtype": if self.dtype == Dtype::F32 { "float32" } else { "bfloat16" },
            "bos_token_id": 1, "eos_token_id": STOP, "attention_bias": false, "use_sliding_window": false,
        });
        write_json(&dir.join("config.json"), &config);
        let generation = json!({"bos_token_id": 1, "eos_token_id": [STOP, 0], "pad_token_id": 0});
        write_json(&dir.join("generation_config.json"), &generation);
        let template = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + \
            message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}\
            {{ '<|im_start|>assistant\n' }}{% endif %}";
        let tokenizer = json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>", "add_bos_token": false, "model_max_length": self.context,
            "chat_template": template,
        });
        write_json(&dir.join("tokenizer_config.json"), &tokenizer);
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer.json");
        fs::copy(fixture, dir.join("tokenizer.json")).unwrap();
    }
}

/// Cuts `bytes` off the end of a file: a download that stopped.
pub fn truncate(file: impl AsRef<Path>, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length.checked_sub(bytes).unwrap()).unwrap();
}

/// Overwrites the start of a file with bytes that no format begins with.
pub fn corrupt(file: impl AsRef<Path>) {
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len().min(64);
    bytes[..end].fill(0xff);
    fs::write(file, bytes).unwrap();
}

/// Takes a tensor out of a safetensors file.
pub fn remove_tensor(file: impl AsRef<Path>, tensor: &str) {
    let mut contents = SafetensorsFile::read(file.as_ref());
    let before = contents.tensors.len();
    contents.tensors.retain(|entry| entry.name != tensor);
    assert_eq!(contents.tensors.len() + 1, before, "no tensor {tensor}");
    contents.write(file.as_ref());
}

/// Adds one row to a tensor, so that its shape no longer fits.
pub fn widen_tensor(file: impl AsRef<Path>, tensor: &str) {
    let mut contents = SafetensorsFile::read(file.as_ref());
    let entry = contents.find(tensor);
    let row = entry.data.len() / entry.shape[0];
    entry.data.extend_from_within(..row);
    entry.shape[0] += 1;
    contents.write(file.as_ref());
}

/// Fills an f32 tensor with NaN: a file that reads well and computes nonsense.
pub fn poison_tensor(file: impl AsRef<Path>, tensor: &str) {
    let mut contents = SafetensorsFile::read(file.as_ref());
    let entry = contents.find(tensor);
    assert_eq!(entry.dtype, "F32");
    for value in entry.data.chunks_exact_mut(4) {
        value.copy_from_slice(&f32::NAN.to_le_bytes());
    }
    contents.write(file.as_ref());
}

/// An adapter whose first `lora_A` has the inner width of another base.
pub fn wrong_shape_adapter(dir: impl AsRef<Path>, seed: u64) -> PathBuf {
    Tiny::new(Arch::Qwen2, 0).width(128, 256).write_adapter(dir, seed, &["q_proj", "v_proj"])
}

/// A safetensors file in memory: 8 bytes of header length, the header as JSON, the data.
#[derive(Default)]
struct SafetensorsFile {
    tensors: Vec<Entry>,
}

struct Entry {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl SafetensorsFile {
    fn push(&mut self, name: &str, shape: &[usize], dtype: Dtype, values: &[f32]) {
        let (dtype, data) = match dtype {
            Dtype::F32 => ("F32", values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Dtype::Bf16 => {
                ("BF16", values.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect())
            }
        };
        self.tensors.push(Entry { name: name.into(), dtype: dtype.into(), shape: shape.to_vec(), data });
    }

    fn find(&mut self, name: &str) -> &mut Entry {
        self.tensors.iter_mut().find(|entry| entry.name == name).unwrap()
    }

    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let header_end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: Map<String, Value> = serde_json::from_slice(&bytes[8..header_end]).unwrap();
        let tensors = header.iter().filter(|(name, _)| *name != "__metadata__").map(|(name, info)| {
            let offset = |index: usize| info["data_offsets"][index].as_u64().unwrap() as usize;
            Entry {
                name: name.clone(),
                dtype: info["dtype"].as_str().unwrap().into(),
                shape: serde_json::from_value(info["shape"].clone()).unwrap(),
                data: bytes[header_end + offset(0)..header_end + offset(1)].to_vec(),
            }
        });
        Self { tensors: tensors.collect() }
    }

    fn write(&self, path: &Path) {
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut offset = 0;
        for entry in &self.tensors {
            let end = offset + entry.data.len();
            let info = json!({"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [offset, end]});
            header.insert(entry.name.clone(), info);
            offset = end;
        }
        let mut header = serde_json::to_vec(&header).unwrap();
        // data starts at a multiple of 8, as the format's own writer does
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(&header);
        for entry in &self.tensors {
            bytes.extend_from_slice(&entry.data);
        }
        fs::write(path, bytes).unwrap();
    }
}

fn write_json(path: &Path, value: &Value) {
    fs::write(path, serde_json::to_vec_pretty(value).unwrap()).unwrap();
}

/// `count` values, uniform around `mean` with standard deviation `std`; the same for a seed and name always.
/// splitmix64, Steele, Lea, Flood 2014.
fn random(seed: u64, name: &str, count: usize, std: f32, mean: f32) -> Vec<f32> {
    // FNV-1a over the name, so that each tensor has its own stream
    let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let half_width = std * 3f32.sqrt();
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        mean + half_width * ((mixed >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
    };
    (0..count).map(|_| next()).collect()
}
