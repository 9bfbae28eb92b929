//! Numerics: checkpoints read, weights packed, one forward pass over a ragged batch.
//!
//! Knows tensors and batches. Never knows requests, sampling or text.

pub mod batch;
pub mod weights;
