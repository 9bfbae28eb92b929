//! A deterministic executor without a model, for tests of everything above it.
//!
//! It keeps a real paged cache (one word per position instead of K and V), and a row's logits are a hash of
//! what the block table leads to. So a wrong block, a position written twice or a prefix shared by mistake
//! shows as a wrong token. Faults and time are planted by step number and by cost.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Choosing, Chosen, Executor, ExecutorError};
use crate::nn::batch::{Batch, Span};
use crate::nn::choice::{Answer, Ask};
use crate::nn::weights::adapter::Adapter;

/// What goes wrong in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Of a batch of one row, nothing: it always fits (but see `rows_that_fit`).
    OutOfMemory,
    Device,
    Panic,
    /// Logits that are not numbers.
    NotFinite,
}

#[derive(Clone, Debug)]
pub struct FakeOptions {
    pub vocab_size: usize,
    pub block_tokens: usize,
    pub n_blocks: usize,
    pub context_tokens: usize,
    pub max_rows: usize,
    pub seed: u64,
    /// By number of the call of `forward`, from 0.
    pub faults: HashMap<u64, Fault>,
    /// Batches of more rows end with `OutOfMemory`.
    pub rows_that_fit: usize,
    /// Time of a step: a fixed part and a part per row.
    pub step_cost: Duration,
    pub row_cost: Duration,
    /// Added to these tokens' logits in every row.
    pub bias: Vec<(u32, f32)>,
    /// Tokens are chosen by the executor itself, as a card does.
    pub chooses: bool,
    /// First tokens of the sequences in the order in which they began. A step waits while this is locked.
    pub begun: Arc<Mutex<Vec<u32>>>,
}

impl Default for FakeOptions {
    fn default() -> Self {
        Self {
            vocab_size: 256,
            block_tokens: 4,
            n_blocks: 256,
            context_tokens: 512,
            max_rows: 512,
            seed: 1,
            faults: HashMap::new(),
            rows_that_fit: usize::MAX,
            step_cost: Duration::ZERO,
            row_cost: Duration::ZERO,
            bias: Vec::new(),
            chooses: false,
            begun: Arc::default(),
        }
    }
}

pub struct FakeExecutor {
    options: FakeOptions,
    /// One word per position of the pool: a hash of token, position and adapter.
    cache: Vec<u64>,
    logits: Vec<f32>,
    n_steps: u64,
    n_adapters: u32,
    merged: Option<u32>,
}

impl FakeExecutor {
    pub fn new(options: FakeOptions) -> Self {
        let cache = vec![0; options.n_blocks * options.block_tokens];
        Self { options, cache, logits: Vec::new(), n_steps: 0, n_adapters: 0, merged: None }
    }

    /// The answer that a greedy run without a grammar must give, computed without any cache.
    pub fn expected(
        options: &FakeOptions,
        prompt: &[u32],
        adapter: Option<u32>,
        n_tokens: usize,
    ) -> Vec<u32> {
        let mut tokens = prompt.to_vec();
        let mut row = vec![0.0; options.vocab_size];
        for _ in 0..n_tokens {
            let words = tokens.iter().enumerate().map(|(position, &token)| word(token, position, adapter));
            fill_row(options, words, &mut row);
            let mut best = 0;
            for (token, logit) in row.iter().enumerate() {
                if *logit > row[best] {
                    best = token;
                }
            }
            tokens.push(best as u32);
        }
        tokens.split_off(prompt.len())
    }

    fn slot(&self, batch: &Batch, span: &Span, position: usize) -> usize {
        let block = batch.blocks_of(span)[position / self.options.block_tokens] as usize;
        assert!(block < self.options.n_blocks, "block {block} is not in the pool");
        block * self.options.block_tokens + position % self.options.block_tokens
    }

    /// Spans must not write what another span of the batch reads or writes.
    fn check(&self, batch: &Batch) {
        assert!(batch.n_rows() <= self.options.max_rows, "too many rows");
        let mut written = HashSet::new();
        for span in &batch.spans {
            let (past, end) = (span.past as usize, (span.past + span.n_tokens) as usize);
            assert!(span.n_tokens > 0 && end <= self.options.context_tokens, "a span of {past}..{end}");
            assert_eq!(
                span.n_blocks as usize,
                end.div_ceil(self.options.block_tokens),
                "block table's length"
            );
            for position in past..end {
                assert!(written.insert(self.slot(batch, span, position)), "a position is written twice");
            }
        }
        for span in &batch.spans {
            for position in 0..span.past as usize {
                assert!(!written.contains(&self.slot(batch, span, position)), "a shared block is written");
            }
        }
    }
}

impl Executor for FakeExecutor {
    fn vocab_size(&self) -> usize {
        self.options.vocab_size
    }

    fn block_tokens(&self) -> usize {
        self.options.block_tokens
    }

    fn n_blocks(&self) -> usize {
        self.options.n_blocks
    }

    fn context_tokens(&self) -> usize {
        self.options.context_tokens
    }

    fn max_rows(&self) -> usize {
        self.options.max_rows
    }

    fn forward(&mut self, batch: &Batch) -> Result<&[f32], ExecutorError> {
        if let Ok(mut begun) = self.options.begun.lock() {
            begun.extend(
                batch
                    .spans
                    .iter()
                    .filter(|span| span.past == 0)
                    .map(|span| batch.tokens[span.first_row as usize]),
            );
        }
        let step = self.n_steps;
        self.n_steps += 1;
        self.check(batch);
        let cost = self.options.step_cost + self.options.row_cost * batch.n_rows() as u32;
        if !cost.is_zero() {
            std::thread::sleep(cost);
        }
        let fault = self.options.faults.get(&step).copied();
        match fault {
            Some(Fault::OutOfMemory) if batch.n_rows() > 1 => {
                return Err(ExecutorError::OutOfMemory("planted".into()));
            }
            Some(Fault::Device) => return Err(ExecutorError::Device("planted".into())),
            Some(Fault::Panic) => panic!("planted"),
            Some(Fault::OutOfMemory | Fault::NotFinite) | None => {}
        }
        if batch.n_rows() > self.options.rows_that_fit {
            return Err(ExecutorError::OutOfMemory(format!("{} rows", batch.n_rows())));
        }
        for span in &batch.spans {
            for row in 0..span.n_tokens as usize {
                let position = span.past as usize + row;
                let slot = self.slot(batch, span, position);
                self.cache[slot] = word(batch.tokens[span.first_row as usize + row], position, span.adapter);
            }
        }
        let width = self.options.vocab_size;
        let mut logits = std::mem::take(&mut self.logits);
        logits.resize(batch.logit_rows.len() * width, 0.0);
        for (&row, out) in batch.logit_rows.iter().zip(logits.chunks_exact_mut(width)) {
            let span = batch
                .spans
                .iter()
                .find(|span| (span.first_row..span.first_row + span.n_tokens).contains(&row));
            let span = span.expect("a row of logits lies in a span");
            let last = (span.past + row - span.first_row) as usize;
            let words = (0..=last).map(|position| self.cache[self.slot(batch, span, position)]);
            fill_row(&self.options, words, out);
        }
        if fault == Some(Fault::NotFinite) {
            logits.fill(f32::NAN);
        }
        self.logits = logits;
        Ok(&self.logits)
    }

    fn choosing(&mut self) -> Option<&mut dyn Choosing> {
        if self.options.chooses { Some(self) } else { None }
    }

    fn add_adapter(&mut self, _adapter: Arc<Adapter>) -> Result<u32, ExecutorError> {
        self.n_adapters += 1;
        Ok(self.n_adapters - 1)
    }

    fn remove_adapter(&mut self, slot: u32) {
        self.merged = self.merged.filter(|merged| *merged != slot);
    }

    fn merge_adapter(&mut self, slot: u32) -> Result<(), ExecutorError> {
        self.merged = Some(slot);
        Ok(())
    }

    fn merged_slot(&self) -> Option<u32> {
        self.merged
    }
}

impl Choosing for FakeExecutor {
    fn begin(&mut self, batch: &Batch) -> Result<(), ExecutorError> {
        self.forward(batch).map(|_| ())
    }

    fn choose(&mut self, asks: &[Ask]) -> Result<Chosen<'_>, ExecutorError> {
        let rows = self.logits.chunks_exact(self.options.vocab_size);
        assert_eq!(rows.len(), asks.len(), "an ask for each row of logits");
        let answers = rows.zip(asks).map(|(row, ask)| match ask {
            Ask::Logits => Answer::Logits(row),
            Ask::Best { allowed, .. } => best(row, *allowed),
        });
        Ok(Chosen { answers: answers.collect(), device_time: Duration::ZERO })
    }
}

/// The first of the largest allowed, and its share among them.
fn best(row: &[f32], allowed: Option<&[u32]>) -> Answer<'static> {
    let is_allowed = |token: usize| {
        allowed.is_none_or(|words| words.get(token / 32).is_some_and(|word| word >> (token % 32) & 1 == 1))
    };
    let open: Vec<usize> = (0..row.len()).filter(|token| is_allowed(*token)).collect();
    let Some(first) = open.first() else { return Answer::NotFinite };
    let best = open.iter().fold(*first, |best, token| if row[*token] > row[best] { *token } else { best });
    if open.iter().any(|token| row[*token].is_nan()) || !row[best].is_finite() {
        return Answer::NotFinite;
    }
    let sum: f64 = open.iter().map(|token| f64::from(row[*token] - row[best]).exp()).sum();
    Answer::Best { token: best as u32, log_share: -sum.ln() as f32 }
}

fn word(token: u32, position: usize, adapter: Option<u32>) -> u64 {
    mix(u64::from(token) ^ mix(position as u64 ^ mix(adapter.map_or(u64::MAX, u64::from))))
}

fn fill_row(options: &FakeOptions, words: impl Iterator<Item = u64>, row: &mut [f32]) {
    let state = words.fold(options.seed, |state, word| mix(state ^ word));
    for (token, logit) in row.iter_mut().enumerate() {
        *logit = (mix(state ^ token as u64) >> 40) as f32 / (1 << 20) as f32;
    }
    for &(token, bias) in &options.bias {
        row[token as usize] += bias;
    }
}

fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
