//! Chained hashes of full blocks: a block's hash stands for all tokens up to its end, and the adapter.

use std::hash::{BuildHasher, Hasher, RandomState};

use crate::engine::request::AdapterId;

pub type BlockHash = u64;

/// Hashes with a key of this process, so that no client can aim for a collision; the pool compares the
/// block's own tokens on top.
#[derive(Clone, Default)]
pub struct PrefixHasher {
    key: RandomState,
}

impl PrefixHasher {
    /// Extends `hashes` by those of the full blocks of `tokens` that it lacks.
    pub fn extend(
        &self,
        hashes: &mut Vec<BlockHash>,
        adapter: Option<AdapterId>,
        tokens: &[u32],
        block_tokens: usize,
    ) {
        for block in tokens.chunks_exact(block_tokens).skip(hashes.len()) {
            let mut hasher = self.key.build_hasher();
            match hashes.last() {
                Some(&parent) => hasher.write_u64(parent),
                None => hasher.write_u64(adapter.map_or(u64::MAX, |id| u64::from(id.0))),
            }
            for &token in block {
                hasher.write_u32(token);
            }
            hashes.push(hasher.finish());
        }
    }
}
