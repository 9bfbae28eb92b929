//! The engine's thread: takes commands, plans a step, runs it, delivers, and begins again.
//!
//! Whatever ends the thread (a close, the last handle gone, a panic) drops every reply channel, so no caller
//! waits for an answer that cannot come.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Instant;

use tokio::sync::watch;

use super::executor::{Executor, ExecutorError};
use super::handle::{Command, Options, Reply, SequenceId};
use super::kv::{BlockHash, Pool, PrefixHasher};
use super::request::{AdapterId, Completion, EngineError, Request};
use super::scheduler::plan::{self, Plan, Work};
use super::scheduler::queue::{FairQueue, Visit};
use super::sequence::{Progress, Sequence, Shape};
use super::stats::Stats;
use super::step::{self, Failure};
use crate::nn::batch::Batch;
use crate::nn::weights::adapter::Adapter;

/// Steps without trouble after which a bound learned from a lack of memory is lifted again.
const STEPS_TO_RECOVER: u64 = 256;

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

struct State {
    executor: Box<dyn Executor>,
    options: Options,
    shape: Shape,
    pool: Pool,
    hasher: PrefixHasher,
    queue: FairQueue,
    waiting: HashMap<SequenceId, Sequence>,
    running: BTreeMap<SequenceId, Sequence>,
    /// Who computes a block that is not in the cache yet.
    computing: HashMap<BlockHash, SequenceId>,
    adapters: HashMap<AdapterId, AdapterSlot>,
    n_adapters: u32,
    /// Learned from a lack of memory, and when.
    row_bound: usize,
    bounded_at: u64,
    batch: Batch,
    stats: Stats,
    published_stats: Arc<Mutex<Stats>>,
}

struct AdapterSlot {
    slot: u32,
    /// Sequences that wait or run with it.
    n_users: usize,
    /// Set when it is to go with its last user.
    removal: Option<Reply<()>>,
}

impl State {
    fn new(executor: Box<dyn Executor>, options: Options, published_stats: Arc<Mutex<Stats>>) -> Self {
        Self {
            shape: Shape::of(executor.as_ref()),
            pool: Pool::new(executor.n_blocks()),
            row_bound: executor.max_rows().min(options.max_step_tokens).max(1),
            executor,
            options,
            hasher: PrefixHasher::default(),
            queue: FairQueue::default(),
            waiting: HashMap::new(),
            running: BTreeMap::new(),
            computing: HashMap::new(),
            adapters: HashMap::new(),
            n_adapters: 0,
            bounded_at: 0,
            batch: Batch::default(),
            stats: Stats::default(),
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
            self.run(plan.work);
            self.count_step(started);
        }
        Tick::Again
    }

    fn apply(&mut self, command: Command) -> Tick {
        match command {
            Command::Generate { id, request, reply, place } => {
                self.enqueue(Sequence::new(id, request, reply, place));
            }
            Command::Cancel(id) => self.cancel(id),
            Command::AddAdapter { adapter, reply } => {
                let _ = reply.send(self.add_adapter(adapter));
            }
            Command::RemoveAdapter { id, reply } => self.remove_adapter(id, reply),
            Command::Close => return Tick::Stop,
        }
        Tick::Again
    }

    fn enqueue(&mut self, sequence: Sequence) {
        if let Err(error) = self.use_adapter(&sequence.request) {
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

    // ---- adapters

    fn add_adapter(&mut self, adapter: Arc<Adapter>) -> Result<AdapterId, EngineError> {
        let slot =
            self.executor.add_adapter(adapter).map_err(|error| EngineError::Device(error.to_string()))?;
        // numbers are never used twice: the prefix cache tells adapters apart by them
        let id = AdapterId(self.n_adapters);
        self.n_adapters += 1;
        self.adapters.insert(id, AdapterSlot { slot, n_users: 0, removal: None });
        Ok(id)
    }

    fn remove_adapter(&mut self, id: AdapterId, reply: Reply<()>) {
        match self.adapters.get_mut(&id) {
            Some(adapter) if adapter.removal.is_none() => {
                adapter.removal = Some(reply);
                self.free_adapter_if_unused(id);
            }
            Some(_) | None => {
                let _ = reply.send(Err(EngineError::UnknownAdapter(id)));
            }
        }
    }

    fn use_adapter(&mut self, request: &Request) -> Result<(), EngineError> {
        let Some(id) = request.adapter else { return Ok(()) };
        match self.adapters.get_mut(&id) {
            Some(adapter) if adapter.removal.is_none() => {
                adapter.n_users += 1;
                Ok(())
            }
            Some(_) | None => Err(EngineError::UnknownAdapter(id)),
        }
    }

    fn free_adapter_if_unused(&mut self, id: AdapterId) {
        let is_done =
            self.adapters.get(&id).is_some_and(|adapter| adapter.n_users == 0 && adapter.removal.is_some());
        if is_done && let Some(adapter) = self.adapters.remove(&id) {
            self.executor.remove_adapter(adapter.slot);
            if let Some(reply) = adapter.removal {
                let _ = reply.send(Ok(()));
            }
        }
    }

    // ---- planning

    fn plan(&mut self) -> Plan {
        let running: Vec<plan::Running> = self.running.values().map(view).collect();
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
        let Self { queue, waiting, pool, shape, hasher, computing, options, .. } = self;
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
            match look_up(sequence, pool, shape, computing, &mut claimed, options.prefix_cache) {
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
    fn enact(&mut self, plan: &mut Plan) {
        for &id in &plan.preempt {
            let Some(mut sequence) = self.running.remove(&id) else { continue };
            if self.options.prefix_cache {
                // what it has computed stays in the cache until somebody needs the room
                self.hasher.extend(
                    &mut sequence.hashes,
                    sequence.request.adapter,
                    &sequence.tokens,
                    self.shape.block_tokens,
                );
                sequence.publish(&self.pool, &self.shape);
            }
            self.forget_computing(&sequence);
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
                self.hasher.extend(
                    &mut sequence.hashes,
                    sequence.request.adapter,
                    &sequence.tokens,
                    self.shape.block_tokens,
                );
                sequence.take_cached(&self.pool, &self.shape);
                let n_hit = sequence.blocks.len();
                for &hash in &sequence.shareable_hashes(&self.shape)[n_hit..] {
                    self.computing.entry(hash).or_insert(id);
                }
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

    /// The first admission gives the place in the queue back and counts the prompt.
    fn count_admission(&mut self, sequence: &mut Sequence) {
        if sequence.place.take().is_some() {
            sequence.usage.prefix_hit_tokens = sequence.computed.min(sequence.request.prompt.len()) as u64;
            self.stats.prompt_tokens += sequence.usage.prompt_tokens;
            self.stats.prefix_hit_tokens += sequence.usage.prefix_hit_tokens;
            self.stats.output_tokens += sequence.usage.output_tokens;
            self.stats.forced_tokens += sequence.usage.forced_tokens;
        }
    }

    // ---- running

    /// Runs the step's work; in parts, if the device has no memory for the whole.
    fn run(&mut self, work: Vec<Work>) {
        let mut parts = vec![work];
        while let Some(mut part) = parts.pop() {
            // of a divided span, the first half may have failed
            part.retain(|work| self.running.contains_key(&work.id));
            if part.is_empty() {
                continue;
            }
            step::fill_batch(&mut self.batch, &part, &self.running, &self.shape, |id| {
                self.adapters.get(&id).map(|adapter| adapter.slot)
            });
            let started = Instant::now();
            let outcome = step::forward(
                self.executor.as_mut(),
                &self.batch,
                step::choosers(&mut self.running, &part),
                self.options.mask_threads,
            );
            self.stats.forward_ms_sum += started.elapsed().as_secs_f64() * 1e3;
            match outcome {
                Ok(logits) => {
                    let chosen = step::choose(logits, &self.batch, &part, &self.running);
                    self.stats.rows += self.batch.n_rows() as u64;
                    self.stats.rows_last = self.batch.n_rows();
                    self.settle(&part, chosen);
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

    /// Moves the sequences of a part on after its forward pass. `chosen` has one entry per work.
    fn settle(&mut self, part: &[Work], chosen: Vec<Option<Result<u32, Failure>>>) {
        for (work, chosen) in part.iter().zip(chosen) {
            let Some(sequence) = self.running.get_mut(&work.id) else { continue };
            sequence.computed += work.rows;
            sequence.served_at = self.stats.steps + 1;
            if self.options.prefix_cache {
                for index in sequence.publish(&self.pool, &self.shape) {
                    if self.computing.get(&sequence.hashes[index]) == Some(&work.id) {
                        self.computing.remove(&sequence.hashes[index]);
                    }
                }
            }
            let Some(chosen) = chosen else { continue };
            sequence.choice = None;
            let before = sequence.usage;
            let progress =
                chosen.and_then(|token| sequence.push(token, &self.shape, self.options.jump_forward));
            self.stats.output_tokens += sequence.usage.output_tokens - before.output_tokens;
            self.stats.forced_tokens += sequence.usage.forced_tokens - before.forced_tokens;
            match progress {
                Ok(Progress::GoesOn) => {}
                Ok(Progress::Ends(finish)) => self.complete(work.id, finish),
                Err(error) => self.fail(work.id, error),
            }
        }
    }

    // ---- endings

    fn complete(&mut self, id: SequenceId, finish: super::request::Finish) {
        let Some(mut sequence) = self.take_out(id) else { return };
        if sequence.place.is_some() {
            // the grammar forced the whole answer and nothing was run
            self.count_admission(&mut sequence);
        }
        let (reply, completion): (Reply<Completion>, Completion) = sequence.into_completion(finish);
        match reply.send(Ok(completion)) {
            Ok(()) => self.stats.completed += 1,
            Err(_) => self.stats.cancelled += 1,
        }
    }

    fn fail(&mut self, id: SequenceId, error: EngineError) {
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
        self.forget_computing(&sequence);
        sequence.release();
        if let Some(adapter_id) = sequence.request.adapter {
            if let Some(adapter) = self.adapters.get_mut(&adapter_id) {
                adapter.n_users -= 1;
            }
            self.free_adapter_if_unused(adapter_id);
        }
        Some(sequence)
    }

    fn forget_computing(&mut self, sequence: &Sequence) {
        for hash in &sequence.hashes {
            if self.computing.get(hash) == Some(&sequence.id) {
                self.computing.remove(hash);
            }
        }
    }

    // ---- figures

    fn count_step(&mut self, started: Instant) {
        let ms = started.elapsed().as_secs_f64() * 1e3;
        self.stats.steps += 1;
        self.stats.step_ms_sum += ms;
        self.stats.step_ms_last = ms;
        self.stats.step_ms_max = self.stats.step_ms_max.max(ms);
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

fn view(sequence: &Sequence) -> plan::Running {
    plan::Running {
        id: sequence.id,
        priority: sequence.request.priority,
        group: sequence.request.group,
        computed: sequence.computed,
        pending: sequence.pending(),
        blocks: sequence.blocks.len(),
        unshared_blocks: sequence.blocks.n_unshared(),
        is_decoding: sequence.computed >= sequence.prefill_end,
        served_at: sequence.served_at,
    }
}

/// A request as the plan sees it; `None` if another sequence, running or about to start, computes its head.
fn look_up(
    sequence: &Sequence,
    pool: &Pool,
    shape: &Shape,
    computing: &HashMap<BlockHash, SequenceId>,
    claimed: &mut HashSet<BlockHash>,
    prefix_cache: bool,
) -> Option<plan::Waiting> {
    let mut hit_blocks = 0;
    let mut revived_blocks = 0;
    if prefix_cache {
        let hashes = sequence.shareable_hashes(shape);
        for (index, &hash) in hashes.iter().enumerate() {
            let tokens = &sequence.tokens[index * shape.block_tokens..(index + 1) * shape.block_tokens];
            let Some(is_held) = pool.find(hash, tokens) else { break };
            hit_blocks += 1;
            revived_blocks += usize::from(!is_held);
        }
        if let Some(missing) = hashes.get(hit_blocks)
            && (computing.contains_key(missing) || claimed.contains(missing))
        {
            return None;
        }
        claimed.extend(&hashes[hit_blocks..]);
    }
    Some(plan::Waiting {
        id: sequence.id,
        priority: sequence.request.priority,
        group: sequence.request.group,
        tokens: sequence.tokens.len(),
        hit_tokens: hit_blocks * shape.block_tokens,
        revived_blocks,
    })
}
