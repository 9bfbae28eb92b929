//! A model with the block bookkeeping of a very small scheduler.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use adit::nn::batch::{Batch, Span};
use adit::nn::cache::KvType;
use adit::nn::model::{LoadOptions, Model};
use adit::nn::weights::adapter::Adapter;
use adit::nn::weights::checkpoint::Checkpoint;

pub const BLOCK: usize = 16;
/// Families with a golden checkpoint.
pub const ARCHS: [&str; 4] = ["llama", "qwen2", "qwen3", "gemma3"];

pub fn fixture(arch: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(arch)
}

/// With K and V as computed: what the references do.
pub fn load(path: &Path) -> Model {
    load_with(path, KvType::F32)
}

pub fn load_with(path: &Path, kv_type: KvType) -> Model {
    let checkpoint = Checkpoint::open(path).unwrap();
    let options = LoadOptions {
        threads: 2,
        block_tokens: BLOCK,
        kv_tokens: 1024,
        kv_type,
        max_rows: 64,
        context_tokens: 128,
    };
    let mut read = 0;
    let model = Model::load(&checkpoint, &options, &mut |bytes| read += bytes).unwrap();
    assert_eq!(read, checkpoint.load_bytes(), "progress adds up to the bytes read");
    model
}

/// Adds an adapter of the fixture and returns its slot.
pub fn add(model: &mut Model, arch: &str, kind: &str) -> u32 {
    let dir = fixture(arch).join(format!("adapter_{kind}"));
    let adapter = Adapter::load(&dir, model.config()).unwrap();
    assert_eq!(adapter.bytes(), Adapter::inspect(&dir).unwrap());
    model.add_adapter(Arc::new(adapter)).unwrap()
}

/// A sequence: its tokens in the cache and its blocks, four of them from `home` on.
#[derive(Clone)]
pub struct Sequence {
    pub past: usize,
    pub home: u32,
    pub adapter: Option<u32>,
}

impl Sequence {
    pub fn new(home: u32, adapter: Option<u32>) -> Self {
        Self { past: 0, home: home * 4, adapter }
    }
}

/// Appends tokens to each sequence in one step and returns the logits of each one's last row.
pub fn step(model: &mut Model, work: &mut [(&mut Sequence, &[u32])]) -> Vec<Vec<f32>> {
    let mut batch = Batch::default();
    for (sequence, tokens) in work.iter() {
        let n_blocks = (sequence.past + tokens.len()).div_ceil(BLOCK) as u32;
        assert!(n_blocks <= 4, "the harness gives a sequence four blocks");
        batch.spans.push(Span {
            first_row: batch.tokens.len() as u32,
            n_tokens: tokens.len() as u32,
            past: sequence.past as u32,
            first_block: batch.blocks.len() as u32,
            n_blocks,
            adapter: sequence.adapter,
        });
        // not in order, so that a kernel that ignores the table is wrong
        let order = [2, 0, 3, 1];
        batch.blocks.extend(order[..n_blocks as usize].iter().map(|b| sequence.home + b));
        batch.tokens.extend_from_slice(tokens);
        batch.logit_rows.push(batch.tokens.len() as u32 - 1);
    }
    let vocab = model.config().vocab;
    let logits = model.forward(&batch).unwrap().chunks(vocab).map(<[f32]>::to_vec).collect();
    for (sequence, tokens) in work.iter_mut() {
        sequence.past += tokens.len();
    }
    logits
}

/// Logits after a prompt, in one step.
pub fn prompt(model: &mut Model, tokens: &[u32], adapter: Option<u32>) -> Vec<f32> {
    step(model, &mut [(&mut Sequence::new(0, adapter), tokens)]).remove(0)
}

pub fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.unwrap().0 as u32
}

pub fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
