//! Cards as this build and machine have them: whether one can be used, its memory, and a base loaded onto it.

use half::bf16;

use super::device::{Ceilings, Loaded, Memory, Sizes};
use crate::engine::executor::cuda::CudaExecutor;
use crate::nn::Error;
use crate::nn::arch::ModelConfig;
use crate::nn::cuda::card::{self, Card};
use crate::nn::cuda::ceiling;
use crate::nn::model::LoadOptions;
use crate::nn::model::cuda::{Model, bytes};
use crate::nn::weights::checkpoint::Checkpoint;
use crate::nn::weights::dtype::DType;

/// The card's name, or why it cannot be used.
pub fn look(number: usize) -> Result<String, String> {
    match Card::count() {
        0 if std::path::Path::new("/proc/driver/nvidia/version").exists() => {
            Err("the NVIDIA driver finds no card".into())
        }
        0 => Err("there is no NVIDIA driver".into()),
        n if number >= n => Err(format!("there are {n} cards, numbered from 0")),
        _ => card::describe(number).map_err(|error| error.to_string()),
    }
}

pub fn memory(number: usize) -> Option<Memory> {
    let (available_bytes, total_bytes) = card::memory(number).ok()?;
    Some(Memory { total_bytes, available_bytes })
}

/// What a checkpoint will take there.
pub fn sizes(checkpoint: &Checkpoint, max_rows: usize, logit_rows: usize) -> Sizes {
    let (weights_bytes, activation_bytes) = bytes(checkpoint.config(), max_rows, logit_rows);
    let kv_bytes_per_token = (checkpoint.config().n_layers * checkpoint.config().kv_dim() * 2 * 2) as u64;
    Sizes { weights_bytes, activation_bytes, kv_bytes_per_token }
}

/// In f16 where the checkpoint is, else in bf16.
pub fn load(
    number: usize,
    checkpoint: &Checkpoint,
    options: &LoadOptions,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Loaded, Error> {
    let card = Card::open(number)?;
    let executor = if checkpoint.tensors().iter().any(|tensor| tensor.dtype == DType::F16) {
        CudaExecutor::F16(Box::new(Model::load(card, checkpoint, options, on_bytes)?))
    } else {
        CudaExecutor::Bf16(Box::new(Model::load(card, checkpoint, options, on_bytes)?))
    };
    let (config, memory_bytes) = (executor.config().clone(), executor.memory_bytes());
    Ok(Loaded { executor: Box::new(executor), config, memory_bytes })
}

/// Random weights in bf16. The pool is cut to what is left beside them.
pub fn random(number: usize, config: &ModelConfig, options: &LoadOptions) -> Result<Loaded, Error> {
    let card = Card::open(number)?;
    let (weights_bytes, activation_bytes) = bytes(config, options.max_rows, options.max_rows);
    let left = card.memory()?.0.saturating_sub(weights_bytes + activation_bytes + (2 << 30));
    let per_token = (config.n_layers * config.kv_dim() * 2 * 2) as u64;
    let kv_tokens = usize::try_from(left / per_token).unwrap_or(usize::MAX).min(options.kv_tokens);
    let options =
        LoadOptions { kv_tokens: kv_tokens / options.block_tokens * options.block_tokens, ..options.clone() };
    let model = Model::<bf16>::random(card, config, &options, 1)?;
    let (config, memory_bytes) = (model.config().clone(), model.memory_bytes());
    Ok(Loaded { executor: Box::new(CudaExecutor::Bf16(Box::new(model))), config, memory_bytes })
}

pub fn ceilings(number: usize) -> Result<Ceilings, Error> {
    let card = Card::open(number)?;
    Ok(Ceilings { gb_s: ceiling::gb_s(&card)?, product_tflop_s: ceiling::product_tflop_s(&card)? })
}
