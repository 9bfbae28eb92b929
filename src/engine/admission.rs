//! Who enters the next step and who leaves: the plan's view of the sequences, and the plan carried out.

use std::collections::HashSet;

use super::lookup::{MAX_DRAFT, MAX_LOGIT_ROWS};
use super::scheduler::plan::{self, Plan, Work};
use super::scheduler::queue::Visit;
use super::sequence::{Progress, Sequence};
use super::thread::State;
use crate::config::settings::PromptLookup;

/// Steps without trouble after which a bound learned from a lack of memory is lifted again.
const STEPS_TO_RECOVER: u64 = 256;
/// While no draft pays, one sampling sequence in this many has a draft watched at a step.
const WATCH_ONE_IN: u64 = 8;
/// While drafts pay, one in this many is as long as can be, so that longer ones get a chance.
const STRETCH_ONE_IN: u64 = 16;

impl State {
    pub(super) fn plan(&mut self) -> Plan {
        let as_running = |one: &Sequence| one.as_running(self.lengths.expected(one.request.group));
        let running: Vec<plan::Running> = self.running.values().map(as_running).collect();
        let waiting = if self.queue.is_empty() { Vec::new() } else { self.candidates() };
        if self.stats.steps >= self.bounded_at + STEPS_TO_RECOVER {
            self.row_bound = self.executor.max_rows().min(self.options.max_step_tokens).max(1);
        }
        let limits = plan::Limits {
            rows: self.row_bound,
            sequences: self.options.max_sequences,
            block_tokens: self.shape.block_tokens,
            blocks: self.pool.n_available(),
        };
        plan::plan(&limits, &running, &waiting)
    }

    /// Requests that could start now, in fair order: as many as there are free slots, and one more that may
    /// take another's. Requests whose head somebody is computing stay behind; their turn comes when it is done.
    fn candidates(&mut self) -> Vec<plan::Waiting> {
        let n_wanted = self.options.max_sequences.saturating_sub(self.running.len()) + 1;
        let mut found = Vec::new();
        let mut ended = Vec::new();
        let mut claimed = HashSet::new();
        let Self { queue, waiting, pool, shape, hasher, heads, lengths, options, .. } = self;
        queue.visit(|ticket| {
            if found.len() >= n_wanted {
                return Visit::Stop;
            }
            let sequence = waiting.get_mut(&ticket.id).expect("a ticket stands for a waiting sequence");
            if !sequence.is_prepared {
                match sequence.prepare(shape, hasher, options.jump_forward) {
                    Ok(Progress::GoesOn) => {}
                    outcome => {
                        ended.push((ticket.id, outcome));
                        return Visit::Next;
                    }
                }
            }
            let plain = sequence.as_waiting(lengths.expected(ticket.group));
            let candidate = if options.prefix_cache {
                heads.look_up(sequence, plain, pool, shape, &mut claimed)
            } else {
                Some(plain)
            };
            match candidate {
                Some(candidate) => {
                    found.push(candidate);
                    Visit::Next
                }
                // the rest of its group most likely shares its head
                None => Visit::SkipGroup,
            }
        });
        for (id, outcome) in ended {
            match outcome {
                Ok(Progress::Ends(finish)) => self.complete(id, finish),
                Ok(Progress::GoesOn) => {}
                Err(error) => self.fail(id, error),
            }
        }
        found
    }

    /// Carries out who leaves and who enters.
    pub(super) fn enact(&mut self, plan: &mut Plan) {
        for &id in &plan.preempt {
            let Some(mut sequence) = self.running.remove(&id) else { continue };
            if self.options.prefix_cache {
                // what it has computed stays in the cache until somebody needs the room
                self.extend_hashes(&mut sequence);
                sequence.publish(&self.pool, &self.shape);
            }
            self.heads.end(&sequence.hashes, id);
            sequence.release();
            self.stats.preemptions += 1;
            self.queue.push(sequence.ticket());
            self.waiting.insert(id, sequence);
        }
        // all take their share of the cache before any new block may evict it
        for &id in &plan.admit {
            let mut sequence = self.waiting.remove(&id).expect("an admitted sequence waits");
            self.queue.admit(&sequence.ticket());
            if self.options.prefix_cache {
                self.extend_hashes(&mut sequence);
                sequence.take_cached(&self.pool, &self.shape);
                let n_hit = sequence.blocks.len();
                self.heads.begin(&sequence.shareable_hashes(&self.shape)[n_hit..], id);
            }
            sequence.prefill_end = sequence.tokens.len();
            self.count_admission(&mut sequence);
            self.running.insert(id, sequence);
        }
        for id in &plan.admit {
            if let Some(sequence) = self.running.get_mut(id) {
                sequence.grow(&self.pool, sequence.tokens.len(), &self.shape);
            }
        }
        for work in &mut plan.work {
            if let Some(sequence) = self.running.get_mut(&work.id) {
                // a sequence that left may have put more into the cache than the plan could know
                work.rows = work.rows.min(sequence.pending());
                sequence.grow(&self.pool, sequence.computed + work.rows, &self.shape);
            }
        }
    }

    fn extend_hashes(&self, sequence: &mut Sequence) {
        let (adapter, block_tokens) = (sequence.request.adapter, self.shape.block_tokens);
        self.hasher.extend(&mut sequence.hashes, adapter, &sequence.tokens, block_tokens);
    }

    /// The first admission gives the place in the queue back and counts the prompt.
    pub(super) fn count_admission(&mut self, sequence: &mut Sequence) {
        if sequence.place.take().is_some() {
            sequence.usage.prefix_hit_tokens = sequence.computed.min(sequence.request.prompt.len()) as u64;
            self.stats.prompt_tokens += sequence.usage.prompt_tokens;
            self.stats.prefix_hit_tokens += sequence.usage.prefix_hit_tokens;
            self.stats.output_tokens += sequence.usage.output_tokens;
            self.stats.forced_tokens += sequence.usage.forced_tokens;
        }
    }

    /// Gives sequences that will sample in this step a draft to read along, as far as rows and blocks are
    /// left over and drafts pay; or has one watched.
    pub(super) fn draft(&mut self, work: &[Work]) {
        let mode = self.options.prompt_lookup;
        if mode == PromptLookup::Off {
            return;
        }
        let Self { running, pool, shape, gain, stats, row_bound, .. } = self;
        let (n_running, step) = (running.len(), stats.steps);
        let samples = |sequence: &Sequence, work: &Work| work.rows == sequence.pending();
        let n_sampling =
            work.iter().filter(|work| running.get(&work.id).is_some_and(|one| samples(one, work))).count();
        let n_rows: usize = work.iter().map(|work| work.rows).sum();
        let mut room = row_bound.saturating_sub(n_rows).min(MAX_LOGIT_ROWS.saturating_sub(n_sampling));
        let paying = match mode {
            PromptLookup::On => MAX_DRAFT,
            PromptLookup::Auto | PromptLookup::Off => gain.draft_tokens(n_sampling),
        };
        for work in work {
            let Some(sequence) = running.get_mut(&work.id).filter(|sequence| samples(sequence, work)) else {
                continue;
            };
            let turn = step.wrapping_add(work.id);
            if paying == 0 {
                if turn.is_multiple_of(WATCH_ONE_IN) {
                    sequence.watch_draft(shape);
                }
                continue;
            }
            let wish = if turn.is_multiple_of(STRETCH_ONE_IN) { MAX_DRAFT } else { paying };
            // blocks that a running sequence may need for its next token are left alone
            let spare_blocks = pool.n_available().saturating_sub(n_running);
            sequence.take_draft(wish.min(room), spare_blocks, shape);
            sequence.grow(pool, sequence.tokens.len() + sequence.draft.len(), shape);
            room -= sequence.draft.len();
        }
    }
}
