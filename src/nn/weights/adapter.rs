//! PEFT LoRA adapters: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! An adapted layer computes `y = W·x + scale · B·(A·x)`; the scale is folded into B. What an adapter
//! changes beyond that (DoRA, biases, whole modules) is refused by name.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::checkpoint::{Reader, TensorInfo};
use super::random::Values;
use super::safetensors;
use crate::nn::Error;
use crate::nn::arch::ModelConfig;
use crate::nn::arch::names::{Module, text_part};
use crate::nn::cpu::packed::Packed;
use crate::nn::cpu::threads::Threads;

/// Largest rank taken; bounds the scratch of a step.
pub const MAX_RANK: usize = 256;

/// An adapter's matrices, checked against the base they belong to.
pub struct Adapter {
    layers: Vec<[Option<Pair>; 7]>,
    rank: usize,
    bytes: u64,
}

/// A and B of one layer.
pub struct Pair {
    /// `[rank, inputs]`
    pub a: Packed,
    /// `[outputs, rank]`, scaled.
    pub b: Packed,
}

struct Config {
    rank: usize,
    scale: f32,
    /// Names of layers, where the file lists them rather than giving a pattern.
    targets: Vec<String>,
}

impl Adapter {
    /// Reads and checks an adapter for a base of this shape.
    pub fn load(dir: &Path, base: &ModelConfig) -> Result<Self, Error> {
        let config = read_config(dir)?;
        let file = dir.join("adapter_model.safetensors");
        let tensors = safetensors::read_header(&file)?;
        let mut found: Vec<[[Option<&TensorInfo>; 2]; 7]> = vec![Default::default(); base.n_layers];
        for tensor in &tensors {
            let (layer, module, part) = place(&file, tensor, base)?;
            check_shape(tensor, module, part, config.rank, base)?;
            found[layer][module as usize][part] = Some(tensor);
        }
        for target in &config.targets {
            let module = Module::ALL.into_iter().find(|m| m.as_str() == target).ok_or_else(|| {
                let cause = "the base has no such linear layer in its blocks".into();
                Error::AdapterTarget { file: dir.into(), target: target.clone(), cause }
            })?;
            if !found.iter().any(|layer| layer[module as usize][0].is_some()) {
                let tensor = format!("*.{target}.lora_A.weight");
                return Err(Error::TensorMissing { file, tensor });
            }
        }
        read_pairs(&file, &found, &config)
    }

    /// Random matrices for every linear layer of a base, to measure with: they change its outputs by about a tenth.
    pub fn random(base: &ModelConfig, rank: usize, seed: u64) -> Result<Self, Error> {
        let mut values = Values::new(seed);
        let mut threads = Threads::new(1).map_err(|e| Error::io(Path::new("a thread"), e))?;
        let (mut layers, mut bytes) = (Vec::new(), 0);
        for _ in 0..base.n_layers {
            let mut modules: [Option<Pair>; 7] = Default::default();
            for module in Module::ALL {
                let [n, k] = module.shape(base);
                let mut matrix = |n: usize, k: usize, size: f32| {
                    let all: Vec<f32> = values.take(n * k, size).collect();
                    Packed::pack_f32(&all, n, k, &mut threads)
                };
                let (a, b) = (matrix(rank, k, (3.0 / k as f32).sqrt())?, matrix(n, rank, 0.1)?);
                bytes += a.bytes() + b.bytes();
                modules[module as usize] = Some(Pair { a, b });
            }
            layers.push(modules);
        }
        Ok(Self { layers, rank, bytes })
    }

    /// Bytes that the adapter will take in memory, from headers only.
    pub fn inspect(dir: &Path) -> Result<u64, Error> {
        read_config(dir)?;
        let tensors = safetensors::read_header(&dir.join("adapter_model.safetensors"))?;
        let packed = |t: &TensorInfo| match *t.shape {
            [n, k] => 4 * (n.next_multiple_of(16) * k) as u64,
            _ => 0,
        };
        Ok(tensors.iter().map(packed).sum())
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn rank(&self) -> usize {
        self.rank
    }

    pub fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// What it adds to a layer.
    pub fn pair(&self, layer: usize, module: Module) -> Option<&Pair> {
        self.layers[layer][module as usize].as_ref()
    }
}

fn read_config(dir: &Path) -> Result<Config, Error> {
    let file = dir.join("adapter_config.json");
    let bytes = std::fs::read(&file).map_err(|e| Error::io(&file, e))?;
    let json: Value = serde_json::from_slice(&bytes).map_err(|e| Error::corrupt(&file, e))?;
    let set = |key: &str| match json.get(key) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    };
    let word = |key: &str| json.get(key).and_then(Value::as_str);
    if word("peft_type").is_some_and(|kind| kind != "LORA") {
        return Err(Error::unsupported(&file, format!("peft_type {:?}", word("peft_type").unwrap_or(""))));
    }
    if word("bias").is_some_and(|bias| bias != "none") {
        return Err(Error::unsupported(&file, format!("bias = {:?}", word("bias").unwrap_or(""))));
    }
    let refused = [
        "use_dora",
        "modules_to_save",
        "rank_pattern",
        "alpha_pattern",
        "lora_bias",
        "fan_in_fan_out",
        "target_parameters",
        "trainable_token_indices",
        "layer_replication",
        "use_qalora",
        "use_bdlora",
        "alora_invocation_tokens",
    ];
    for key in refused {
        if set(key) {
            return Err(Error::unsupported(&file, key));
        }
    }
    let rank = json.get("r").and_then(Value::as_u64).unwrap_or(0) as usize;
    if rank == 0 || rank > MAX_RANK {
        return Err(Error::unsupported(&file, format!("r = {rank} (1 to {MAX_RANK})")));
    }
    let alpha = json.get("lora_alpha").and_then(Value::as_f64).filter(|a| a.is_finite());
    let alpha = alpha.ok_or_else(|| Error::corrupt(&file, "no number lora_alpha"))?;
    let divisor = if set("use_rslora") { (rank as f64).sqrt() } else { rank as f64 };
    let targets = match json.get("target_modules") {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(last_part).collect(),
        _ => Vec::new(),
    };
    Ok(Config { rank, scale: (alpha / divisor) as f32, targets })
}

fn last_part(name: &str) -> String {
    name.rsplit('.').next().unwrap_or(name).into()
}

/// Layer, module and part (A: 0, B: 1) of a tensor like
/// `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`.
fn place(file: &Path, tensor: &TensorInfo, base: &ModelConfig) -> Result<(usize, Module, usize), Error> {
    let refuse = |cause: String| Error::AdapterTarget {
        file: PathBuf::from(file),
        target: tensor.name.clone(),
        cause,
    };
    let name = text_part(tensor.name.trim_start_matches("base_model.model."));
    let parts: Vec<&str> = name.split('.').collect();
    let ["model", "layers", layer, parent, module, part, "weight"] = parts[..] else {
        return Err(refuse("not A or B of a linear layer in a block".into()));
    };
    let module = Module::ALL
        .into_iter()
        .find(|m| m.as_str() == module && m.parent() == parent)
        .ok_or_else(|| refuse(format!("the base's blocks have no {parent}.{module}")))?;
    let part = match part {
        "lora_A" => 0,
        "lora_B" => 1,
        other => return Err(refuse(format!("{other} is not lora_A or lora_B"))),
    };
    match layer.parse::<usize>() {
        Ok(layer) if layer < base.n_layers => Ok((layer, module, part)),
        _ => Err(refuse(format!("the base has {} layers", base.n_layers))),
    }
}

fn check_shape(
    tensor: &TensorInfo,
    module: Module,
    part: usize,
    rank: usize,
    base: &ModelConfig,
) -> Result<(), Error> {
    let [outputs, inputs] = module.shape(base);
    let expected = if part == 0 { vec![rank, inputs] } else { vec![outputs, rank] };
    if tensor.shape == expected {
        return Ok(());
    }
    let (file, name, found) = (tensor.file.clone(), tensor.name.clone(), tensor.shape.clone());
    Err(Error::ShapeMismatch { file, tensor: name, expected, found })
}

fn read_pairs(
    file: &Path,
    found: &[[[Option<&TensorInfo>; 2]; 7]],
    config: &Config,
) -> Result<Adapter, Error> {
    let mut reader = Reader::new();
    let mut alone = Threads::new(1).map_err(|e| Error::io(file, e))?;
    let mut adapter = Adapter { layers: Vec::with_capacity(found.len()), rank: config.rank, bytes: 0 };
    for modules in found {
        let mut layer: [Option<Pair>; 7] = Default::default();
        for (i, parts) in modules.iter().enumerate() {
            let (a, b) = match *parts {
                [None, None] => continue,
                [Some(a), Some(b)] => (a, b),
                [Some(half), None] => return Err(other_half(file, half, "lora_A", "lora_B")),
                [None, Some(half)] => return Err(other_half(file, half, "lora_B", "lora_A")),
            };
            let values = reader.floats(a, &mut |_| ())?;
            let a = Packed::pack_f32(&values, a.shape[0], a.shape[1], &mut alone)?;
            let mut values = reader.floats(b, &mut |_| ())?;
            values.iter_mut().for_each(|v| *v *= config.scale);
            let b = Packed::pack_f32(&values, b.shape[0], b.shape[1], &mut alone)?;
            adapter.bytes += a.bytes() + b.bytes();
            layer[i] = Some(Pair { a, b });
        }
        adapter.layers.push(layer);
    }
    Ok(adapter)
}

fn other_half(file: &Path, tensor: &TensorInfo, has: &str, lacks: &str) -> Error {
    Error::TensorMissing { file: file.into(), tensor: tensor.name.replace(has, lacks) }
}
