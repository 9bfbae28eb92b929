//! One step's plan: which sequences get how many rows, who is let in, who has to leave.
//!
//! Decodes first (they are short and somebody waits for them), then prompts that are being read, then new
//! ones. Memory that a running sequence needs is taken from the lowest priority, youngest first; that one's
//! tokens are kept and computed again later.

use std::collections::HashMap;

use super::foresight::{Growth, peak_blocks};
use crate::engine::handle::SequenceId;

/// What a step may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub rows: usize,
    pub sequences: usize,
    pub block_tokens: usize,
    /// Blocks that can be had.
    pub blocks: usize,
}

/// A sequence that holds KV.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    pub id: SequenceId,
    pub priority: u8,
    pub group: u64,
    /// Positions in the KV cache, and tokens that are to be computed after them.
    pub computed: usize,
    pub pending: usize,
    /// Tokens that are expected to come after those.
    pub expected: usize,
    /// Blocks it holds, and those of them that would become available if it left.
    pub blocks: usize,
    pub unshared_blocks: usize,
    pub is_decoding: bool,
    /// Step in which it last had rows.
    pub served_at: u64,
}

/// A request that could start, in the order of the queue.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub id: SequenceId,
    pub priority: u8,
    pub group: u64,
    pub tokens: usize,
    /// Of those, tokens in full blocks that the prefix cache has. Fewer than `tokens`.
    pub hit_tokens: usize,
    /// Of those blocks, the ones nobody holds: using them takes them from the available ones.
    pub revived_blocks: usize,
    /// Tokens that are expected to come after `tokens`.
    pub expected: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    pub id: SequenceId,
    /// At least 1.
    pub rows: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub preempt: Vec<SequenceId>,
    pub admit: Vec<SequenceId>,
    /// Rows of running and admitted sequences.
    pub work: Vec<Work>,
}

/// Plans one step. With nothing running, the first waiting request is admitted whenever it fits at all.
pub fn plan(limits: &Limits, running: &[Running], waiting: &[Waiting]) -> Plan {
    let mut draft = Draft::new(limits, running);
    let mut order: Vec<usize> = (0..running.len()).collect();
    order.sort_by_key(|&index| {
        let one = &running[index];
        let served_at = if one.is_decoding { one.served_at } else { 0 };
        (!one.is_decoding, std::cmp::Reverse(one.priority), served_at, one.id)
    });
    for index in order {
        if draft.rows_left == 0 {
            break;
        }
        draft.serve(index);
    }
    for one in waiting {
        if draft.rows_left == 0 || !draft.admit(one) {
            break;
        }
    }
    draft.into_plan()
}

#[derive(Clone)]
struct Draft<'a> {
    limits: &'a Limits,
    running: &'a [Running],
    rows_left: usize,
    blocks_left: usize,
    /// Per running sequence; `None`: it leaves.
    shares: Vec<Option<Share>>,
    admitted: Vec<(SequenceId, usize)>,
    /// What those who were let in are expected to need.
    admitted_growths: Vec<Growth>,
    preempted: Vec<SequenceId>,
    /// Sequences per group, after the changes so far.
    group_sizes: HashMap<u64, usize>,
    has_made_fair: bool,
}

#[derive(Clone, Copy, Default)]
struct Share {
    rows: usize,
    new_blocks: usize,
}

impl<'a> Draft<'a> {
    fn new(limits: &'a Limits, running: &'a [Running]) -> Self {
        let mut group_sizes = HashMap::new();
        for one in running {
            *group_sizes.entry(one.group).or_insert(0) += 1;
        }
        Self {
            limits,
            running,
            rows_left: limits.rows,
            blocks_left: limits.blocks,
            shares: vec![Some(Share::default()); running.len()],
            admitted: Vec::new(),
            admitted_growths: Vec::new(),
            preempted: Vec::new(),
            group_sizes,
            has_made_fair: false,
        }
    }

    /// Gives a running sequence rows and the blocks they need.
    fn serve(&mut self, index: usize) {
        if self.shares[index].is_none() {
            return;
        }
        let one = &self.running[index];
        let rows = one.pending.min(self.rows_left);
        if rows == 0 {
            return;
        }
        let needed = (one.computed + rows).div_ceil(self.limits.block_tokens).saturating_sub(one.blocks);
        while needed > self.blocks_left {
            let Some(victim) = self.last_in_line() else { return };
            self.preempt(victim);
            if victim == index {
                return;
            }
        }
        self.blocks_left -= needed;
        self.rows_left -= rows;
        self.shares[index] = Some(Share { rows, new_blocks: needed });
    }

    /// Whom memory is taken from: lowest priority, youngest.
    fn last_in_line(&self) -> Option<usize> {
        self.staying()
            .min_by_key(|&index| (self.running[index].priority, std::cmp::Reverse(self.running[index].id)))
    }

    fn staying(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.running.len()).filter(|&index| self.shares[index].is_some())
    }

    fn preempt(&mut self, index: usize) {
        let one = &self.running[index];
        if let Some(share) = self.shares[index].take() {
            self.rows_left += share.rows;
            self.blocks_left += share.new_blocks + one.unshared_blocks;
            self.preempted.push(one.id);
            if let Some(size) = self.group_sizes.get_mut(&one.group) {
                *size -= 1;
            }
        }
    }

    /// Lets a request in, if need be in the place of others. False: it has to wait, and so has whoever stands
    /// behind it, or a large request would wait for ever.
    fn admit(&mut self, one: &Waiting) -> bool {
        let fits = self.has_room(one) && self.will_last(one);
        if !fits && !self.make_room(one) {
            return false;
        }
        self.blocks_left -= self.blocks_for(one);
        self.admitted_growths.push(self.growth_of(one));
        let rows = (one.tokens - one.hit_tokens).min(self.rows_left);
        self.rows_left -= rows;
        self.admitted.push((one.id, rows));
        *self.group_sizes.entry(one.group).or_insert(0) += 1;
        true
    }

    /// Available blocks it takes. A cached block that one of those who leave held alone is available then and
    /// must not be counted twice; who leaves with which is not known here, so hits count for nothing.
    fn blocks_for(&self, one: &Waiting) -> usize {
        let n_blocks = one.tokens.div_ceil(self.limits.block_tokens);
        if self.preempted.is_empty() {
            n_blocks - one.hit_tokens / self.limits.block_tokens + one.revived_blocks
        } else {
            n_blocks
        }
    }

    /// A slot, and its blocks besides one for the growth of each sequence that stays.
    fn has_room(&self, one: &Waiting) -> bool {
        let n_others = self.staying().count() + self.admitted.len();
        n_others < self.limits.sequences && self.blocks_for(one) + n_others <= self.blocks_left
    }

    /// Whether the blocks last until all have ended, if answers get as long as expected. One that would run
    /// alone has to try.
    fn will_last(&self, one: &Waiting) -> bool {
        let mut growths = self.admitted_growths.clone();
        growths.extend(self.staying().map(|index| {
            let (one, share) = (&self.running[index], self.shares[index].unwrap_or_default());
            let held = (one.blocks + share.new_blocks) * self.limits.block_tokens;
            Growth {
                unplaced: (one.computed + one.pending) as i64 - held as i64,
                tokens: one.expected,
                freed_blocks: one.unshared_blocks + share.new_blocks,
            }
        }));
        if growths.is_empty() {
            return true;
        }
        growths.push(self.growth_of(one));
        let left = self.blocks_left as i64 - self.blocks_for(one) as i64;
        peak_blocks(growths, self.limits.block_tokens) <= left
    }

    fn growth_of(&self, one: &Waiting) -> Growth {
        let blocks = one.tokens.div_ceil(self.limits.block_tokens);
        Growth {
            unplaced: one.tokens as i64 - (blocks * self.limits.block_tokens) as i64,
            tokens: one.expected,
            freed_blocks: blocks - one.hit_tokens / self.limits.block_tokens,
        }
    }

    /// Preempts sequences of lower priority; or, once a step and for a group that has nothing running, some
    /// of a group that has several: one, and more until there is room for now. Only before anyone was let in:
    /// their hits were counted as held.
    fn make_room(&mut self, one: &Waiting) -> bool {
        if !self.admitted.is_empty() {
            return false;
        }
        let mut draft = self.clone();
        let is_left_out = draft.group_sizes.get(&one.group).copied().unwrap_or(0) == 0;
        while draft.preempted.len() == self.preempted.len() || !draft.has_room(one) {
            let sizes = &draft.group_sizes;
            let size_of = |index: usize| sizes.get(&draft.running[index].group).copied().unwrap_or(0);
            let victim = draft
                .staying()
                .filter(|&index| {
                    let victim = &draft.running[index];
                    victim.priority < one.priority
                        || (victim.priority == one.priority
                            && is_left_out
                            && !self.has_made_fair
                            && size_of(index) > 1)
                })
                .min_by_key(|&index| {
                    let victim = &draft.running[index];
                    (victim.priority, std::cmp::Reverse(size_of(index)), std::cmp::Reverse(victim.id))
                });
            let Some(victim) = victim else { return false };
            draft.has_made_fair |= draft.running[victim].priority == one.priority;
            draft.preempt(victim);
        }
        *self = draft;
        true
    }

    fn into_plan(self) -> Plan {
        let mut work: Vec<Work> = Vec::with_capacity(self.running.len() + self.admitted.len());
        for (one, share) in self.running.iter().zip(&self.shares) {
            if let Some(share) = share
                && share.rows > 0
            {
                work.push(Work { id: one.id, rows: share.rows });
            }
        }
        work.extend(self.admitted.iter().filter(|(_, rows)| *rows > 0).map(|&(id, rows)| Work { id, rows }));
        Plan { preempt: self.preempted, admit: self.admitted.iter().map(|(id, _)| *id).collect(), work }
    }
}
