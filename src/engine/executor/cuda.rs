//! The executor over a card.

use std::sync::Arc;
use std::time::Duration;

use half::{bf16, f16};

use super::{Choosing, Chosen, Executor, ExecutorError};
use crate::nn;
use crate::nn::arch::ModelConfig;
use crate::nn::batch::Batch;
use crate::nn::choice::Ask;
use crate::nn::model::cuda::Model;
use crate::nn::weights::adapter::Adapter;

/// A model in the type of its weights.
pub enum CudaExecutor {
    Bf16(Box<Model<bf16>>),
    F16(Box<Model<f16>>),
}

/// Does the same with a model of either type.
macro_rules! with {
    ($executor:expr, $model:ident => $what:expr) => {
        match $executor {
            CudaExecutor::Bf16($model) => $what,
            CudaExecutor::F16($model) => $what,
        }
    };
}

impl CudaExecutor {
    pub fn config(&self) -> &ModelConfig {
        with!(self, model => model.config())
    }

    pub fn memory_bytes(&self) -> u64 {
        with!(self, model => model.memory_bytes())
    }
}

impl Executor for CudaExecutor {
    fn vocab_size(&self) -> usize {
        self.config().vocab
    }

    fn block_tokens(&self) -> usize {
        with!(self, model => model.block_tokens())
    }

    fn n_blocks(&self) -> usize {
        with!(self, model => model.n_blocks())
    }

    fn context_tokens(&self) -> usize {
        with!(self, model => model.context_tokens())
    }

    fn max_rows(&self) -> usize {
        with!(self, model => model.max_rows())
    }

    fn forward(&mut self, batch: &Batch) -> Result<&[f32], ExecutorError> {
        with!(self, model => model.forward(batch).map_err(translate))
    }

    fn choosing(&mut self) -> Option<&mut dyn Choosing> {
        Some(self)
    }

    fn add_adapter(&mut self, adapter: Arc<Adapter>) -> Result<u32, ExecutorError> {
        with!(self, model => model.add_adapter(&adapter).map_err(translate))
    }

    fn remove_adapter(&mut self, slot: u32) {
        with!(self, model => model.remove_adapter(slot));
    }
}

impl Choosing for CudaExecutor {
    fn begin(&mut self, batch: &Batch) -> Result<(), ExecutorError> {
        with!(self, model => model.begin(batch).map_err(translate))
    }

    fn choose(&mut self, asks: &[Ask]) -> Result<Chosen<'_>, ExecutorError> {
        let (answers, spent_ms) = with!(self, model => model.choose(asks).map_err(translate)?);
        Ok(Chosen { answers, device_time: Duration::from_secs_f32(spent_ms.max(0.0) / 1e3) })
    }
}

fn translate(error: nn::Error) -> ExecutorError {
    match error {
        nn::Error::OutOfMemory { .. } => ExecutorError::OutOfMemory(error.to_string()),
        other => ExecutorError::Device(other.to_string()),
    }
}
