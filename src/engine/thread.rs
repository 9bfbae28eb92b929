//! The engine's thread: takes commands, plans a step, runs it, delivers, and begins again.
//!
//! Whatever ends the thread (a close, the last handle gone, a panic) drops every reply channel, so no caller
//! waits for an answer that cannot come.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Instant;

use tokio::sync::watch;
use tracing::Span;

use super::adapters::Adapters;
use super::executor::{Executor, ExecutorError};
use super::handle::{Command, Options, Reply, SequenceId};
use super::heads::Heads;
use super::kv::{Pool, PrefixHasher};
use super::lookup::Gain;
use super::merging::Merging;
use super::request::{Completion, EngineError, Finish};
use super::scheduler::foresight::Lengths;
use super::scheduler::plan::Work;
use super::scheduler::queue::FairQueue;
use super::sequence::{Progress, Sequence, Shape};
use super::stats::Stats;
use super::step::{self, Advance};
use crate::nn::batch::Batch;
use crate::telemetry::metric::{self, Metric};
use crate::telemetry::trace;

pub(super) fn start(
    executor: Box<dyn Executor>,
    options: Options,
    inbox: mpsc::Receiver<Command>,
    stats: Arc<Mutex<Stats>>,
    ended: watch::Sender<()>,
) {
    let spawned = std::thread::Builder::new().name("engine".into()).spawn(move || {
        // declared first, so dropped last: who waits for it finds the executor's memory free
        let _ended = ended;
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(move || {
            let mut state = State::new(executor, options, stats);
            while state.tick(&inbox) == Tick::Again {}
        }));
        if outcome.is_err() {
            tracing::error!("the engine's thread panicked; its sequences failed and it is closed");
        }
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread for the engine");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tick {
    Again,
    Stop,
}

/// Everything the thread owns. Who enters and leaves is in `admission`.
pub(super) struct State {
    pub(super) executor: Box<dyn Executor>,
    pub(super) options: Options,
    pub(super) shape: Shape,
    pub(super) pool: Pool,
    pub(super) hasher: PrefixHasher,
    pub(super) queue: FairQueue,
    pub(super) waiting: HashMap<SequenceId, Sequence>,
    pub(super) running: BTreeMap<SequenceId, Sequence>,
    pub(super) heads: Heads,
    adapters: Adapters,
    merging: Merging,
    /// What prompt lookup has measured.
    pub(super) gain: Gain,
    pub(super) lengths: Lengths,
    /// Learned from a lack of memory, and when.
    pub(super) row_bound: usize,
    pub(super) bounded_at: u64,
    batch: Batch,
    pub(super) stats: Stats,
    published_stats: Arc<Mutex<Stats>>,
}

impl State {
    fn new(executor: Box<dyn Executor>, options: Options, published_stats: Arc<Mutex<Stats>>) -> Self {
        Self {
            shape: Shape::of(executor.as_ref()),
            pool: Pool::new(executor.n_blocks()),
            row_bound: executor.max_rows().min(options.max_step_tokens).max(1),
            executor,
            hasher: PrefixHasher::default(),
            queue: FairQueue::default(),
            waiting: HashMap::new(),
            running: BTreeMap::new(),
            heads: Heads::default(),
            adapters: Adapters::default(),
            merging: Merging::default(),
            gain: Gain::default(),
            lengths: Lengths::default(),
            bounded_at: 0,
            batch: Batch::default(),
            stats: Stats { levers: options.levers(), ..Stats::default() },
            options,
            published_stats,
        }
    }

    /// Takes all commands that have come, sleeping for one if there is nothing to do, and runs one step.
    fn tick(&mut self, inbox: &mpsc::Receiver<Command>) -> Tick {
        self.publish_stats();
        let mut is_idle = self.running.is_empty() && self.waiting.is_empty();
        loop {
            let command = match inbox.try_recv() {
                Ok(command) => command,
                Err(mpsc::TryRecvError::Disconnected) => return Tick::Stop,
                Err(mpsc::TryRecvError::Empty) if is_idle => match inbox.recv() {
                    Ok(command) => command,
                    Err(mpsc::RecvError) => return Tick::Stop,
                },
                Err(mpsc::TryRecvError::Empty) => break,
            };
            is_idle = false;
            if self.apply(command) == Tick::Stop {
                return Tick::Stop;
            }
        }
        let started = Instant::now();
        let mut plan = self.plan();
        self.enact(&mut plan);
        if !plan.work.is_empty() {
            let span = self.step_span(&plan.work);
            let entered = span.enter();
            self.draft(&plan.work);
            self.run(plan.work);
            self.count_step(started);
            span.record("rows", self.stats.rows_last);
            drop(entered);
            self.merge();
        }
        Tick::Again
    }

    fn apply(&mut self, command: Command) -> Tick {
        match command {
            Command::Generate { id, request, reply, news, place, span } => {
                self.enqueue(Sequence::new(id, request, reply, news, place, span));
            }
            Command::Cancel(id) => self.cancel(id),
            Command::AddAdapter { adapter, reply } => {
                let _ = reply.send(self.adapters.add(self.executor.as_mut(), adapter));
            }
            Command::RemoveAdapter { id, reply } => {
                self.adapters.remove(self.executor.as_mut(), id, reply);
                self.merging.forget(id);
            }
            Command::Close => return Tick::Stop,
        }
        Tick::Again
    }

    fn enqueue(&mut self, sequence: Sequence) {
        if let Err(error) = self.adapters.take(sequence.request.adapter) {
            let _ = sequence.reply.send(Err(error));
            return;
        }
        self.queue.push(sequence.ticket());
        self.waiting.insert(sequence.id, sequence);
    }

    fn cancel(&mut self, id: SequenceId) {
        if let Some(sequence) = self.take_out(id) {
            self.stats.cancelled += 1;
            drop(sequence);
        }
    }

    // ---- running

    /// Runs the step's work; in parts, if the device has no memory for the whole.
    fn run(&mut self, mut work: Vec<Work>) {
        // neighbours that use one adapter read its matrices once
        work.sort_by_key(|work| self.running.get(&work.id).and_then(|sequence| sequence.request.adapter));
        let mut parts = vec![work];
        while let Some(mut part) = parts.pop() {
            // of a divided span, the first half may have failed
            part.retain(|work| self.running.contains_key(&work.id));
            if part.is_empty() {
                continue;
            }
            match self.forward(&part) {
                Ok(advances) => self.settle(&part, advances),
                Err(ExecutorError::OutOfMemory(cause)) if step::drop_drafts(&part, &mut self.running) => {
                    tracing::warn!(rows = self.batch.n_rows(), %cause, "no memory for the step's drafts");
                    parts.push(part);
                }
                Err(ExecutorError::OutOfMemory(cause)) => match step::split(&part) {
                    Some((first, second)) => {
                        tracing::warn!(rows = self.batch.n_rows(), %cause, "no memory for the step; split");
                        self.stats.splits += 1;
                        self.row_bound = (self.batch.n_rows() / 2).max(1);
                        self.bounded_at = self.stats.steps;
                        parts.push(second);
                        parts.push(first);
                    }
                    None => self.fail_all(&part, &format!("out of memory for one row: {cause}")),
                },
                Err(ExecutorError::Device(cause)) => {
                    tracing::error!(sequences = part.len(), %cause, "the forward pass failed");
                    self.fail_all(&part, &cause);
                }
            }
        }
    }

    /// Merges the adapter that has run alone for long enough.
    fn merge(&mut self) {
        let rows = self.stats.rows_last as u64;
        let only = self.adapters.only_user().filter(|_| self.options.merge_adapters);
        let Some((id, slot)) =
            self.merging.saw_step(only, rows).and_then(|id| Some((id, self.adapters.slot(id)?)))
        else {
            return;
        };
        let begun = Instant::now();
        match self.executor.merge_adapter(slot) {
            Ok(()) => tracing::info!(adapter = id.0, ms = begun.elapsed().as_millis() as u64, "merged"),
            Err(error) => tracing::warn!(adapter = id.0, %error, "not merged; it goes on beside the base"),
        }
    }

    /// One forward pass, and what its logits choose.
    fn forward(&mut self, part: &[Work]) -> Result<Vec<Advance>, ExecutorError> {
        step::fill_batch(&mut self.batch, part, &self.running, &self.shape, |id| self.adapters.slot(id));
        let passed = step::forward(
            self.executor.as_mut(),
            &self.batch,
            part,
            &mut self.running,
            self.options.mask_threads,
        );
        let forwarded = Instant::now();
        let forward_ms = passed.forward_time.as_secs_f64() * 1e3;
        self.stats.mask_ms_sum += passed.mask_time.as_secs_f64() * 1e3;
        self.stats.forward_ms_sum += forward_ms;
        let answers = passed.answers?;
        let advances =
            step::advance(answers, part, &mut self.running, &self.shape, self.options.jump_forward);
        self.stats.advance_ms_sum += forwarded.elapsed().as_secs_f64() * 1e3;
        let n_rows = self.batch.n_rows();
        self.gain.saw_step(n_rows, self.batch.logit_rows.len(), forward_ms);
        self.stats.rows += n_rows as u64;
        self.stats.rows_last = n_rows;
        let merged = self.executor.merged_slot();
        if merged.is_some() && self.batch.spans.iter().all(|span| span.adapter == merged) {
            self.stats.merged_rows += n_rows as u64;
        }
        Ok(advances)
    }

    /// Takes in what a forward pass did for the sequences of a part. `advances` has one entry per work.
    fn settle(&mut self, part: &[Work], advances: Vec<Advance>) {
        for (work, advance) in part.iter().zip(advances) {
            let Some(sequence) = self.running.get_mut(&work.id) else { continue };
            sequence.served_at = self.stats.steps + 1;
            if self.options.prefix_cache {
                let published = sequence.publish(&self.pool, &self.shape);
                self.heads.end(&sequence.hashes[published], work.id);
            }
            if advance.drafted > 0 {
                self.gain.saw_draft(advance.drafted, advance.accepted);
                self.stats.drafted_tokens += advance.drafted as u64;
                self.stats.accepted_tokens += advance.accepted as u64;
            }
            if let Some((n_true, n_tokens)) = sequence.judge_watched() {
                self.gain.saw_draft(n_tokens, n_true);
            }
            self.stats.output_tokens += advance.output_tokens;
            self.stats.forced_tokens += advance.forced_tokens;
            match advance.progress {
                None | Some(Ok(Progress::GoesOn)) => sequence.tell(),
                Some(Ok(Progress::Ends(finish))) => self.complete(work.id, finish),
                Some(Err(error)) => self.fail(work.id, error),
            }
        }
    }

    // ---- endings

    pub(super) fn complete(&mut self, id: SequenceId, finish: Finish) {
        let Some(mut sequence) = self.take_out(id) else { return };
        if sequence.place.is_some() {
            // the grammar forced the whole answer and nothing was run
            self.count_admission(&mut sequence);
        }
        sequence.tell();
        self.lengths.record(sequence.request.group, sequence.n_output());
        let (reply, completion): (Reply<Completion>, Completion) = sequence.into_completion(finish);
        match reply.send(Ok(completion)) {
            Ok(()) => self.stats.completed += 1,
            Err(_) => self.stats.cancelled += 1,
        }
    }

    pub(super) fn fail(&mut self, id: SequenceId, error: EngineError) {
        let Some(mut sequence) = self.take_out(id) else { return };
        sequence.release();
        self.stats.failed += 1;
        let _ = sequence.reply.send(Err(error));
    }

    fn fail_all(&mut self, part: &[Work], cause: &str) {
        for work in part {
            self.fail(work.id, EngineError::Device(cause.to_owned()));
        }
    }

    /// Removes a sequence from wherever it is, its KV freed and its adapter let go.
    fn take_out(&mut self, id: SequenceId) -> Option<Sequence> {
        let mut sequence = match self.running.remove(&id) {
            Some(sequence) => sequence,
            None => {
                let sequence = self.waiting.remove(&id)?;
                self.queue.remove(&sequence.ticket());
                sequence
            }
        };
        self.heads.end(&sequence.hashes, id);
        sequence.release();
        self.adapters.let_go(self.executor.as_mut(), sequence.request.adapter);
        Some(sequence)
    }

    // ---- figures

    /// Linked to the items that the step serves.
    fn step_span(&self, work: &[Work]) -> Span {
        let span = trace::step(&self.options.name, work.len());
        if !span.is_disabled() {
            let served = work.iter().filter_map(|work| self.running.get(&work.id));
            served.for_each(|sequence| {
                span.follows_from(&sequence.span);
            });
        }
        span
    }

    fn count_step(&mut self, started: Instant) {
        let ms = started.elapsed().as_secs_f64() * 1e3;
        self.stats.steps += 1;
        self.stats.step_ms_sum += ms;
        self.stats.step_ms_last = ms;
        self.stats.step_ms_max = self.stats.step_ms_max.max(ms);
        let engine = [("engine", self.options.name.as_str())];
        metric::observe(Metric::StepSeconds, &engine, ms / 1e3);
        metric::observe(Metric::StepRows, &engine, self.stats.rows_last as f64);
    }

    fn publish_stats(&mut self) {
        self.stats.running = self.running.len();
        self.stats.queued = self.waiting.len();
        self.stats.kv_blocks_total = self.pool.n_blocks();
        self.stats.kv_blocks_used = self.pool.n_blocks() - self.pool.n_available();
        self.stats.kv_blocks_cached = self.pool.n_cached();
        *self.published_stats.lock().unwrap_or_else(PoisonError::into_inner) = self.stats;
    }
}
