//! The engine as its users see it: a handle that any number of tasks may hold.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use tracing::Span;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc as channel, oneshot, watch};

use super::executor::Executor;
use super::request::{AdapterId, Completion, EngineError, News, Request};
use super::stats::{Levers, Stats};
use super::thread;
use crate::config::settings::{self, PromptLookup};
use crate::nn::weights::adapter::Adapter;

/// Bounds and switches of one engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How metrics name the engine.
    pub name: String,
    /// Rows (tokens) of one step; the executor's own bound holds as well.
    pub max_step_tokens: usize,
    /// Sequences that run at once.
    pub max_sequences: usize,
    /// Requests that wait for a place.
    pub max_queued: usize,
    pub prefix_cache: bool,
    /// Append forced tokens without sampling. The answers are the same without, later.
    pub jump_forward: bool,
    /// Read drafts along that were found in what a sequence has so far. The answers are the same without.
    pub prompt_lookup: PromptLookup,
    /// Merge an adapter that runs alone for long into a copy of the base. Needs the memory of that copy.
    pub merge_adapters: bool,
    /// Threads that compute masks while the device runs; 0 computes them between forward passes, which is
    /// right where the forward pass itself keeps every core busy.
    pub mask_threads: usize,
}

impl Options {
    /// Those of a CPU's engine where the settings leave them open.
    pub fn new(engine: &settings::Engine) -> Self {
        let engine = engine.resolved(false);
        Self {
            name: "engine".into(),
            max_step_tokens: engine.max_step_tokens.max(1),
            max_sequences: engine.max_sequences.max(1),
            max_queued: engine.max_queued.max(1),
            prefix_cache: engine.prefix_cache,
            jump_forward: engine.jump_forward,
            prompt_lookup: engine.prompt_lookup,
            merge_adapters: engine.merge_adapters,
            mask_threads: 0,
        }
    }

    /// Those of them that say what work is saved.
    pub fn levers(&self) -> Levers {
        Levers {
            prefix_cache: self.prefix_cache,
            jump_forward: self.jump_forward,
            prompt_lookup: self.prompt_lookup,
            merge_adapters: self.merge_adapters,
            max_sequences: self.max_sequences,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new(&settings::Engine::default())
    }
}

/// Starts the engine's thread, which owns `executor` from here on.
///
/// If the system gives no thread, the handle is closed from the start and says so to every caller.
pub fn spawn(executor: Box<dyn Executor>, options: Options) -> Handle {
    let (commands, inbox) = mpsc::channel();
    let (ended_sender, ended) = watch::channel(());
    let stats = Arc::new(Mutex::new(Stats { levers: options.levers(), ..Stats::default() }));
    let context_tokens = executor.context_tokens().min(executor.n_blocks() * executor.block_tokens());
    let shared = Shared {
        commands,
        next_id: AtomicU64::new(0),
        places: Arc::new(Semaphore::new(options.max_queued)),
        max_queued: options.max_queued,
        context_tokens,
        vocab_size: executor.vocab_size(),
        stats: stats.clone(),
        ended,
    };
    thread::start(executor, options, inbox, stats, ended_sender);
    Handle { shared: Arc::new(shared) }
}

/// Cloneable access to one engine. When the last handle is gone the thread ends.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    commands: mpsc::Sender<Command>,
    next_id: AtomicU64,
    /// One permit per request that may wait. Bounds the command channel too.
    places: Arc<Semaphore>,
    max_queued: usize,
    context_tokens: usize,
    vocab_size: usize,
    stats: Arc<Mutex<Stats>>,
    /// Its sender is dropped as the thread's last act.
    ended: watch::Receiver<()>,
}

/// Number of a request. Ascending, so it is its age as well.
pub(super) type SequenceId = u64;

pub(super) type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

pub(super) enum Command {
    Generate {
        id: SequenceId,
        request: Request,
        reply: Reply<Completion>,
        /// Where the tokens of each step go, for those who cannot wait for the end.
        news: Option<channel::Sender<News>>,
        place: OwnedSemaphorePermit,
        /// On whose behalf.
        span: Span,
    },
    Cancel(SequenceId),
    AddAdapter {
        adapter: Arc<Adapter>,
        reply: Reply<AdapterId>,
    },
    RemoveAdapter {
        id: AdapterId,
        reply: Reply<()>,
    },
    Close,
}

impl Handle {
    /// Generates one answer. Dropping the future takes the sequence out of the engine within one step.
    ///
    /// Refused at once: a prompt that leaves no room for an answer, and any request while `max_queued` wait.
    pub async fn generate(&self, request: Request) -> Result<Completion, EngineError> {
        self.start(request, None)?.completion().await
    }

    /// As [`Handle::generate`], told step by step. Dropping what is returned takes the sequence out as well.
    pub fn follow(&self, request: Request) -> Result<Following, EngineError> {
        // a message has at least one token, so that a slow listener loses none and holds up nobody
        let (sender, news) = channel::channel(request.max_tokens.max(1) as usize);
        Ok(Following { started: self.start(request, Some(sender))?, news })
    }

    fn start(&self, request: Request, news: Option<channel::Sender<News>>) -> Result<Started, EngineError> {
        self.check(&request)?;
        let place = self
            .shared
            .places
            .clone()
            .try_acquire_owned()
            .map_err(|_| EngineError::QueueFull { queued: self.shared.max_queued })?;
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.send(Command::Generate { id, request, reply, news, place, span: Span::current() })?;
        Ok(Started { commands: self.shared.commands.clone(), id, answer, is_answered: false })
    }

    /// As of the last step.
    pub fn stats(&self) -> Stats {
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Longest sequence, prompt and answer together, in tokens.
    pub fn context_tokens(&self) -> usize {
        self.shared.context_tokens
    }

    /// Takes an adapter in, between two steps.
    pub async fn add_adapter(&self, adapter: Arc<Adapter>) -> Result<AdapterId, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::AddAdapter { adapter, reply })?;
        answer.await.unwrap_or(Err(EngineError::Closed))
    }

    /// Refuses new requests with this adapter at once, frees it when the last sequence that uses it has
    /// ended, and returns then.
    pub async fn remove_adapter(&self, id: AdapterId) -> Result<(), EngineError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::RemoveAdapter { id, reply })?;
        answer.await.unwrap_or(Err(EngineError::Closed))
    }

    /// Ends the thread: whatever waits or runs fails with [`EngineError::Closed`]. Returns when the executor
    /// has been dropped, so its memory is free. May be called again, by any clone.
    pub async fn close(&self) {
        let _ = self.shared.commands.send(Command::Close);
        let mut ended = self.shared.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    pub fn is_closed(&self) -> bool {
        self.shared.ended.has_changed().is_err()
    }

    fn check(&self, request: &Request) -> Result<(), EngineError> {
        let invalid = |what: &str| Err(EngineError::InvalidRequest(what.into()));
        if request.prompt.is_empty() {
            return invalid("the prompt has no tokens");
        }
        if request.max_tokens == 0 {
            return invalid("max_tokens is 0");
        }
        if request.prompt.iter().any(|&token| token as usize >= self.shared.vocab_size) {
            return invalid("the prompt holds a token that the model does not have");
        }
        let sampling = &request.sampling;
        if !(sampling.temperature >= 0.0 && sampling.temperature.is_finite()) {
            return invalid("the temperature is not a number from 0");
        }
        if !(sampling.top_p > 0.0 && sampling.top_p <= 1.0) {
            return invalid("top_p is not above 0 and at most 1");
        }
        if !(0.0..1.0).contains(&sampling.min_p) {
            return invalid("min_p is not from 0 to below 1");
        }
        if request.prompt.len() >= self.shared.context_tokens {
            return Err(EngineError::PromptTooLong {
                prompt_tokens: request.prompt.len(),
                max_tokens: request.max_tokens as usize,
                context_tokens: self.shared.context_tokens,
            });
        }
        Ok(())
    }

    fn send(&self, command: Command) -> Result<(), EngineError> {
        self.shared.commands.send(command).map_err(|_| EngineError::Closed)
    }
}

/// A sequence that was handed over; dropped before its answer, it is cancelled.
struct Started {
    commands: mpsc::Sender<Command>,
    id: SequenceId,
    answer: oneshot::Receiver<Result<Completion, EngineError>>,
    is_answered: bool,
}

impl Started {
    async fn completion(mut self) -> Result<Completion, EngineError> {
        let result = (&mut self.answer).await;
        self.is_answered = true;
        result.unwrap_or(Err(EngineError::Closed))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.is_answered {
            let _ = self.commands.send(Command::Cancel(self.id));
        }
    }
}

/// An answer on its way.
pub struct Following {
    started: Started,
    news: channel::Receiver<News>,
}

impl Following {
    /// The next tokens; `None` once all have been told: [`Following::completion`] says how it ended.
    pub async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }

    pub async fn completion(self) -> Result<Completion, EngineError> {
        self.started.completion().await
    }
}
