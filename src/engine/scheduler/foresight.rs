//! How long answers get, and what memory the sequences that run will need when they are longest.
//!
//! A request that is let in while the blocks last only for now makes others be preempted and computed again.
//! So admission asks for the peak: sequences grow side by side and give their blocks back as they end, and
//! with the lengths that are expected the largest sum is found at one of the ends (the admission rule of
//! Gong et al., "Past-Future Scheduler for LLM Serving under SLA Guarantees", 2025).

use std::collections::HashMap;

/// Groups whose answers are remembered.
const MAX_GROUPS: usize = 1_024;
/// A mean over about this many answers.
const MEMORY: f64 = 64.0;

/// Mean lengths of answers, in tokens.
#[derive(Default)]
pub struct Lengths {
    by_group: HashMap<u64, Mean>,
    all: Mean,
}

#[derive(Clone, Copy, Default)]
struct Mean {
    n: f64,
    tokens: f64,
}

impl Mean {
    fn add(&mut self, tokens: f64) {
        self.n = (self.n + 1.0).min(MEMORY);
        self.tokens += (tokens - self.tokens) / self.n;
    }
}

impl Lengths {
    /// An answer of a group has ended.
    pub fn record(&mut self, group: u64, tokens: usize) {
        self.all.add(tokens as f64);
        if self.by_group.len() >= MAX_GROUPS && !self.by_group.contains_key(&group) {
            self.by_group.clear();
        }
        self.by_group.entry(group).or_default().add(tokens as f64);
    }

    /// What an answer of the group will have; what answers had of late if the group is new, 0 if nothing is
    /// known.
    pub fn expected(&self, group: u64) -> usize {
        self.by_group.get(&group).unwrap_or(&self.all).tokens.ceil() as usize
    }
}

/// What is expected of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    /// Tokens that are there or being read, beyond what its blocks hold; negative: room in its last block.
    pub unplaced: i64,
    /// Tokens that are still to come.
    pub tokens: usize,
    /// Blocks that come free at its end.
    pub freed_blocks: usize,
}

/// The most blocks that the sequences will need beyond those they have, each rounded up as a block of its own.
pub fn peak_blocks(mut growths: Vec<Growth>, block_tokens: usize) -> i64 {
    growths.sort_unstable_by_key(|one| std::cmp::Reverse(one.tokens));
    let mut freed: i64 = growths.iter().map(|one| one.freed_blocks as i64).sum();
    let (mut unplaced, mut peak) = (0, 0);
    // at the end of the i-th longest those before it are there too, and all behind it have ended
    for (index, one) in growths.iter().enumerate() {
        let n = index as i64 + 1;
        unplaced += one.unplaced;
        freed -= one.freed_blocks as i64;
        let tokens = unplaced + n * one.tokens as i64;
        peak = peak.max(tokens.div_euclid(block_tokens as i64) + n - freed);
    }
    peak
}
