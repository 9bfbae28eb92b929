//! Whole forward passes by what is in the batch.
//!
//! `cargo bench --bench step [-- THREADS]` prints a table. `ADIT_TEST_GGUF=<file>` takes a checkpoint; without one,
//! random f32 weights of a few layers. "Shared" sequences have all but their last 96 positions in common.
#![allow(clippy::unwrap_used)]

#[path = "../tests/support/tiny.rs"]
mod tiny;

use std::time::Instant;

use adit::nn::batch::{Batch, Span};
use adit::nn::model::{LoadOptions, Model};
use adit::nn::weights::checkpoint::Checkpoint;

use tiny::{Arch, Tiny};

const BLOCK: usize = 16;
const CONTEXT: usize = 640;
const SEQUENCES: usize = 64;
/// Blocks of a sequence's own, and of the head that sequences may share.
const OWN: usize = CONTEXT / BLOCK;
const RUNS: usize = 9;

fn main() {
    let threads = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(0);
    let dir = tempfile::tempdir().unwrap();
    let path = match std::env::var_os("ADIT_TEST_GGUF") {
        Some(path) => path.into(),
        None => Tiny::new(Arch::Llama, 1).width(512, 1536).layers(4).context(2_048).write(dir.path()),
    };
    let checkpoint = Checkpoint::open(&path).unwrap();
    let options = LoadOptions {
        threads,
        kv_tokens: (SEQUENCES + 1) * CONTEXT,
        context_tokens: 2_048,
        ..LoadOptions::default()
    };
    let begun = Instant::now();
    let mut model = Model::load(&checkpoint, &options, &mut |_| ()).unwrap();
    let load_s = begun.elapsed().as_secs_f64();
    println!("{:?}, {} MiB, loaded in {load_s:.2} s", model.isa(), model.memory_bytes() >> 20);
    println!("{:>28} {:>6} {:>8} {:>10} {:>10}", "batch", "rows", "logits", "ms", "rows/s");
    let sized = |n_sequences, past, rows, shared, logits| Part { n_sequences, past, rows, shared, logits };
    for (name, parts) in [
        ("prompt", vec![sized(1, 0, 512, 0, 1)]),
        ("prompt behind 384", vec![sized(4, 384, 128, 384, 1)]),
        ("1 decodes at 512", vec![sized(1, 512, 1, 0, 1)]),
        ("8 decode at 512", vec![sized(8, 512, 1, 0, 1)]),
        ("16 decode at 512", vec![sized(16, 512, 1, 0, 1)]),
        ("32 decode at 512", vec![sized(32, 512, 1, 0, 1)]),
        ("64 decode at 512", vec![sized(64, 512, 1, 0, 1)]),
        ("32 decode at 512, shared", vec![sized(32, 512, 1, 416, 1)]),
        ("64 decode at 512, shared", vec![sized(64, 512, 1, 416, 1)]),
        ("64 forced 3 at 512, shared", vec![sized(64, 512, 3, 416, 0)]),
    ] {
        let batch = batch(&parts);
        let vocab = model.config().vocab;
        let mut times: Vec<f64> = (0..RUNS)
            .map(|_| {
                let begun = Instant::now();
                let logits = model.forward(&batch).unwrap();
                assert_eq!(logits.len(), batch.logit_rows.len() * vocab);
                begun.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let (rows, ms) = (batch.n_rows(), times[RUNS / 2]);
        println!(
            "{name:>28} {rows:>6} {:>8} {ms:>10.2} {:>10.0}",
            batch.logit_rows.len(),
            rows as f64 / ms * 1e3
        );
    }
}

struct Part {
    n_sequences: usize,
    past: usize,
    rows: usize,
    /// Positions in blocks that all sequences have in common.
    shared: usize,
    /// Last rows of each sequence whose logits are wanted.
    logits: usize,
}

fn batch(parts: &[Part]) -> Batch {
    let mut batch = Batch::default();
    let mut n_before = 0;
    for part in parts {
        for sequence in n_before..n_before + part.n_sequences {
            let n_blocks = (part.past + part.rows).div_ceil(BLOCK);
            batch.spans.push(Span {
                first_row: batch.tokens.len() as u32,
                n_tokens: part.rows as u32,
                past: part.past as u32,
                first_block: batch.blocks.len() as u32,
                n_blocks: n_blocks as u32,
                adapter: None,
            });
            let home = |index: usize| if index < part.shared / BLOCK { 0 } else { (sequence + 1) * OWN };
            batch.blocks.extend((0..n_blocks).map(|index| (home(index) + index) as u32));
            batch.tokens.extend((0..part.rows).map(|row| ((row * 37 + sequence * 11) % 300) as u32));
            let end = batch.tokens.len();
            batch.logit_rows.extend((end - part.logits..end).map(|row| row as u32));
        }
        n_before += part.n_sequences;
    }
    batch
}
