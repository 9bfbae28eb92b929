//! One model's life: a task that owns its state and takes one command at a time.
//!
//! `not_loaded → loading → ready → (draining) → not_loaded`, and `loading | ready → error → loading`. Each
//! state is a method that returns the next one, so no other transition can be written down.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::base::{Base, Bases, Lease, Phase};
use super::error::ModelError;
use super::loader::{self, Order};
use super::served::Served;
use super::source::Source;
use super::{budget, selftest};
use crate::domain::model::{LoadFailure, LoadProgress, LoadStage, ModelStatus};
use crate::engine::request::AdapterId;
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
        self.shared.status.send_replace(ModelStatus::NotLoaded);
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
                    let _ = reply.send(verdict);
                    if is_admitted {
                        self.attempt = 0;
                        return Next::Load;
                    }
                }
                Some(Command::Unload(reply)) => {
                    let _ = reply.send(Ok(()));
                    return Next::NotLoaded;
                }
                Some(Command::End(reply)) => {
                    self.shared.status.send_replace(ModelStatus::NotLoaded);
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
        match loader::on_thread(move || plan(&order, &bases)).await {
            Ok(Some(plan)) if !plan.fits() => Err(ModelError::InsufficientMemory { plan: Box::new(plan) }),
            _ => Ok(()),
        }
    }

    async fn load(&mut self) -> Next {
        self.attempt += 1;
        let began = Instant::now();
        self.publish(waiting());
        let key = match base_key(&self.order.model.path, self.order.model.tensor_parallel_size) {
            Ok(key) => key,
            Err(cause) => return self.fail(&cause),
        };
        let lease = self.bases.lease(&key, &self.order.model.name, &self.order).await;
        let base = match self.follow(&lease).await {
            Ok(Ok(base)) => base,
            Ok(Err(cause)) => {
                lease.release().await;
                return self.fail(&cause);
            }
            Err((next, reply)) => {
                lease.release().await;
                if matches!(next, Next::End) {
                    self.shared.status.send_replace(ModelStatus::NotLoaded);
                }
                if let Some(reply) = reply {
                    let _ = reply.send(Ok(()));
                }
                return next;
            }
        };
        match self.prove(&base).await {
            Ok((served, released, adapter)) => {
                let load_s = began.elapsed().as_secs_f64();
                *self.shared.served.lock().unwrap_or_else(PoisonError::into_inner) = Some(served);
                Next::Serve(Box::new(Serving { lease, base, adapter, released, load_s }))
            }
            Err(cause) => {
                drop(base);
                lease.release().await;
                self.fail(&cause)
            }
        }
    }

    /// Mirrors the base's load; ends early when a command gives this model up.
    async fn follow(
        &mut self,
        lease: &Lease,
    ) -> Result<Result<Arc<Base>, Arc<ModelError>>, (Next, Option<Reply>)> {
        let mut phase = lease.watch();
        let shutdown = self.shutdown.clone();
        loop {
            match phase.borrow_and_update().clone() {
                Phase::Loaded(base) => return Ok(Ok(base)),
                Phase::Failed(cause) => return Ok(Err(cause)),
                Phase::Gone => return Ok(Err(Arc::new(ModelError::EngineEnded))),
                Phase::Loading(progress) => self.publish(progress),
            }
            tokio::select! {
                _ = phase.changed() => {}
                () = shutdown.requested() => return Err((Next::NotLoaded, None)),
                command = self.commands.recv() => match command {
                    None => return Err((Next::End, None)),
                    Some(Command::Load(reply) | Command::Reload(reply)) => {
                        let _ = reply.send(Ok(()));
                    }
                    Some(Command::Unload(reply)) => return Err((Next::NotLoaded, Some(reply))),
                    Some(Command::End(reply)) => return Err((Next::End, Some(reply))),
                },
            }
        }
    }

    /// Adds the adapter and shows that the model can answer.
    async fn prove(
        &self,
        base: &Arc<Base>,
    ) -> Result<(Arc<Served>, watch::Receiver<()>, Option<AdapterId>), ModelError> {
        let mut adapter = None;
        if self.order.model.adapter.is_some() {
            self.publish(LoadProgress { stage: LoadStage::Adapter, ..waiting() });
            let (order, config) = (self.order.clone(), base.config.clone());
            if let Some(read) = loader::on_thread(move || loader::load_adapter(&order, &config)).await? {
                adapter = Some(base.engine.add_adapter(read).await?);
            }
        }
        self.publish(LoadProgress { stage: LoadStage::SelfTest, ..waiting() });
        let model = &self.order.model;
        let (served, released) = Served::new(&model.name, base.clone(), adapter, model.context_tokens);
        let timeout = Duration::from_millis(self.order.settings.loading.self_test_ms);
        match selftest::run(&served, timeout).await {
            Ok(()) => Ok((served, released, adapter)),
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
        self.shared.status.send_replace(ModelStatus::Ready { since, load_s, draining: false });
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
                    self.shared.status.send_replace(ModelStatus::NotLoaded);
                    let _ = reply.send(Ok(()));
                    return Next::NotLoaded;
                }
                Some(Command::Reload(reply)) => {
                    self.drain(serving, since).await;
                    let _ = reply.send(Ok(()));
                    return Next::Load;
                }
                Some(Command::End(reply)) => {
                    self.drain(serving, since).await;
                    self.shared.status.send_replace(ModelStatus::NotLoaded);
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
        self.shared.status.send_replace(ModelStatus::Ready { since, load_s, draining: true });
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
        let now = self.order.clock.now();
        self.shared.status.send_modify(|status| {
            let since = match status {
                ModelStatus::Loading { since, .. } => *since,
                _ => now,
            };
            *status = ModelStatus::Loading { progress, since };
        });
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
        self.shared.status.send_replace(ModelStatus::Error { failure, since: now });
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

/// Bytes the model of an order needs now; `None` where that is not known before a download.
pub fn plan(order: &Order, bases: &Bases) -> Result<Option<crate::domain::model::MemoryPlan>, ModelError> {
    let model = &order.model;
    let key = base_key(&model.path, model.tensor_parallel_size)?;
    let device = bases.device(None);
    if let Some((base, holders)) = bases.loaded(&key) {
        if holders.first().is_some_and(|first| *first == model.name) {
            return Ok(Some(base.plan.clone()));
        }
        let with = holders.first().map_or("", |name| name);
        let adapter_bytes = loader::adapter_bytes(model)?;
        let utilization = model.gpu_memory_utilization;
        return Ok(Some(budget::plan_shared(adapter_bytes, &device, utilization, with, base.plan.kv_tokens)));
    }
    match loader::local(order)? {
        Some(path) => Ok(Some(budget::plan(&loader::inspect(&path, order)?, &device, &loader::wish(order)))),
        None => Ok(None),
    }
}

/// What makes two bases one: the place they are read from. A value the device cannot give is refused.
pub fn base_key(path: &str, tensor_parallel_size: u32) -> Result<String, ModelError> {
    if tensor_parallel_size > 1 {
        return Err(ModelError::Unsupported(format!(
            "tensor_parallel_size {tensor_parallel_size} on a device without several GPUs"
        )));
    }
    Ok(match Source::parse(path)? {
        Source::Local(path) => path.display().to_string(),
        Source::Hub { repo, revision } => format!("hub:{repo}@{revision}"),
    })
}

/// Doubles from `first_ms` with every attempt, up to `max_ms`.
pub fn retry_delay(attempt: u32, first_ms: u64, max_ms: u64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(32);
    Duration::from_millis(first_ms.saturating_mul(1 << doublings).min(max_ms))
}

fn waiting() -> LoadProgress {
    LoadProgress { stage: LoadStage::Waiting, bytes_done: 0, bytes_total: 0, bytes_per_s: None, eta_s: None }
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
