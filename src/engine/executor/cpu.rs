//! The executor over our own CPU numerics.

use std::sync::Arc;

use super::{Executor, ExecutorError};
use crate::nn;
use crate::nn::batch::Batch;
use crate::nn::model::Model;
use crate::nn::weights::adapter::Adapter;

pub struct CpuExecutor {
    model: Model,
}

impl CpuExecutor {
    pub fn new(model: Model) -> Self {
        Self { model }
    }
}

impl Executor for CpuExecutor {
    fn vocab_size(&self) -> usize {
        self.model.config().vocab
    }

    fn block_tokens(&self) -> usize {
        self.model.block_tokens()
    }

    fn n_blocks(&self) -> usize {
        self.model.n_blocks()
    }

    fn context_tokens(&self) -> usize {
        self.model.context_tokens()
    }

    fn max_rows(&self) -> usize {
        self.model.max_rows()
    }

    fn forward(&mut self, batch: &Batch) -> Result<&[f32], ExecutorError> {
        self.model.forward(batch).map_err(translate)
    }

    fn add_adapter(&mut self, adapter: Arc<Adapter>) -> Result<u32, ExecutorError> {
        self.model.add_adapter(adapter).map_err(translate)
    }

    fn remove_adapter(&mut self, slot: u32) {
        self.model.remove_adapter(slot);
    }

    fn merge_adapter(&mut self, slot: u32) -> Result<(), ExecutorError> {
        self.model.merge(slot).map_err(translate)
    }

    fn merged_slot(&self) -> Option<u32> {
        self.model.merged_slot()
    }
}

fn translate(error: nn::Error) -> ExecutorError {
    match error {
        nn::Error::OutOfMemory { .. } => ExecutorError::OutOfMemory(error.to_string()),
        other => ExecutorError::Device(other.to_string()),
    }
}
