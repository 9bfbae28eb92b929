//! One model's life: a task that owns its state and takes one command at a time.
//!
//! `not_loaded → loading → ready → (draining) → not_loaded`, and `loading | ready → error → loading`. Each
//! state is a method that returns the next one; every change is also checked against
//! [`ModelStatus::may_become`] in debug builds. A command is answered after the state has changed, so whoever
//! asked sees the state that the answer speaks of.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::{mpsc, oneshot, watch};

use super::base::{Base, Bases, Lease, Phase};
use super::device::Place;
use super::error::ModelError;
use super::loader::{self, Order};
use super::served::Served;
use super::{inspect, selftest};
use crate::domain::model::{LoadFailure, LoadProgress, LoadStage, ModelStatus};
use crate::engine::request::AdapterId;
use crate::nn::weights::adapter::Adapter;
use crate::shutdown::Shutdown;

/// How often a ready model looks whether its engine is alive.
const ENGINE_CHECK: Duration = Duration::from_millis(200);

pub type Reply = oneshot::Sender<Result<(), ModelError>>;

pub enum Command {
    /// Answered when the load is accepted.
    Load(Reply),
    /// Answered when the memory is free.
    Unload(Reply),
    /// Unloads, then loads; answered when the load is accepted.
    Reload(Reply),
    /// Unloads and ends the task.
    End(Reply),
}

/// What the manager and the task share.
pub struct Shared {
    pub status: watch::Sender<ModelStatus>,
    pub served: Mutex<Option<Arc<Served>>>,
    /// The newest failure and its time; a later success does not erase it.
    pub last_error: Mutex<Option<(DateTime<Utc>, LoadFailure)>>,
}

impl Shared {
    fn set(&self, next: ModelStatus) {
        self.status.send_modify(|status| {
            debug_assert!(status.may_become(&next), "{status:?} became {next:?}");
            *status = next;
        });
    }
}

pub struct Lifecycle {
    pub order: Order,
    pub bases: Bases,
    pub shared: Arc<Shared>,
    pub commands: mpsc::Receiver<Command>,
    pub shutdown: Shutdown,
    /// Loads tried since the last success or unload.
    pub attempt: u32,
}

/// A loaded model with what has to be given back.
struct Serving {
    lease: Lease,
    base: Arc<Base>,
    adapter: Option<AdapterId>,
    released: watch::Receiver<()>,
    load_s: f64,
}

/// What the self-test has shown to answer.
struct Proven {
    served: Arc<Served>,
    released: watch::Receiver<()>,
    adapter: Option<AdapterId>,
}

/// Why a load did not come to its end.
enum Stop {
    Failed(Arc<ModelError>),
    /// By a command, which is answered when everything is given back.
    GivenUp(Next, Option<Reply>),
}

impl From<ModelError> for Stop {
    fn from(cause: ModelError) -> Self {
        Self::Failed(Arc::new(cause))
    }
}

enum Next {
    NotLoaded,
    Load,
    Serve(Box<Serving>),
    Failed { retry_in: Option<Duration> },
    End,
}

impl Lifecycle {
    pub async fn run(mut self, load_at_start: bool) {
        let mut next = if load_at_start { Next::Load } else { Next::NotLoaded };
        loop {
            next = match next {
                Next::NotLoaded => self.not_loaded().await,
                Next::Load => self.load().await,
                Next::Serve(serving) => self.serve(*serving).await,
                Next::Failed { retry_in } => self.failed(retry_in).await,
                Next::End => return,
            };
        }
    }

    async fn not_loaded(&mut self) -> Next {
        self.attempt = 0;
        self.shared.set(ModelStatus::NotLoaded);
        self.idle(None).await
    }

    async fn failed(&mut self, retry_in: Option<Duration>) -> Next {
        self.idle(retry_in).await
    }

    /// Nothing is loaded: waits for a command, or for the time of the next try.
    async fn idle(&mut self, retry_in: Option<Duration>) -> Next {
        let shutdown = self.shutdown.clone();
        let retry = async {
            match retry_in {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(retry);
        loop {
            let command = tokio::select! {
                command = self.commands.recv() => command,
                () = &mut retry, if !shutdown.is_requested() => return Next::Load,
            };
            match command {
                None => return Next::End,
                Some(Command::Load(reply) | Command::Reload(reply)) => {
                    let verdict = self.admit().await;
                    let is_admitted = verdict.is_ok();
                    if is_admitted {
                        self.attempt = 0;
                        self.publish(waiting(LoadStage::Waiting));
                    }
                    let _ = reply.send(verdict);
                    if is_admitted {
                        return Next::Load;
                    }
                }
                Some(Command::Unload(reply)) => {
                    self.shared.set(ModelStatus::NotLoaded);
                    let _ = reply.send(Ok(()));
                    return Next::NotLoaded;
                }
                Some(Command::End(reply)) => {
                    self.shared.set(ModelStatus::NotLoaded);
                    let _ = reply.send(Ok(()));
                    return Next::End;
                }
            }
        }
    }

    /// Refuses a load that does not fit before anything changes.
    async fn admit(&self) -> Result<(), ModelError> {
        if self.shutdown.is_requested() {
            return Err(ModelError::Stopping);
        }
        let (order, bases) = (self.order.clone(), self.bases.clone());
        // what cannot be planned yet (a download, a damaged file) is for the load itself to report
        match loader::on_thread(move || inspect::plan(&order, &bases)).await {
            Ok(Some(plan)) if !plan.fits() => Err(ModelError::InsufficientMemory { plan: Box::new(plan) }),
            _ => Ok(()),
        }
    }

    async fn load(&mut self) -> Next {
        self.attempt += 1;
        let began = Instant::now();
        self.publish(waiting(LoadStage::Waiting));
        let engine = &self.order.settings.engine;
        let key = inspect::base_key(&self.order.model, engine);
        let (key, place) = match key.and_then(|key| Ok((key, Place::of(&self.order.model, engine)?))) {
            Ok(found) => found,
            Err(cause) => return self.fail(&cause),
        };
        let lease = self.bases.lease(&key, &self.order.model.name, &self.order, place).await;
        let outcome = match self.follow(&lease).await {
            Ok(base) => self.add(&lease, base).await,
            Err(stop) => Err(stop),
        };
        match outcome {
            Ok((base, proven)) => {
                let load_s = began.elapsed().as_secs_f64();
                let Proven { served, released, adapter } = proven;
                *self.shared.served.lock().unwrap_or_else(PoisonError::into_inner) = Some(served);
                Next::Serve(Box::new(Serving { lease, base, adapter, released, load_s }))
            }
            Err(Stop::Failed(cause)) => {
                lease.release().await;
                self.fail(&cause)
            }
            Err(Stop::GivenUp(next, reply)) => {
                lease.release().await;
                match next {
                    Next::Load => self.publish(waiting(LoadStage::Waiting)),
                    _ => self.shared.set(ModelStatus::NotLoaded),
                }
                if let Some(reply) = reply {
                    let _ = reply.send(Ok(()));
                }
                next
            }
        }
    }

    /// Mirrors the base's load; ends early when a command gives this model up.
    async fn follow(&mut self, lease: &Lease) -> Result<Arc<Base>, Stop> {
        let mut phase = lease.watch();
        let shutdown = self.shutdown.clone();
        loop {
            match phase.borrow_and_update().clone() {
                Phase::Loaded(base) => return Ok(base),
                Phase::Failed(cause) => return Err(Stop::Failed(cause)),
                Phase::Gone => return Err(ModelError::EngineEnded.into()),
                Phase::Loading(progress) => self.publish(progress),
            }
            tokio::select! {
                _ = phase.changed() => {}
                () = shutdown.requested() => return Err(Stop::GivenUp(Next::NotLoaded, None)),
                command = self.commands.recv() => self.meanwhile(command)?,
            }
        }
    }

    /// A command to a model that is being loaded.
    fn meanwhile(&mut self, command: Option<Command>) -> Result<(), Stop> {
        match command {
            None => Err(Stop::GivenUp(Next::End, None)),
            Some(Command::Load(reply)) => {
                let _ = reply.send(Ok(()));
                Ok(())
            }
            Some(Command::Reload(reply)) => {
                self.attempt = 0;
                Err(Stop::GivenUp(Next::Load, Some(reply)))
            }
            Some(Command::Unload(reply)) => Err(Stop::GivenUp(Next::NotLoaded, Some(reply))),
            Some(Command::End(reply)) => Err(Stop::GivenUp(Next::End, Some(reply))),
        }
    }

    /// Adds what is this model's own to a loaded base.
    async fn add(&mut self, lease: &Lease, base: Arc<Base>) -> Result<(Arc<Base>, Proven), Stop> {
        let dir = self.fetch_adapter().await?;
        let proven = self.prove(lease, &base, dir).await?;
        Ok((base, proven))
    }

    /// Brings the adapter here; a download shows its bytes, and ends early when a command gives it up. What
    /// it has fetched by then stays in the cache.
    async fn fetch_adapter(&mut self) -> Result<Option<PathBuf>, Stop> {
        if self.order.model.adapter.is_none() {
            return Ok(None);
        }
        self.publish(waiting(LoadStage::Adapter));
        let (sender, mut progress) = watch::channel(waiting(LoadStage::Adapter));
        let order = self.order.clone();
        let fetch = move || {
            loader::fetch_adapter(&order, &mut |progress| {
                if sender.is_closed() {
                    // given up: the way out of the hub's client, past the hook that prints
                    std::panic::resume_unwind(Box::new("the download was given up"));
                }
                sender.send_replace(progress);
            })
        };
        let shutdown = self.shutdown.clone();
        let fetched = loader::on_thread(fetch);
        tokio::pin!(fetched);
        loop {
            tokio::select! {
                dir = &mut fetched => return Ok(dir?),
                Ok(()) = progress.changed() => {
                    let reading = progress.borrow_and_update().clone();
                    self.publish(reading);
                }
                () = shutdown.requested() => return Err(Stop::GivenUp(Next::NotLoaded, None)),
                command = self.commands.recv() => self.meanwhile(command)?,
            }
        }
    }

    /// Adds the adapter, if its bytes fit, and shows that the model can answer.
    async fn prove(
        &self,
        lease: &Lease,
        base: &Arc<Base>,
        dir: Option<PathBuf>,
    ) -> Result<Proven, ModelError> {
        let model = &self.order.model;
        let mut adapter = None;
        if let Some(dir) = dir {
            self.publish(waiting(LoadStage::Adapter));
            lease
                .book_adapter(inspect::adapter_bytes_in(&dir), &inspect::wish(&self.order, lease.place()))?;
            let config = base.config.clone();
            let read = loader::on_thread(move || Ok(Adapter::load(&dir, &config)?)).await?;
            let bytes = read.bytes();
            adapter = Some(base.engine.add_adapter(Arc::new(read)).await?);
            lease.settle_adapter(bytes);
        }
        self.publish(waiting(LoadStage::SelfTest));
        let (served, released) = Served::new(&model.name, base.clone(), adapter, model.context_tokens);
        let timeout = Duration::from_millis(self.order.settings.loading.self_test_ms);
        match selftest::run(&served, timeout).await {
            Ok(()) => Ok(Proven { served, released, adapter }),
            Err(cause) => {
                // the base may serve others: this model's adapter must not stay behind
                if let Some(id) = adapter {
                    let _ = base.engine.remove_adapter(id).await;
                }
                Err(cause)
            }
        }
    }

    async fn serve(&mut self, serving: Serving) -> Next {
        let (since, load_s) = (self.order.clock.now(), serving.load_s);
        self.attempt = 0;
        self.shared.set(ModelStatus::Ready { since, load_s, draining: false });
        tracing::info!(model = %self.order.model.name, load_s, "model ready");
        let mut check = tokio::time::interval(ENGINE_CHECK);
        loop {
            let command = tokio::select! {
                command = self.commands.recv() => command,
                _ = check.tick() => {
                    if !serving.base.engine.is_closed() {
                        continue;
                    }
                    self.take_served();
                    self.attempt = 1;
                    let next = self.fail(&ModelError::EngineEnded);
                    serving.give_back(Duration::ZERO).await;
                    return next;
                }
            };
            match command {
                Some(Command::Load(reply)) => {
                    let _ = reply.send(Ok(()));
                }
                Some(Command::Unload(reply)) => {
                    self.drain(serving, since).await;
                    self.shared.set(ModelStatus::NotLoaded);
                    let _ = reply.send(Ok(()));
                    return Next::NotLoaded;
                }
                Some(Command::Reload(reply)) => {
                    self.drain(serving, since).await;
                    self.publish(waiting(LoadStage::Waiting));
                    let _ = reply.send(Ok(()));
                    return Next::Load;
                }
                Some(Command::End(reply)) => {
                    self.drain(serving, since).await;
                    self.shared.set(ModelStatus::NotLoaded);
                    let _ = reply.send(Ok(()));
                    return Next::End;
                }
                None => {
                    self.drain(serving, since).await;
                    return Next::End;
                }
            }
        }
    }

    /// Nothing new is let in; what runs gets its grace; then the memory is free.
    async fn drain(&self, serving: Serving, since: chrono::DateTime<chrono::Utc>) {
        let load_s = serving.load_s;
        self.shared.set(ModelStatus::Ready { since, load_s, draining: true });
        self.take_served();
        let grace = Duration::from_millis(self.order.settings.loading.drain_ms);
        tokio::select! {
            () = serving.give_back(grace) => {}
            () = self.shutdown.requested_now() => {}
        }
    }

    fn take_served(&self) {
        self.shared.served.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn publish(&self, progress: LoadProgress) {
        let since = match &*self.shared.status.borrow() {
            ModelStatus::Loading { since, .. } => *since,
            _ => self.order.clock.now(),
        };
        self.shared.set(ModelStatus::Loading { progress, since });
    }

    fn fail(&self, cause: &ModelError) -> Next {
        let loading = &self.order.settings.loading;
        let may_retry = cause.is_passing() && self.attempt < loading.max_attempts;
        let retry_in =
            may_retry.then(|| retry_delay(self.attempt, loading.retry_first_ms, loading.retry_max_ms));
        let now = self.order.clock.now();
        let failure = LoadFailure {
            code: cause.word().into(),
            message: cause.to_string(),
            hint: cause.hint(),
            attempt: self.attempt,
            next_retry_at: retry_in.map(|delay| now + delay),
        };
        tracing::warn!(model = %self.order.model.name, code = cause.word(), %cause, ?retry_in, "model not loaded");
        *self.shared.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, failure.clone()));
        self.shared.set(ModelStatus::Error { failure, since: now });
        Next::Failed { retry_in }
    }
}

impl Serving {
    /// Waits for those who use the model, at most `grace`, and frees what it holds.
    async fn give_back(mut self, grace: Duration) {
        let _ = tokio::time::timeout(grace, async { while self.released.changed().await.is_ok() {} }).await;
        if let Some(id) = self.adapter {
            let _ = tokio::time::timeout(grace, self.base.engine.remove_adapter(id)).await;
        }
        drop(self.base);
        self.lease.release().await;
    }
}

/// Doubles from `first_ms` with every attempt, up to `max_ms`.
pub fn retry_delay(attempt: u32, first_ms: u64, max_ms: u64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(32);
    Duration::from_millis(first_ms.saturating_mul(1 << doublings).min(max_ms))
}

/// A stage without bytes.
fn waiting(stage: LoadStage) -> LoadProgress {
    LoadProgress { stage, bytes_done: 0, bytes_total: 0, bytes_per_s: None, eta_s: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_back_off_up_to_a_bound() {
        let delays: Vec<u64> =
            (1..8).map(|attempt| retry_delay(attempt, 100, 1_000).as_millis() as u64).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1_000, 1_000, 1_000]);
        assert_eq!(retry_delay(u32::MAX, u64::MAX, 7), Duration::from_millis(7));
    }
}
