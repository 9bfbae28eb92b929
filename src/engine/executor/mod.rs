//! The seam between scheduling and numerics.

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod fake;

use std::sync::Arc;
use std::time::Duration;

use crate::nn::batch::Batch;
use crate::nn::choice::{Answer, Ask};

/// A loaded base that runs ragged batches over its own KV pool. Owned by the engine's thread.
pub trait Executor: Send {
    /// Size of the vocabulary: width of a row of logits.
    fn vocab_size(&self) -> usize;

    /// Token positions in one KV block.
    fn block_tokens(&self) -> usize;

    /// KV blocks in the pool.
    fn n_blocks(&self) -> usize;

    /// Longest sequence, in tokens.
    fn context_tokens(&self) -> usize;

    /// Most rows of one batch.
    fn max_rows(&self) -> usize;

    /// Runs one step: writes the new positions' K and V into the pool and returns the logits of
    /// `batch.logit_rows`, `[n_logits, vocab_size]` row-major, f32. The slice lives until the next call.
    fn forward(&mut self, batch: &Batch) -> Result<&[f32], ExecutorError>;

    /// The device's own choice of tokens, where it has one; others have theirs chosen from logits.
    fn choosing(&mut self) -> Option<&mut dyn Choosing> {
        None
    }

    /// Takes an adapter in and returns its slot.
    fn add_adapter(
        &mut self,
        adapter: Arc<crate::nn::weights::adapter::Adapter>,
    ) -> Result<u32, ExecutorError>;

    /// Frees an adapter's slot, and what was merged of it. No sequence uses it any more.
    fn remove_adapter(&mut self, slot: u32);

    /// Merges a slot's adapter into a copy of the base, in place of one merged before: from then on, batches in
    /// which every row uses it run on the copy. Takes some time.
    fn merge_adapter(&mut self, _slot: u32) -> Result<(), ExecutorError> {
        Err(ExecutorError::Device("it cannot merge adapters".into()))
    }

    /// Slot of the adapter that is merged.
    fn merged_slot(&self) -> Option<u32> {
        None
    }
}

/// Chooses tokens where the logits are, so that they need not come back; and lets the caller work while it works.
pub trait Choosing {
    /// Starts a step and returns.
    fn begin(&mut self, batch: &Batch) -> Result<(), ExecutorError>;

    /// Waits for the step and answers one ask for each of its `logit_rows`.
    fn choose(&mut self, asks: &[Ask]) -> Result<Chosen<'_>, ExecutorError>;
}

pub struct Chosen<'a> {
    pub answers: Vec<Answer<'a>>,
    /// What the device spent on the step.
    pub device_time: Duration,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The batch did not fit the device's memory; a smaller one may.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    #[error("{0}")]
    Device(String),
}
