//! One forward pass: work into a batch, masks beside the device, logits into tokens.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::executor::{Executor, ExecutorError};
use super::grammar::{Choice, Walk};
use super::handle::SequenceId;
use super::request::{AdapterId, Branch, EngineError};
use super::sampling;
use super::scheduler::plan::Work;
use super::sequence::{Progress, Sequence, Shape};
use crate::nn::batch::{Batch, Span};
use crate::nn::choice::{Answer, Ask};

/// Lays the work out as one ragged batch. A sequence whose pending tokens are all in it wants logits: of the
/// last of them, and of each token of its draft.
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
        let samples = work.rows == sequence.pending();
        let draft = if samples { &sequence.draft[..] } else { &[] };
        let (past, own_end) = (sequence.computed, sequence.computed + work.rows);
        let end = own_end + draft.len();
        let n_blocks = end.div_ceil(shape.block_tokens);
        let first_written = past / shape.block_tokens;
        assert!(
            (first_written..n_blocks).all(|index| sequence.blocks.get(index).is_writable()),
            "a sequence writes only blocks of its own"
        );
        batch.spans.push(Span {
            first_row: batch.tokens.len() as u32,
            n_tokens: (work.rows + draft.len()) as u32,
            past: past as u32,
            first_block: batch.blocks.len() as u32,
            n_blocks: n_blocks as u32,
            adapter: sequence.request.adapter.and_then(&slot_of),
        });
        batch.tokens.extend_from_slice(&sequence.tokens[past..own_end]);
        batch.tokens.extend_from_slice(draft);
        batch.blocks.extend(sequence.blocks.iter().take(n_blocks).map(super::kv::Block::id));
        if samples {
            let n_rows = batch.tokens.len();
            batch.logit_rows.extend((n_rows - 1 - draft.len()..n_rows).map(|row| row as u32));
        }
    }
}

/// A sequence that will sample after this pass and whose mask is not known yet.
struct Chooser<'a> {
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
fn choosers<'a>(running: &'a mut BTreeMap<SequenceId, Sequence>, part: &[Work]) -> Vec<Chooser<'a>> {
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

/// What one pass says of each of its rows of logits, and where the time went.
pub(super) struct Passed<'e> {
    pub answers: Result<Vec<Answer<'e>>, ExecutorError>,
    /// The forward pass itself.
    pub forward_time: Duration,
    /// Time in which nothing but masks was worked on.
    pub mask_time: Duration,
}

/// Runs the pass with the masks beside it: on `mask_threads` threads, or before it if that is 0. Where the device
/// works by itself this thread is one of them.
pub(super) fn forward<'e>(
    executor: &'e mut dyn Executor,
    batch: &Batch,
    part: &[Work],
    running: &mut BTreeMap<SequenceId, Sequence>,
    mask_threads: usize,
) -> Passed<'e> {
    if executor.choosing().is_some() {
        return forward_choosing(executor, batch, part, running, mask_threads);
    }
    let begun = Instant::now();
    let mut choosers = choosers(running, part);
    let per_thread = choosers.len().div_ceil(mask_threads.max(1));
    let (mut computed, mut forwarded) = (begun, begun);
    let logits = if mask_threads == 0 || choosers.is_empty() {
        choosers.iter_mut().for_each(Chooser::compute);
        computed = Instant::now();
        let logits = executor.forward(batch);
        forwarded = Instant::now();
        logits
    } else {
        std::thread::scope(|scope| {
            for chunk in choosers.chunks_mut(per_thread) {
                scope.spawn(move || chunk.iter_mut().for_each(Chooser::compute));
            }
            let logits = executor.forward(batch);
            forwarded = Instant::now();
            logits
        })
    };
    // masks that were ready before the logits cost nothing
    let mask_time = (computed - begun) + forwarded.elapsed();
    let n_rows = batch.logit_rows.len();
    let answers = logits.map(|logits| {
        let width = logits.len().checked_div(n_rows).unwrap_or(0);
        logits.chunks_exact(width.max(1)).map(Answer::Logits).collect()
    });
    Passed { answers, forward_time: forwarded - computed, mask_time }
}

/// The same where the device chooses.
fn forward_choosing<'e>(
    executor: &'e mut dyn Executor,
    batch: &Batch,
    part: &[Work],
    running: &mut BTreeMap<SequenceId, Sequence>,
    mask_threads: usize,
) -> Passed<'e> {
    let begun = Instant::now();
    let failed =
        |error| Passed { answers: Err(error), forward_time: Duration::ZERO, mask_time: Duration::ZERO };
    let Some(device) = executor.choosing() else {
        return failed(ExecutorError::Device("it does not choose".into()));
    };
    if let Err(error) = device.begin(batch) {
        return failed(error);
    }
    let mut choosers = choosers(running, part);
    // a thread costs about as much as one mask
    let n_threads = mask_threads.max(1).min(choosers.len().div_ceil(4).max(1));
    let per_thread = choosers.len().div_ceil(n_threads).max(1);
    let mut chunks = choosers.chunks_mut(per_thread);
    std::thread::scope(|scope| {
        let own = chunks.next();
        for chunk in chunks {
            scope.spawn(move || chunk.iter_mut().for_each(Chooser::compute));
        }
        own.into_iter().flatten().for_each(Chooser::compute);
    });
    let asks = asks(running, part);
    match device.choose(&asks) {
        Ok(chosen) => Passed {
            answers: Ok(chosen.answers),
            forward_time: chosen.device_time,
            mask_time: begun.elapsed().saturating_sub(chosen.device_time),
        },
        Err(error) => failed(error),
    }
}

/// What each row of logits of a part is wanted for, once the masks are known.
fn asks<'a>(running: &'a BTreeMap<SequenceId, Sequence>, part: &[Work]) -> Vec<Ask<'a>> {
    let mut asks = Vec::new();
    for work in part {
        let sequence = &running[&work.id];
        if work.rows != sequence.pending() {
            continue;
        }
        let request = &sequence.request;
        let wants_row = request.sampling.temperature > 0.0 || request.logprobs.is_some();
        asks.push(match &sequence.choice {
            _ if wants_row => Ask::Logits,
            Some(Ok(Choice::Mask(mask))) => {
                Ask::Best { allowed: Some(mask.as_slice()), weighs: request.branches }
            }
            // what is chosen does not depend on the row
            Some(Ok(Choice::Only(_)) | Err(_)) | None => Ask::Best { allowed: None, weighs: false },
        });
        // what a place in a draft allows is known only once the draft has come true so far
        let draft = match wants_row || sequence.walk.is_some() {
            true => Ask::Logits,
            false => Ask::Best { allowed: None, weighs: false },
        };
        asks.extend(sequence.draft.iter().map(|_| draft));
    }
    asks
}

/// What a pass did for one sequence.
#[derive(Debug, Default)]
pub(super) struct Advance {
    /// `None` where the sequence has more to read first.
    pub progress: Option<Result<Progress, EngineError>>,
    pub output_tokens: u64,
    pub forced_tokens: u64,
    /// Draft tokens that were read along, and those of them that were chosen indeed.
    pub drafted: usize,
    pub accepted: usize,
}

/// Moves the sequences of a part on by what was computed and what its rows of logits say; one entry per work.
pub(super) fn advance(
    answers: Vec<Answer>,
    part: &[Work],
    running: &mut BTreeMap<SequenceId, Sequence>,
    shape: &Shape,
    jump_forward: bool,
) -> Vec<Advance> {
    let mut rows = answers.into_iter();
    part.iter()
        .map(|work| {
            let Some(sequence) = running.get_mut(&work.id) else { return Advance::default() };
            let samples = work.rows == sequence.pending();
            sequence.computed += work.rows;
            if !samples {
                return Advance::default();
            }
            let rows: Vec<Answer> = rows.by_ref().take(1 + sequence.draft.len()).collect();
            let before = sequence.usage;
            let drafted = sequence.draft.len();
            let (progress, accepted) = verify(sequence, &rows, shape, jump_forward);
            Advance {
                progress: Some(progress),
                output_tokens: sequence.usage.output_tokens - before.output_tokens,
                forced_tokens: sequence.usage.forced_tokens - before.forced_tokens,
                drafted,
                accepted,
            }
        })
        .collect()
}

/// Chooses from one row after the other for as long as what was chosen (and forced after it) is what the
/// draft had there, so that the next row was computed from the right tokens. Returns how many draft tokens
/// came true; the others' KV lies behind `computed` and is written anew.
fn verify(
    sequence: &mut Sequence,
    rows: &[Answer],
    shape: &Shape,
    jump_forward: bool,
) -> (Result<Progress, EngineError>, usize) {
    let draft = std::mem::take(&mut sequence.draft);
    let base = sequence.tokens.len();
    let mut accepted = 0;
    loop {
        let row = *rows.get(accepted).expect("the executor answers every row asked for");
        let progress =
            choose(sequence, row).and_then(|token| take(sequence, token, row, shape, jump_forward));
        let came = &sequence.tokens[base + accepted..];
        accepted += came.iter().zip(&draft[accepted..]).take_while(|(a, b)| a == b).count();
        let is_verified = base + accepted == sequence.tokens.len();
        if !matches!(progress, Ok(Progress::GoesOn)) || !is_verified {
            sequence.computed += accepted;
            return (progress, accepted);
        }
        // all that came is in the draft, so the row after it was computed too
    }
}

/// Appends a chosen token, and what the model thought of it if that was asked for. One that ends the answer is
/// not part of it.
fn take(
    sequence: &mut Sequence,
    token: u32,
    row: Answer,
    shape: &Shape,
    jump_forward: bool,
) -> Result<Progress, EngineError> {
    let before = sequence.n_output();
    let progress = sequence.push(token, shape, jump_forward)?;
    if let (Some(n_top), Answer::Logits(row)) = (sequence.request.logprobs, row)
        && sequence.n_output() > before
    {
        sequence.logprobs.push(sampling::logprob(row, token, usize::from(n_top)));
    }
    Ok(progress)
}

fn choose(sequence: &mut Sequence, row: Answer) -> Result<u32, EngineError> {
    let choice = match (sequence.choice.take(), &mut sequence.walk) {
        (Some(choice), _) => Some(choice?),
        // a place in a draft: what came before it is known only now
        (None, Some(walk)) => Some(walk.choices(&sequence.request.stop)?),
        (None, None) => None,
    };
    let position = sequence.n_output();
    let wants_branch = sequence.request.branches;
    match (row, choice) {
        (Answer::Logits(row), choice) => {
            let sampling = &sequence.request.sampling;
            let token = sampling::sample(row, choice.as_ref(), sampling, position as u64)?;
            if let Some(choice) = choice.as_ref().filter(|_| wants_branch) {
                sequence.branches.extend(sampling::branch(row, choice, token, position as u32));
            }
            Ok(token)
        }
        (_, Some(Choice::Only(token))) => Ok(token),
        (Answer::NotFinite, _) => Err(sampling::not_finite()),
        (Answer::Best { token, log_share }, choice) => {
            if let Some(Choice::Mask(mask)) = choice.filter(|_| wants_branch) {
                let n_allowed = sampling::n_allowed(&mask);
                let branch = Branch { at: position as u32, logprob: log_share, n_allowed };
                sequence.branches.extend((n_allowed > 1).then_some(branch));
            }
            Ok(token)
        }
    }
}

/// Takes the part's drafts away. False: there were none.
pub(super) fn drop_drafts(part: &[Work], running: &mut BTreeMap<SequenceId, Sequence>) -> bool {
    let mut had_any = false;
    for work in part {
        if let Some(sequence) = running.get_mut(&work.id) {
            had_any |= !sequence.draft.is_empty();
            sequence.draft.clear();
        }
    }
    had_any
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
