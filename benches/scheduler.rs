//! What a step costs besides the forward pass: planning, KV bookkeeping, batch layout, greedy sampling.
//!
//! `cargo bench --bench scheduler` prints a table. The executor is the fake one, whose own time (hashing a row
//! of logits) is measured by the engine and taken off.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Instant;

use adit::engine::executor::fake::{FakeExecutor, FakeOptions};
use adit::engine::handle::{Options, spawn};
use adit::engine::request::{Request, Sampling};
use adit::engine::scheduler::plan::{Limits, Running, Waiting, plan};

fn main() {
    println!("plan alone, all decoding, 64 waiting");
    println!("{:>10} {:>12}", "sequences", "us");
    for n in [64, 256, 1024] {
        println!("{n:>10} {:>12.1}", plan_us(n));
    }
    println!();
    println!("whole step without the forward pass, 32 tokens decoded each");
    println!("{:>10} {:>12} {:>12} {:>14}", "sequences", "vocabulary", "steps", "us per step");
    for n in [64, 256] {
        for vocab_size in [1_024, 49_152] {
            let (steps, us) = step_us(n, vocab_size);
            println!("{n:>10} {vocab_size:>12} {steps:>12} {us:>14.1}");
        }
    }
}

fn plan_us(n: usize) -> f64 {
    let running: Vec<Running> = (0..n as u64)
        .map(|id| Running {
            id,
            priority: 0,
            group: id % 7,
            computed: 500,
            pending: 1,
            expected: 60,
            blocks: 32,
            unshared_blocks: 8,
            is_decoding: true,
            served_at: 9,
        })
        .collect();
    let waiting: Vec<Waiting> = (0..64)
        .map(|id| Waiting {
            id: 10_000 + id,
            priority: 0,
            group: id,
            tokens: 500,
            hit_tokens: 384,
            revived_blocks: 0,
            expected: 128,
        })
        .collect();
    let limits = Limits { rows: n + 512, sequences: n + 64, block_tokens: 16, blocks: 100_000 };
    let rounds = 500;
    let started = Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(plan(&limits, std::hint::black_box(&running), &waiting));
    }
    started.elapsed().as_secs_f64() * 1e6 / f64::from(rounds)
}

fn step_us(n: usize, vocab_size: usize) -> (u64, f64) {
    let fake = FakeOptions {
        vocab_size,
        block_tokens: 16,
        n_blocks: 20_000,
        context_tokens: 4_096,
        max_rows: 4_096,
        ..FakeOptions::default()
    };
    let options = Options { max_step_tokens: 4_096, max_sequences: n, ..Options::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stats = runtime.block_on(async {
        let handle = spawn(Box::new(FakeExecutor::new(fake)), options);
        let calls = (0..n as u32).map(|sequence| {
            let mut prompt = vec![7; 384];
            prompt.extend([sequence, 1, 2, 3]);
            handle.generate(Request {
                prompt: Arc::from(prompt),
                adapter: None,
                grammar: None,
                sampling: Sampling::default(),
                max_tokens: 32,
                stop: Arc::from([]),
                priority: 0,
                group: u64::from(sequence % 5),
                logprobs: None,
                branches: false,
            })
        });
        for answer in futures::future::join_all(calls).await {
            answer.unwrap();
        }
        handle.stats()
    });
    (stats.steps, (stats.step_ms_sum - stats.forward_ms_sum) * 1e3 / stats.steps as f64)
}
