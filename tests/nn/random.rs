//! Random checkpoints of any shape.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::Value;

use adit::nn::arch::hf;
use adit::nn::arch::names::{self, Names, Role, Scheme};

/// Normal-ish values from a counter (a sum of four uniform ones).
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn value(&mut self) -> f32 {
        let uniform = |random: &mut Self| (random.next() >> 40) as f32 / (1 << 24) as f32 - 0.5;
        (0..4).map(|_| uniform(self)).sum::<f32>() * 3f32.sqrt()
    }

    pub fn tokens(&mut self, n: usize, vocab: usize) -> Vec<u32> {
        (0..n).map(|_| (self.next() % vocab as u64) as u32).collect()
    }
}

/// Writes a checkpoint of this shape. Norms lie around their neutral value and biases differ from 0, as a
/// loader that drops them would otherwise go unseen.
pub fn write(dir: &Path, config: &Value, seed: u64) {
    let mut random = Random(seed);
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let shape = hf::config(&dir.join("config.json"), config, None).unwrap();
    let names = Names::new(Scheme::HuggingFace, &shape);
    let neutral = if shape.arch.family().norms_less_one { 0.0 } else { 1.0 };
    let mut tensors = HashMap::new();
    for (role, layer, dims) in names::expected(&shape) {
        let spread = 1.4 / (*dims.last().unwrap() as f32).sqrt();
        let mut value = || match role {
            Role::Weight(_) | Role::Head => random.value() * spread,
            Role::Embedding | Role::Bias(_) => random.value() * 0.3,
            _ => neutral + random.value() * 0.2,
        };
        let values: Vec<f32> = (0..dims.iter().product()).map(|_| value()).collect();
        let name = names.of(role, layer);
        tensors.insert(name, Tensor::from_vec(values, dims, &Device::Cpu).unwrap());
    }
    candle_core::safetensors::save(&tensors, dir.join("model.safetensors")).unwrap();
}
