//! Who computes a block that is not in the cache yet, so that others who need it can wait for it.

use std::collections::{HashMap, HashSet};

use super::handle::SequenceId;
use super::kv::{BlockHash, Pool};
use super::scheduler::plan;
use super::sequence::{Sequence, Shape};

#[derive(Default)]
pub(super) struct Heads {
    computing: HashMap<BlockHash, SequenceId>,
}

impl Heads {
    /// `id` computes these; of what somebody else computes already, nothing changes.
    pub(super) fn begin(&mut self, hashes: &[BlockHash], id: SequenceId) {
        for &hash in hashes {
            self.computing.entry(hash).or_insert(id);
        }
    }

    /// These are computed, or `id` gave up.
    pub(super) fn end(&mut self, hashes: &[BlockHash], id: SequenceId) {
        for hash in hashes {
            if self.computing.get(hash) == Some(&id) {
                self.computing.remove(hash);
            }
        }
    }

    /// A request with what the cache has of it; `None` if another sequence, running or about to start, computes its
    /// head. `claimed` gathers what those about to start will compute.
    pub(super) fn look_up(
        &self,
        sequence: &Sequence,
        plain: plan::Waiting,
        pool: &Pool,
        shape: &Shape,
        claimed: &mut HashSet<BlockHash>,
    ) -> Option<plan::Waiting> {
        let hashes = sequence.shareable_hashes(shape);
        let mut hit_blocks = 0;
        let mut revived_blocks = 0;
        for (index, &hash) in hashes.iter().enumerate() {
            let tokens = &sequence.tokens[index * shape.block_tokens..(index + 1) * shape.block_tokens];
            let Some(is_held) = pool.find(hash, tokens) else { break };
            hit_blocks += 1;
            revived_blocks += usize::from(!is_held);
        }
        if let Some(missing) = hashes.get(hit_blocks)
            && (self.computing.contains_key(missing) || claimed.contains(missing))
        {
            return None;
        }
        claimed.extend(&hashes[hit_blocks..]);
        let hit_tokens = hit_blocks * shape.block_tokens;
        Some(plan::Waiting { hit_tokens, revived_blocks, ..plain })
    }
}
