//! The model on the card against the references' logits, and against the model on the CPU over the same batches.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use adit::engine::executor::Executor;
use adit::engine::executor::cpu::CpuExecutor;
use adit::engine::executor::cuda::CudaExecutor;
use adit::engine::grammar::Choice;
use adit::engine::request::Sampling;
use adit::engine::sampling;
use adit::nn::batch::{Batch, Span};
use adit::nn::cache::KvType;
use adit::nn::choice::{Answer, Ask};
use adit::nn::cuda::card::Card;
use adit::nn::model::{self, LoadOptions};
use adit::nn::weights::adapter::Adapter;
use adit::nn::weights::checkpoint::Checkpoint;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::card;

const BLOCK: usize = 16;
const KINDS: [&str; 3] = ["concept", "relationship", "attribute"];

/// Of the largest logit: three times what the weights' rounding alone costs with adapters on ([`rounded_weights_alone`]
/// measures it: up to 0.024 and 0.0052), since activations, K and V are rounded too, in every layer. An error in the
/// arithmetic is no smaller in f16.
const TOLERANCES: [(Type, f32); 2] = [(Type::Bf16, 7.5e-2), (Type::F16, 1.5e-2)];
/// What rounded weights alone may cost.
const WEIGHTS: [f32; 2] = [2.5e-2, 5.5e-3];

#[derive(Clone, Copy, Debug)]
enum Type {
    Bf16,
    F16,
}

fn fixture(arch: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(arch)
}

fn options() -> LoadOptions {
    LoadOptions {
        threads: 2,
        block_tokens: BLOCK,
        kv_tokens: 2048,
        kv_type: KvType::F32,
        max_rows: 256,
        context_tokens: 256,
    }
}

fn on_card(card: Card, arch: &str, kind: Type) -> CudaExecutor {
    let checkpoint = Checkpoint::open(&fixture(arch).join("base")).unwrap();
    let mut read = 0;
    let mut count = |bytes| read += bytes;
    let executor = match kind {
        Type::Bf16 => CudaExecutor::Bf16(Box::new(
            model::cuda::Model::load(card, &checkpoint, &options(), &mut count).unwrap(),
        )),
        Type::F16 => CudaExecutor::F16(Box::new(
            model::cuda::Model::load(card, &checkpoint, &options(), &mut count).unwrap(),
        )),
    };
    assert_eq!(read, checkpoint.load_bytes(), "progress adds up to the bytes read");
    executor
}

fn on_cpu(arch: &str) -> CpuExecutor {
    let checkpoint = Checkpoint::open(&fixture(arch).join("base")).unwrap();
    CpuExecutor::new(model::Model::load(&checkpoint, &options(), &mut |_| ()).unwrap())
}

fn add(executor: &mut dyn Executor, arch: &str, kind: &str) -> u32 {
    let dir = fixture(arch).join(format!("adapter_{kind}"));
    let config = Checkpoint::open(&fixture(arch).join("base")).unwrap().config().clone();
    executor.add_adapter(Arc::new(Adapter::load(&dir, &config).unwrap())).unwrap()
}

/// A sequence that owns the blocks from `home` on.
#[derive(Clone)]
struct Sequence {
    past: usize,
    home: u32,
    adapter: Option<u32>,
}

/// Appends tokens to each sequence in one step; logits of each one's last row.
fn step(executor: &mut dyn Executor, work: &mut [(&mut Sequence, &[u32])]) -> Vec<Vec<f32>> {
    let mut batch = Batch::default();
    for (sequence, tokens) in work.iter() {
        let n_blocks = (sequence.past + tokens.len()).div_ceil(BLOCK) as u32;
        assert!(n_blocks <= 8, "a sequence has eight blocks");
        batch.spans.push(Span {
            first_row: batch.tokens.len() as u32,
            n_tokens: tokens.len() as u32,
            past: sequence.past as u32,
            first_block: batch.blocks.len() as u32,
            n_blocks,
            adapter: sequence.adapter,
        });
        // not in order, so that a kernel that ignores the table is wrong
        batch.blocks.extend((0..n_blocks).map(|block| sequence.home + block * 3 % 8));
        batch.tokens.extend_from_slice(tokens);
        batch.logit_rows.push(batch.tokens.len() as u32 - 1);
    }
    let vocab = executor.vocab_size();
    let logits = executor.forward(&batch).unwrap().chunks(vocab).map(<[f32]>::to_vec).collect();
    for (sequence, tokens) in work.iter_mut() {
        sequence.past += tokens.len();
    }
    logits
}

fn argmax(logits: &[f32]) -> u32 {
    logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as u32
}

/// Largest difference over the largest value.
fn off(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0f32, |m, x| m.max(x.abs()));
    let difference = got.iter().zip(want).map(|(a, b)| (a - b).abs());
    difference.fold(0f32, |m, x| if x.is_nan() { f32::INFINITY } else { m.max(x) }) / largest
}

/// Logits after each prompt, and greedy tokens where the reference was never close to choosing another.
fn check_golden(arch: &str, kind: Type, tolerance: f32) {
    let Some(card) = card() else { return };
    let dir = fixture(arch);
    let meta: Value = serde_json::from_slice(&std::fs::read(dir.join("golden.json")).unwrap()).unwrap();
    let bytes = std::fs::read(dir.join("golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let mut executor = on_card(card, arch, kind);
    let mut worst = 0f32;
    for tag in ["base", "concept", "relationship", "attribute"] {
        let adapter = (tag != "base").then(|| add(&mut executor, arch, tag));
        for (i, run) in meta["greedy"][tag].as_array().unwrap().iter().enumerate() {
            let prompt: Vec<u32> = serde_json::from_value(meta["prompts"][i].clone()).unwrap();
            let want: Vec<u32> = serde_json::from_value(run["tokens"].clone()).unwrap();
            let tensor = golden.tensor(&format!("{tag}.{i}.last_logits")).unwrap();
            let reference: Vec<f32> =
                tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            let mut sequence = Sequence { past: 0, home: 8 * i as u32, adapter };
            let mut logits = step(&mut executor, &mut [(&mut sequence, &prompt)]).remove(0);
            let difference = off(&logits, &reference);
            worst = worst.max(difference);
            assert!(difference < tolerance, "{arch} {tag} prompt {i} in {kind:?}: off by {difference}");
            let largest = reference.iter().fold(0f32, |m, x| m.max(x.abs()));
            if run["min_margin"].as_f64().unwrap() < f64::from(2.0 * tolerance * largest) {
                continue;
            }
            let mut got = Vec::new();
            for _ in 0..want.len() {
                got.push(argmax(&logits));
                logits = step(&mut executor, &mut [(&mut sequence, &got[got.len() - 1..])]).remove(0);
            }
            assert_eq!(got, want, "{arch} {tag} prompt {i} in {kind:?}: greedy tokens");
        }
    }
    println!("{arch} in {kind:?}: off by at most {worst}");
}

/// Prompts, chunks, drafts and single tokens of sequences with and without adapters, step by step.
fn check_beside_cpu(arch: &str, kind: Type, tolerance: f32) {
    let Some(card) = card() else { return };
    let (mut ours, mut twin) = (on_card(card, arch, kind), on_cpu(arch));
    let mut slots = vec![None];
    for adapter in KINDS {
        let slot = add(&mut ours, arch, adapter);
        assert_eq!(slot, add(&mut twin, arch, adapter));
        slots.push(Some(slot));
    }
    let mut sequences: Vec<Sequence> =
        (0..10).map(|i| Sequence { past: 0, home: 8 * i, adapter: slots[i as usize % 4] }).collect();
    let mut worst = 0f32;
    for (round, lengths) in
        [[9, 1, 30, 2, 17, 5, 64, 1, 3, 40], [1; 10], [3, 1, 2, 1, 33, 1, 5, 2, 1, 1], [1; 10]]
            .into_iter()
            .enumerate()
    {
        let token = |i: usize, t: usize| ((i * 31 + t * 7 + round * 13) % 200) as u32;
        let tokens: Vec<Vec<u32>> =
            lengths.iter().enumerate().map(|(i, n)| (0..*n).map(|t| token(i, t)).collect()).collect();
        let before = sequences.clone();
        let work = |sequences: &mut Vec<Sequence>, executor: &mut dyn Executor| {
            let mut work: Vec<(&mut Sequence, &[u32])> =
                sequences.iter_mut().zip(&tokens).map(|(s, t)| (s, &t[..])).collect();
            step(executor, &mut work)
        };
        let want = work(&mut before.clone(), &mut twin);
        let got = work(&mut sequences, &mut ours);
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let difference = off(got, want);
            worst = worst.max(difference);
            assert!(
                difference < tolerance,
                "{arch} in {kind:?}, round {round}, sequence {i}: off by {difference}"
            );
        }
    }
    println!("{arch} in {kind:?} beside the CPU: off by at most {worst}");
}

/// A checkpoint or an adapter with its matrices rounded to a type, as the card holds them.
fn rounded(dir: &Path, kind: Type) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let file = entry.unwrap().path();
        let copy = to.path().join(file.file_name().unwrap());
        if file.extension().is_none_or(|extension| extension != "safetensors") {
            std::fs::copy(&file, copy).unwrap();
            continue;
        }
        let bytes = std::fs::read(&file).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let round = |x: f32| match kind {
            Type::Bf16 => half::bf16::from_f32(x).to_f32(),
            Type::F16 => half::f16::from_f32(x).to_f32(),
        };
        let data: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = tensors
            .iter()
            .map(|(name, tensor)| {
                let is_matrix = tensor.dtype() == Dtype::F32 && tensor.shape().len() > 1;
                let data = match is_matrix {
                    true => tensor
                        .data()
                        .chunks_exact(4)
                        .flat_map(|b| round(f32::from_le_bytes(b.try_into().unwrap())).to_le_bytes())
                        .collect(),
                    false => tensor.data().to_vec(),
                };
                (name.to_string(), tensor.dtype(), tensor.shape().to_vec(), data)
            })
            .collect();
        let views = data.iter().map(|(name, dtype, shape, data)| {
            (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        safetensors::serialize_to_file(views, None, &copy).unwrap();
    }
    to
}

/// How far the CPU's f32 arithmetic lands from the reference when nothing but the weights is rounded: what of the
/// card's difference is the type's own, whatever the kernels do.
#[test]
fn rounded_weights_alone() {
    for arch in ["qwen2", "llama", "qwen3", "gemma3"] {
        for kind in [Type::Bf16, Type::F16] {
            let dir = fixture(arch);
            let meta: Value =
                serde_json::from_slice(&std::fs::read(dir.join("golden.json")).unwrap()).unwrap();
            let bytes = std::fs::read(dir.join("golden.safetensors")).unwrap();
            let golden = SafeTensors::deserialize(&bytes).unwrap();
            let base = rounded(&dir.join("base"), kind);
            let checkpoint = Checkpoint::open(base.path()).unwrap();
            let model = model::Model::load(&checkpoint, &options(), &mut |_| ()).unwrap();
            let mut executor = CpuExecutor::new(model);
            let mut worst = 0f32;
            for tag in ["base", "concept", "relationship", "attribute"] {
                let adapter = (tag != "base").then(|| {
                    let adapter = rounded(&dir.join(format!("adapter_{tag}")), kind);
                    let adapter = Adapter::load(adapter.path(), checkpoint.config()).unwrap();
                    executor.add_adapter(Arc::new(adapter)).unwrap()
                });
                for i in 0..meta["greedy"][tag].as_array().unwrap().len() {
                    let prompt: Vec<u32> = serde_json::from_value(meta["prompts"][i].clone()).unwrap();
                    let tensor = golden.tensor(&format!("{tag}.{i}.last_logits")).unwrap();
                    let reference: Vec<f32> = tensor
                        .data()
                        .chunks_exact(4)
                        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                        .collect();
                    let mut sequence = Sequence { past: 0, home: 8 * i as u32, adapter };
                    let logits = step(&mut executor, &mut [(&mut sequence, &prompt)]).remove(0);
                    worst = worst.max(off(&logits, &reference));
                }
            }
            println!("{arch} on the CPU with weights in {kind:?}: off by at most {worst}");
            let tolerance = WEIGHTS[kind as usize];
            assert!(worst < tolerance, "{arch} in {kind:?}: {worst}");
        }
    }
}

fn check(arch: &str) {
    for (kind, tolerance) in TOLERANCES {
        check_golden(arch, kind, tolerance);
        check_beside_cpu(arch, kind, tolerance);
    }
}

#[test]
fn qwen2_on_the_card() {
    check("qwen2");
}

#[test]
fn llama_on_the_card() {
    check("llama");
}

#[test]
fn qwen3_on_the_card() {
    check("qwen3");
}

/// With a window of 8 in the first layer.
#[test]
fn gemma3_on_the_card() {
    check("gemma3");
}

/// A slot is free again after its adapter went, and the next one's matrices count.
#[test]
fn adapters_come_and_go() {
    let Some(card) = card() else { return };
    let mut executor = on_card(card, "qwen2", Type::F16);
    let prompt = [5, 9, 100, 7];
    let run = |executor: &mut CudaExecutor, adapter| {
        step(executor, &mut [(&mut Sequence { past: 0, home: 0, adapter }, &prompt)]).remove(0)
    };
    let plain = run(&mut executor, None);
    let first = add(&mut executor, "qwen2", "concept");
    let changed = run(&mut executor, Some(first));
    assert!(off(&changed, &plain) > 0.05, "an adapter changes the logits");
    let before = executor.memory_bytes();
    executor.remove_adapter(first);
    assert!(executor.memory_bytes() < before);
    let second = add(&mut executor, "qwen2", "relationship");
    assert_eq!(first, second);
    assert!(off(&run(&mut executor, Some(second)), &changed) > 0.05, "the other adapter's matrices");
    assert_eq!(run(&mut executor, None), plain);
}

/// Tokens chosen on the card are those that its logits choose, step by step, launched one by one, recorded and replayed.
#[test]
fn the_card_chooses_as_its_logits_say() {
    let Some(card) = card() else { return };
    let mut executor = on_card(card, "qwen2", Type::F16);
    let vocab = executor.vocab_size();
    let mut choice = toktrie::SimpleVob::alloc(vocab);
    (0..vocab as u32).filter(|token| token % 3 == 1).for_each(|token| choice.allow_token(token));
    let choice = Choice::Mask(choice);
    let Choice::Mask(mask) = &choice else { unreachable!() };
    for round in 0..6u32 {
        let mut batch = Batch::default();
        for i in 0..5u32 {
            let past = 3 + round + i;
            batch.spans.push(Span {
                first_row: i,
                n_tokens: 1,
                past,
                first_block: batch.blocks.len() as u32,
                n_blocks: 1,
                adapter: None,
            });
            batch.blocks.push(8 * i);
            batch.tokens.push(7 * i + round);
            batch.logit_rows.push(i);
        }
        let rows: Vec<Vec<f32>> =
            executor.forward(&batch).unwrap().chunks(vocab).map(<[f32]>::to_vec).collect();
        let asks = [
            Ask::Best { allowed: None, weighs: false },
            Ask::Best { allowed: Some(mask.as_slice()), weighs: true },
            Ask::Logits,
            Ask::Best { allowed: Some(mask.as_slice()), weighs: false },
            Ask::Best { allowed: Some(&mask.as_slice()[..1]), weighs: true },
        ];
        let device = executor.choosing().unwrap();
        device.begin(&batch).unwrap();
        let chosen = device.choose(&asks).unwrap();
        assert!(!chosen.device_time.is_zero());
        let greedy = Sampling::default();
        for (row, (ask, answer)) in rows.iter().zip(asks.iter().zip(chosen.answers)) {
            match (ask, answer) {
                (Ask::Logits, Answer::Logits(got)) => assert_eq!(got, row),
                (Ask::Best { allowed, weighs }, Answer::Best { token, log_share }) => {
                    let row = match allowed {
                        Some(words) => &row[..row.len().min(32 * words.len())],
                        None => &row[..],
                    };
                    let choice = allowed.map(|_| &choice);
                    assert_eq!(token, sampling::sample(row, choice, &greedy, 0).unwrap());
                    if *weighs {
                        let want = sampling::branch(row, choice.unwrap(), token, 0).unwrap().logprob;
                        assert!((log_share - want).abs() < 1e-4, "{log_share} for {want}");
                    }
                }
                (ask, answer) => panic!("{answer:?} to {ask:?}"),
            }
        }
    }
}
