//! KV blocks: who holds them, and which of them another sequence may use again.
//!
//! Invariants: a block is free, cached (nobody holds it, its content is known) or held; a block with a known
//! content is never written again until it was evicted; only the holder of an unshared block writes it.
//! Knows token ids and block numbers. Never knows sequences or tensors.

mod pool;
mod prefix;

pub use pool::{Block, BlockTable, Pool};
pub use prefix::{BlockHash, PrefixHasher};
