//! Logits and greedy tokens of transformers and peft (`tests/golden/make_golden.py`).

use std::fs;

use safetensors::SafeTensors;
use serde_json::Value;

use adit::nn::cache::KvType;
use adit::nn::cpu::isa::Isa;

use super::harness::{Sequence, add, argmax, difference, fixture, load_with, step};

/// f32 against f32, in other orders of summation; and with K and V rounded to halves.
const TOLERANCES: [(KvType, f32); 2] = [(KvType::F32, 1e-4), (KvType::F16, 1.5e-2)];

/// Tokens are compared where the reference was never within two tolerances of choosing another one: no two logits can then change places.
fn check(arch: &str, tag: &str, isa: Isa, (kv_type, tolerance): (KvType, f32)) {
    let dir = fixture(arch);
    let meta: Value = serde_json::from_slice(&fs::read(dir.join("golden.json")).unwrap()).unwrap();
    let bytes = fs::read(dir.join("golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let mut model = load_with(&dir.join("base"), kv_type);
    model.set_isa(isa).unwrap();
    let adapter = (tag != "base").then(|| add(&mut model, arch, tag));
    for (i, run) in meta["greedy"][tag].as_array().unwrap().iter().enumerate() {
        let prompt: Vec<u32> = serde_json::from_value(meta["prompts"][i].clone()).unwrap();
        let want: Vec<u32> = serde_json::from_value(run["tokens"].clone()).unwrap();
        let tensor = golden.tensor(&format!("{tag}.{i}.last_logits")).unwrap();
        let reference: Vec<f32> =
            tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let mut sequence = Sequence::new(i as u32, adapter);
        let mut logits = step(&mut model, &mut [(&mut sequence, &prompt)]).remove(0);
        let off = difference(&logits, &reference);
        let what = format!("{arch} {tag} prompt {i} on {isa:?}, {kv_type:?}");
        assert!(off < tolerance, "{what}: logits are off by {off}");
        if run["min_margin"].as_f64().unwrap() < f64::from(2.0 * tolerance) {
            continue;
        }
        let mut got = Vec::new();
        for _ in 0..want.len() {
            got.push(argmax(&logits));
            logits = step(&mut model, &mut [(&mut sequence, &got[got.len() - 1..])]).remove(0);
        }
        assert_eq!(got, want, "{what}: greedy tokens");
    }
}

fn check_all(arch: &str) {
    for isa in Isa::available() {
        for tag in ["base", "concept", "relationship", "attribute"] {
            TOLERANCES.into_iter().for_each(|tolerance| check(arch, tag, isa, tolerance));
        }
    }
}

#[test]
fn qwen2_agrees_with_the_reference() {
    check_all("qwen2");
}

#[test]
fn llama_agrees_with_the_reference() {
    check_all("llama");
}

#[test]
fn qwen3_agrees_with_the_reference() {
    check_all("qwen3");
}

/// Window of 8 in the first layer, prompts of up to 24: beyond it.
#[test]
fn gemma3_agrees_with_the_reference() {
    check_all("gemma3");
}
