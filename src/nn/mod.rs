//! Numerics: checkpoints read, weights packed, one forward pass over a ragged batch.
//!
//! [`weights`] reads files (headers first), [`arch`] knows what a family of models computes and what its
//! tensors are called, [`cpu`] holds the kernels, [`cache`] the paged KV pool, and [`model`] puts them
//! together: `Model::load`, then `Model::forward` over a [`batch`].
//!
//! Knows tensors and batches. Never knows requests, sampling or text.
//!
//! Invariants: a row's numbers are bitwise the same alone and in any batch, because every reduction runs
//! in an order fixed by positions, never by the batch; a step allocates nothing (scratch is sized at
//! load, the logits buffer grows to the largest request once); dropping a model frees all it held. One
//! exception is asked for by a setting: rows that run on a copy with their adapter merged in are rounded
//! otherwise than beside the base.

pub mod arch;
pub mod batch;
pub mod cache;
pub mod choice;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod error;
pub mod model;
pub mod weights;

pub use error::Error;
