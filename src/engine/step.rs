//! One forward pass: work into a batch, masks beside the device, logits into tokens.

use std::collections::BTreeMap;

use super::executor::{Executor, ExecutorError};
use super::grammar::{Choice, Walk};
use super::handle::SequenceId;
use super::request::{AdapterId, EngineError};
use super::sampling;
use super::scheduler::plan::Work;
use super::sequence::{Sequence, Shape};
use crate::nn::batch::{Batch, Span};

pub(super) type Failure = EngineError;

/// Lays the work out as one ragged batch. A sequence whose pending tokens are all in it wants logits.
pub(super) fn fill_batch(
    batch: &mut Batch,
    part: &[Work],
    running: &BTreeMap<SequenceId, Sequence>,
    shape: &Shape,
    slot_of: impl Fn(AdapterId) -> Option<u32>,
) {
    batch.clear();
    for work in part {
        let sequence = &running[&work.id];
        let (past, end) = (sequence.computed, sequence.computed + work.rows);
        let n_blocks = end.div_ceil(shape.block_tokens);
        let first_written = past / shape.block_tokens;
        assert!(
            (first_written..n_blocks).all(|index| sequence.blocks.get(index).is_writable()),
            "a sequence writes only blocks of its own"
        );
        batch.spans.push(Span {
            first_row: batch.tokens.len() as u32,
            n_tokens: work.rows as u32,
            past: past as u32,
            first_block: batch.blocks.len() as u32,
            n_blocks: n_blocks as u32,
            adapter: sequence.request.adapter.and_then(&slot_of),
        });
        batch.tokens.extend_from_slice(&sequence.tokens[past..end]);
        batch.blocks.extend(sequence.blocks.iter().take(n_blocks).map(super::kv::Block::id));
        if end == sequence.tokens.len() {
            batch.logit_rows.push(batch.tokens.len() as u32 - 1);
        }
    }
}

/// A sequence that will sample after this pass and whose mask is not known yet.
pub(super) struct Chooser<'a> {
    walk: &'a mut Walk,
    stop: &'a [u32],
    choice: &'a mut Option<Result<Choice, EngineError>>,
}

impl Chooser<'_> {
    fn compute(&mut self) {
        *self.choice = Some(self.walk.choices(self.stop));
    }
}

/// Masks do not depend on this pass's logits, so they can be computed before it or beside it.
pub(super) fn choosers<'a>(
    running: &'a mut BTreeMap<SequenceId, Sequence>,
    part: &[Work],
) -> Vec<Chooser<'a>> {
    let rows: BTreeMap<SequenceId, usize> = part.iter().map(|work| (work.id, work.rows)).collect();
    running
        .values_mut()
        .filter(|sequence| rows.get(&sequence.id) == Some(&sequence.pending()) && sequence.choice.is_none())
        .filter_map(|sequence| {
            let walk = sequence.walk.as_mut()?;
            Some(Chooser { walk, stop: &sequence.request.stop, choice: &mut sequence.choice })
        })
        .collect()
}

/// Runs the pass with the masks beside it, on `mask_threads` threads, or before it if that is 0.
pub(super) fn forward<'e>(
    executor: &'e mut dyn Executor,
    batch: &Batch,
    mut choosers: Vec<Chooser<'_>>,
    mask_threads: usize,
) -> Result<&'e [f32], ExecutorError> {
    if mask_threads == 0 || choosers.is_empty() {
        choosers.iter_mut().for_each(Chooser::compute);
        return executor.forward(batch);
    }
    let per_thread = choosers.len().div_ceil(mask_threads);
    std::thread::scope(|scope| {
        for chunk in choosers.chunks_mut(per_thread) {
            scope.spawn(move || chunk.iter_mut().for_each(Chooser::compute));
        }
        executor.forward(batch)
    })
}

/// One entry per work: the token chosen, or `None` where the sequence has more to read first.
pub(super) fn choose(
    logits: &[f32],
    batch: &Batch,
    part: &[Work],
    running: &BTreeMap<SequenceId, Sequence>,
) -> Vec<Option<Result<u32, Failure>>> {
    let width = logits.len().checked_div(batch.logit_rows.len()).unwrap_or(0);
    let mut rows = logits.chunks_exact(width.max(1));
    part.iter()
        .map(|work| {
            let sequence = &running[&work.id];
            if work.rows < sequence.pending() {
                return None;
            }
            let row = rows.next().expect("the executor returns a row for every row asked for");
            let choice = match &sequence.choice {
                Some(Ok(choice)) => Some(choice),
                Some(Err(error)) => return Some(Err(error.clone())),
                None => None,
            };
            let position = sequence.n_output() as u64;
            Some(sampling::sample(row, choice, &sequence.request.sampling, position))
        })
        .collect()
}

/// Two halves by rows, so that one long span is divided too. `None`: one row cannot be divided.
pub(super) fn split(part: &[Work]) -> Option<(Vec<Work>, Vec<Work>)> {
    let n_rows: usize = part.iter().map(|work| work.rows).sum();
    if n_rows < 2 {
        return None;
    }
    let mut left = n_rows / 2;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for work in part {
        let rows = work.rows.min(left);
        left -= rows;
        if rows > 0 {
            first.push(Work { id: work.id, rows });
        }
        if work.rows > rows {
            second.push(Work { id: work.id, rows: work.rows - rows });
        }
    }
    Some((first, second))
}
