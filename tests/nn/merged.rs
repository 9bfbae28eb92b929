//! Adapters of different models in one batch against checkpoints that they were merged into.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::Value;

use adit::nn::model::Model;

use super::harness::{ARCHS, Sequence, add, argmax, difference, fixture, load, step};
use super::random::Random;

const KINDS: [&str; 3] = ["concept", "relationship", "attribute"];
/// Between `W·x + s·B·(A·x)` and `(W + s·B·A)·x` in f32; the reference itself differs by up to 2e-5 there
/// (`merged_vs_unmerged_max_abs` in golden.json).
const TOLERANCE: f32 = 1e-4;
const STEPS: usize = 12;

/// Writes the fixture's base with an adapter merged into its weights.
fn merge(arch: &str, kind: &str, to: &Path) {
    let (base, adapter) = (fixture(arch).join("base"), fixture(arch).join(format!("adapter_{kind}")));
    let mut weights: HashMap<String, Tensor> =
        candle_core::safetensors::load(base.join("model.safetensors"), &Device::Cpu).unwrap();
    let parts =
        candle_core::safetensors::load(adapter.join("adapter_model.safetensors"), &Device::Cpu).unwrap();
    let config: Value =
        serde_json::from_slice(&fs::read(adapter.join("adapter_config.json")).unwrap()).unwrap();
    let number = |key: &str| config[key].as_f64().unwrap();
    let rank = number("r");
    let divisor = if config["use_rslora"] == true { rank.sqrt() } else { rank };
    let mut merged = 0;
    for (name, a) in &parts {
        let Some(target) = name.strip_suffix(".lora_A.weight") else { continue };
        let b = &parts[&format!("{target}.lora_B.weight")];
        let target = format!("{}.weight", target.strip_prefix("base_model.model.").unwrap());
        let change = (b.matmul(a).unwrap() * (number("lora_alpha") / divisor)).unwrap();
        let sum = (&weights[&target] + change).unwrap();
        weights.insert(target, sum);
        merged += 1;
    }
    assert!(merged >= 8, "{arch} {kind}: {merged} matrices");
    candle_core::safetensors::save(&weights, to.join("model.safetensors")).unwrap();
    fs::copy(base.join("config.json"), to.join("config.json")).unwrap();
}

/// Greedy tokens of a prompt alone, and the logits that chose each.
fn alone(model: &mut Model, prompt: &[u32]) -> Vec<Vec<f32>> {
    let mut sequence = Sequence::new(0, None);
    let mut logits = vec![step(model, &mut [(&mut sequence, prompt)]).remove(0)];
    while logits.len() < STEPS {
        let next = [argmax(&logits[logits.len() - 1])];
        logits.push(step(model, &mut [(&mut sequence, &next)]).remove(0));
    }
    logits
}

#[test]
fn a_mixed_batch_answers_as_merged_checkpoints_do() {
    for arch in ARCHS {
        let mut random = Random(17);
        // two prompts of each adapter and of the base; neighbours use different ones
        let prompts: Vec<Vec<u32>> = [3, 7, 11, 15, 18, 9, 1, 17].map(|n| random.tokens(n, 320)).to_vec();
        let mut want = Vec::new();
        for (i, prompt) in prompts.iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let mut model = match KINDS.get(i % 4) {
                Some(kind) => {
                    merge(arch, kind, dir.path());
                    load(dir.path())
                }
                None => load(&fixture(arch).join("base")),
            };
            want.push(alone(&mut model, prompt));
        }
        let mut model = load(&fixture(arch).join("base"));
        let slots = KINDS.map(|kind| add(&mut model, arch, kind));
        let mut sequences: Vec<Sequence> =
            (0..prompts.len()).map(|i| Sequence::new(i as u32, slots.get(i % 4).copied())).collect();
        let mut next = prompts.clone();
        for at in 0..STEPS {
            let mut work: Vec<(&mut Sequence, &[u32])> =
                sequences.iter_mut().zip(next.iter().map(Vec::as_slice)).collect();
            // a step takes 64 rows: the prompts come in two
            let got: Vec<Vec<f32>> = if at == 0 {
                let (first, second) = work.split_at_mut(4);
                [step(&mut model, first), step(&mut model, second)].concat()
            } else {
                step(&mut model, &mut work)
            };
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                let off = difference(got, &want[at]);
                assert!(off < TOLERANCE, "{arch} item {i}, token {at}: logits are off by {off}");
                assert_eq!(argmax(got), argmax(&want[at]), "{arch} item {i}, token {at}");
                next[i] = vec![argmax(got)];
            }
        }
    }
}

/// A batch of one adapter alone runs on the merged copy, a mixed one beside it; both answer alike, and going back
/// needs nothing.
#[test]
fn a_merged_adapter_answers_as_beside_the_base() {
    let prompts = |seed| {
        let mut random = Random(seed);
        [9, 14].map(|n| random.tokens(n, 320))
    };
    for arch in ARCHS {
        let mut model = load(&fixture(arch).join("base"));
        let slots = KINDS.map(|kind| add(&mut model, arch, kind));
        let mut run = |slots: [u32; 2], merged: Option<u32>| {
            match merged {
                Some(slot) => model.merge(slot).unwrap(),
                None => model.unmerge(),
            }
            assert_eq!(model.merged_slot(), merged);
            let prompts = prompts(5);
            let mut sequences = [0, 1].map(|i| Sequence::new(i as u32, Some(slots[i])));
            let [first, second] = &mut sequences;
            let logits = step(&mut model, &mut [(first, &prompts[0]), (second, &prompts[1])]);
            (logits, model.memory_bytes())
        };
        for (i, slot) in slots.into_iter().enumerate() {
            let (beside, plain_bytes) = run([slot; 2], None);
            let (merged, merged_bytes) = run([slot; 2], Some(slot));
            assert!(merged_bytes > plain_bytes, "a copy takes memory, and it is counted");
            for (got, want) in merged.iter().zip(&beside) {
                assert_ne!(got, want, "{arch} {}: the copy was used", KINDS[i]);
                assert!(difference(got, want) < TOLERANCE, "{arch} {}", KINDS[i]);
            }
            // a batch that mixes adapters does not touch the copy
            let other = slots[(i + 1) % 3];
            assert_eq!(run([slot, other], Some(slot)).0, run([slot, other], None).0);
        }
        model.remove_adapter(slots[0]);
        assert!(model.merge(slots[0]).is_err(), "nothing to merge");
        model.merge(slots[1]).unwrap();
        model.remove_adapter(slots[1]);
        assert_eq!(model.merged_slot(), None, "goes with its adapter");
    }
}
