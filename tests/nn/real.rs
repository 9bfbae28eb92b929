//! A real checkpoint by hand: `ADIT_TEST_GGUF=… cargo test --test nn real -- --ignored --nocapture`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use serde_json::json;

use adit::nn::arch::ModelConfig;
use adit::nn::arch::names::Module;
use adit::nn::batch::{Batch, Span};
use adit::nn::model::{LoadOptions, Model};
use adit::nn::weights::adapter::Adapter;
use adit::nn::weights::checkpoint::Checkpoint;

use super::harness::argmax;
use super::random::Random;

const SEQUENCES: usize = 32;
/// Blocks of a sequence.
const BLOCKS: usize = 20;

/// `n` rows for each of the sequences, all at the same position.
fn batch(sequences: usize, past: usize, tokens: &[Vec<u32>]) -> Batch {
    let mut batch = Batch::default();
    for (i, tokens) in tokens.iter().enumerate().take(sequences) {
        batch.spans.push(Span {
            first_row: batch.tokens.len() as u32,
            n_tokens: tokens.len() as u32,
            past: past as u32,
            first_block: batch.blocks.len() as u32,
            n_blocks: BLOCKS as u32,
            adapter: None,
        });
        batch.blocks.extend((i * BLOCKS) as u32..((i + 1) * BLOCKS) as u32);
        batch.tokens.extend_from_slice(tokens);
        batch.logit_rows.push(batch.tokens.len() as u32 - 1);
    }
    batch
}

#[test]
#[ignore = "needs a checkpoint that is not in the repository"]
fn speed_of_a_real_checkpoint() {
    let path = PathBuf::from(std::env::var_os("ADIT_TEST_GGUF").expect("ADIT_TEST_GGUF names a checkpoint"));
    let start = Instant::now();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let kv_tokens = SEQUENCES * BLOCKS * 16;
    let options = LoadOptions { kv_tokens, context_tokens: 2048, ..LoadOptions::default() };
    let mut model = Model::load(&checkpoint, &options, &mut |_| ()).unwrap();
    println!(
        "load {:.2} s, {} MiB on {:?}",
        start.elapsed().as_secs_f64(),
        model.memory_bytes() >> 20,
        model.isa()
    );

    let vocab = model.config().vocab;
    let long: Vec<u32> = (0..256).map(|i| 100 + (i * 7919) % 20_000).collect();
    let start = Instant::now();
    for pair in 0..SEQUENCES / 2 {
        let mut step = batch(2, 0, &[long.clone(), long.clone()]);
        step.blocks.iter_mut().for_each(|b| *b += (pair * 2 * BLOCKS) as u32);
        let logits = model.forward(&step).unwrap();
        assert!(logits.iter().all(|x| x.is_finite()));
        assert_eq!(logits[..vocab], logits[vocab..], "equal sequences");
    }
    let rate = (SEQUENCES * long.len()) as f64 / start.elapsed().as_secs_f64();
    println!("prompt: {rate:.0} tokens/s in steps of 512");

    for sequences in [SEQUENCES, 8, 1] {
        let mut next: Vec<Vec<u32>> = (0..sequences).map(|_| vec![100]).collect();
        let start = Instant::now();
        let steps = 24;
        for i in 0..steps {
            let logits = model.forward(&batch(sequences, 256 + i, &next)).unwrap();
            next.iter_mut().zip(logits.chunks(vocab)).for_each(|(n, l)| n[0] = argmax(l));
        }
        let rate = (steps * sequences) as f64 / start.elapsed().as_secs_f64();
        println!("decode: {rate:.0} tokens/s with {sequences} sequences at 256 positions");
    }
}

/// Greedy text after a prompt whose words are single tokens of the file's vocabulary.
#[test]
#[ignore = "needs a checkpoint that is not in the repository"]
fn text_of_a_real_checkpoint() {
    let path = PathBuf::from(std::env::var_os("ADIT_TEST_GGUF").expect("ADIT_TEST_GGUF names a checkpoint"));
    let checkpoint = Checkpoint::open(&path).unwrap();
    let words = checkpoint.gguf().unwrap().metadata["tokenizer.ggml.tokens"].to_vec().unwrap();
    let words: Vec<&str> = words.iter().map(|w| w.to_string().unwrap().as_str()).collect();
    let id = |word: &&str| words.iter().position(|w| w == word).unwrap() as u32;
    let prompt = ["The", "Ġcapital", "Ġof", "ĠFrance", "Ġis"];
    let mut tokens: Vec<u32> = prompt.iter().map(id).collect();
    let options = LoadOptions { kv_tokens: BLOCKS * 16, context_tokens: 2048, ..LoadOptions::default() };
    let mut model = Model::load(&checkpoint, &options, &mut |_| ()).unwrap();
    let (mut past, mut text) = (0, prompt.concat());
    for _ in 0..24 {
        let next = argmax(model.forward(&batch(1, past, &[tokens.clone()])).unwrap());
        past += tokens.len();
        text.push_str(words[next as usize]);
        tokens = vec![next];
    }
    println!("{}", text.replace('Ġ', " "));
    assert!(text.contains("ĠParis"));
}

/// Writes a random adapter for every linear layer of the blocks.
fn write_adapter(dir: &Path, config: &ModelConfig, rank: usize, seed: u64) {
    let targets: Vec<&str> = Module::ALL.iter().map(|module| module.as_str()).collect();
    let options = json!({"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": targets});
    std::fs::write(dir.join("adapter_config.json"), options.to_string()).unwrap();
    let mut random = Random(seed);
    let mut tensors = HashMap::new();
    for (layer, module) in (0..config.n_layers).flat_map(|layer| Module::ALL.map(|module| (layer, module))) {
        let [outputs, inputs] = module.shape(config);
        for (part, shape) in [("A", [rank, inputs]), ("B", [outputs, rank])] {
            let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| random.value() * 0.01).collect();
            let name = format!(
                "base_model.model.model.layers.{layer}.{}.{}.lora_{part}.weight",
                module.parent(),
                module.as_str()
            );
            tensors.insert(name, Tensor::from_vec(values, &shape, &Device::Cpu).unwrap());
        }
    }
    candle_core::safetensors::save(&tensors, dir.join("adapter_model.safetensors")).unwrap();
}

/// What a step costs with none, one and three adapters over all rows, and with one merged into a copy of the
/// base: medians of interleaved rounds.
#[test]
#[ignore = "needs a checkpoint that is not in the repository"]
fn cost_of_adapters_on_a_real_checkpoint() {
    const ROUNDS: usize = 15;
    let path = PathBuf::from(std::env::var_os("ADIT_TEST_GGUF").expect("ADIT_TEST_GGUF names a checkpoint"));
    let checkpoint = Checkpoint::open(&path).unwrap();
    let kv_tokens = SEQUENCES * BLOCKS * 16;
    let options = LoadOptions { kv_tokens, context_tokens: 2048, ..LoadOptions::default() };
    let mut model = Model::load(&checkpoint, &options, &mut |_| ()).unwrap();
    for rank in [16, 64] {
        let slots: Vec<u32> = (0..3)
            .map(|seed| {
                let dir = tempfile::tempdir().unwrap();
                write_adapter(dir.path(), checkpoint.config(), rank, seed);
                model.add_adapter(Arc::new(Adapter::load(dir.path(), checkpoint.config()).unwrap())).unwrap()
            })
            .collect();
        for (sequences, n, grouped) in
            [(1, 1, true), (SEQUENCES, 1, true), (SEQUENCES, 1, false), (2, 256, true)]
        {
            let rows: Vec<Vec<u32>> = (0..sequences).map(|i| vec![100 + i as u32; n]).collect();
            let mut times: [Vec<Duration>; 3] = Default::default();
            let mut merged = Vec::new();
            for round in 0..ROUNDS * 3 {
                let n_adapters = [0, 1, 3][round % 3];
                let mut step = batch(sequences, 0, &rows);
                for (i, span) in step.spans.iter_mut().enumerate() {
                    span.adapter = (n_adapters > 0)
                        .then(|| slots[if grouped { i * n_adapters / sequences } else { i % n_adapters }]);
                }
                let start = Instant::now();
                model.forward(&step).unwrap();
                times[round % 3].push(start.elapsed());
            }
            let start = Instant::now();
            model.merge(slots[0]).unwrap();
            let merge_s = start.elapsed().as_secs_f64();
            for _ in 0..ROUNDS {
                let mut step = batch(sequences, 0, &rows);
                step.spans.iter_mut().for_each(|span| span.adapter = Some(slots[0]));
                let start = Instant::now();
                model.forward(&step).unwrap();
                merged.push(start.elapsed());
            }
            model.unmerge();
            let median = |mut times: Vec<Duration>| {
                times.sort_unstable();
                times[ROUNDS / 2].as_secs_f64() * 1e3
            };
            let [none, one, three] = times.map(median);
            println!(
                "rank {rank}, {sequences} sequences of {n} rows: {none:.1} ms, one adapter {:.2} times, three {:.2} \
                 (neighbours share one: {grouped}), one merged in {merge_s:.2} s {:.2}",
                one / none,
                three / none,
                median(merged) / none
            );
        }
        slots.into_iter().for_each(|slot| model.remove_adapter(slot));
    }
}
