//! The process's side of the queue: one apalis worker per model, and the tasks that keep claims alive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use apalis::prelude::{Data, WorkerBuilder, WorkerBuilderExt};
use apalis_core::worker::context::WorkerContext;
use futures::future::BoxFuture;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use super::backend::ChunkBackend;
use super::bundle::{Bundle, Desk};
use super::hands::Hands;
use super::pace::Pace;
use crate::config::settings;
use crate::domain::id::{JobId, WorkerId};
use crate::domain::model::ModelStatus;
use crate::shutdown::Shutdown;
use crate::store::finish::{Finished, StageDone};
use crate::store::rescue::Rescued;
use crate::store::{CHANNEL_CANCEL, CHANNEL_WORK, Store, StoreError};

/// Pause before a worker or a listener that ended is started again.
const RESTART: Duration = Duration::from_secs(1);
/// A stage that was handed out and not advanced is handed out again after this.
const STAGE_RETRY_MS: u64 = 10_000;

/// Works one bundle to its end: every chunk is finished or released when it returns.
pub type Handler = Arc<dyn Fn(Arc<Bundle>) -> BoxFuture<'static, ()> + Send + Sync>;

/// A process's place at the queue.
#[derive(Clone)]
pub struct Queue {
    store: Store,
    settings: settings::Queue,
    worker: WorkerId,
    hands: Hands,
    stages: mpsc::UnboundedSender<StageDone>,
    /// Room for results that are not committed yet, of all models together.
    places: Arc<Semaphore>,
    /// Per model: rung when new work is announced.
    bells: Arc<Mutex<HashMap<String, Arc<Notify>>>>,
    shutdown: Shutdown,
}

impl Queue {
    /// Starts listening, renewing and rescuing. Stages that are done come out of the receiver, each at
    /// least once; see [`Store::advance`], which is safe to repeat.
    pub fn start(
        store: Store,
        settings: settings::Queue,
        worker: WorkerId,
        shutdown: Shutdown,
    ) -> (Self, mpsc::UnboundedReceiver<StageDone>) {
        let (stages, done) = mpsc::unbounded_channel();
        let places = Arc::new(Semaphore::new(settings.max_buffered_results as usize));
        let queue = Self {
            store,
            settings,
            worker,
            hands: Hands::default(),
            stages,
            places,
            bells: Arc::default(),
            shutdown,
        };
        queue.shutdown.spawn(queue.clone().renew_until_stopped());
        queue.shutdown.spawn(queue.clone().rescue_until_stopped());
        queue.shutdown.spawn(queue.clone().listen_until_stopped());
        (queue, done)
    }

    pub fn worker_id(&self) -> WorkerId {
        self.worker
    }

    /// Runs a worker for `model` until the process stops. A worker that ends by itself is started again.
    pub fn serve(&self, model: &str, gate: watch::Receiver<ModelStatus>, handler: Handler) {
        let queue = self.clone();
        let model: Arc<str> = model.into();
        self.shutdown.spawn(async move {
            while !queue.shutdown.is_requested() {
                // a task of its own: not even a panic of the worker ends the serving of its model
                let (worker, model_of_worker) = (queue.clone(), model.clone());
                let (gate, handler) = (gate.clone(), handler.clone());
                let worker = async move { worker.work(&model_of_worker, gate, handler).await };
                if let Err(error) = queue.shutdown.spawn(worker).await {
                    tracing::error!(%error, %model, "the worker panicked");
                }
                if !queue.shutdown.is_requested() {
                    tracing::warn!(%model, "the worker ended by itself and is started again");
                    tokio::time::sleep(RESTART).await;
                }
            }
        });
    }

    async fn work(&self, model: &Arc<str>, gate: watch::Receiver<ModelStatus>, handler: Handler) {
        let desk = Desk {
            store: self.store.clone(),
            hands: self.hands.clone(),
            pace: Arc::new(Mutex::new(Pace::new())),
            stages: self.stages.clone(),
            places: self.places.clone(),
            shutdown: self.shutdown.clone(),
            queue: self.settings.clone(),
        };
        let backend = ChunkBackend::new(desk, self.worker, model.clone(), gate, self.bell(model));
        let context = WorkerContext::new(&format!("{model}-{}", self.worker));
        let worker = WorkerBuilder::new(&context)
            .backend(backend)
            // one more than is kept in hand: see the backend's express claims
            .concurrency(self.settings.bundles_in_hand as usize + 1)
            .catch_panic()
            .data(Work { handler, shutdown: self.shutdown.clone() })
            .build(run);
        let mut running: BoxFuture<'static, _> = Box::pin(worker.run());
        let ended = tokio::select! {
            ended = &mut running => ended,
            () = self.shutdown.requested() => {
                // the worker claims nothing more, lets its handlers end, and closes the backend
                if let Err(error) = context.stop() {
                    tracing::debug!(%error, %model, "the worker had not begun");
                    return;
                }
                running.await
            }
        };
        if let Err(error) = ended {
            tracing::warn!(%error, %model, "the worker ended");
        }
    }

    fn bell(&self, model: &str) -> Arc<Notify> {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        bells.entry(model.to_string()).or_default().clone()
    }

    /// Ends only when nothing is held any more: a lease must live as long as the work under it.
    async fn renew_until_stopped(self) {
        let every = Duration::from_millis(self.settings.renew_ms);
        loop {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                // what is held is dropped; its leases run out
                () = self.shutdown.requested_now() => return,
            }
            let fences = self.hands.fences();
            if fences.is_empty() {
                if self.shutdown.is_requested() {
                    return;
                }
                continue;
            }
            match self.store.renew(&fences, self.settings.lease_ms).await {
                Ok(held) => self.hands.keep_only(&fences, &held),
                Err(error) => tracing::warn!(%error, claims = fences.len(), "leases could not be renewed"),
            }
            if self.shutdown.is_requested() && self.hands.fences().is_empty() {
                return;
            }
        }
    }

    async fn rescue_until_stopped(self) {
        let every = Duration::from_millis(self.settings.rescue_ms);
        let lease = Duration::from_millis(self.settings.lease_ms);
        let mut last_error: Option<Instant> = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = self.shutdown.requested() => return,
            }
            // after an outage, whoever held a claim gets a lease's time to come back before it is taken
            let may_take = last_error.is_none_or(|at| at.elapsed() > lease);
            if let Err(error) = self.look_after(may_take).await {
                last_error = Some(Instant::now());
                tracing::warn!(%error, "the look for abandoned work failed");
            }
        }
    }

    /// One look: due retries, expired jobs, abandoned chunks, stages without successor.
    async fn look_after(&self, may_take: bool) -> Result<(), StoreError> {
        if self.store.promote_due().await? > 0 {
            let bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
            bells.values().for_each(|bell| bell.notify_one());
        }
        for finished in self.store.expire_due().await? {
            self.hand_on(finished);
        }
        for abandoned in self.store.abandoned().await? {
            let is_ours = abandoned.worker == self.worker;
            if !may_take {
                continue;
            }
            if is_ours && self.hands.holds(abandoned.chunk.0, abandoned.attempt) {
                // the renewal was late, not the work
                continue;
            }
            let rescued =
                self.store.rescue(abandoned, !is_ours, false, self.settings.max_worker_deaths).await?;
            tracing::info!(chunk = abandoned.chunk.0, job = %abandoned.job, ?rescued, "abandoned work");
            if let Rescued::Ended(finished) = rescued {
                self.hand_on(finished);
            }
        }
        for done in self.store.take_over_stages(STAGE_RETRY_MS).await? {
            self.hand_on(Finished::StageDone(done));
        }
        Ok(())
    }

    fn hand_on(&self, finished: Finished) {
        if let Finished::StageDone(done) = finished {
            // the receiver is gone only while the process ends
            let _ = self.stages.send(done);
        }
    }

    async fn listen_until_stopped(self) {
        while !self.shutdown.is_requested() {
            let ended = tokio::select! {
                ended = self.listen() => ended,
                () = self.shutdown.requested() => return,
            };
            if let Err(error) = ended {
                tracing::warn!(%error, "notifications are away; polling goes on");
            }
            tokio::time::sleep(RESTART).await;
        }
    }

    async fn listen(&self) -> Result<(), StoreError> {
        let mut listener = self.store.listen(&[CHANNEL_WORK, CHANNEL_CANCEL]).await?;
        loop {
            let notice = listener.recv().await.map_err(StoreError::from)?;
            match notice.channel() {
                CHANNEL_WORK => self.bell(notice.payload()).notify_one(),
                CHANNEL_CANCEL => {
                    if let Ok(job) = notice.payload().parse::<JobId>() {
                        self.hands.drop_job(job);
                    }
                }
                _ => {}
            }
        }
    }
}

#[derive(Clone)]
struct Work {
    handler: Handler,
    shutdown: Shutdown,
}

/// apalis polls all handlers of a worker in one task: the bundle gets one of its own.
async fn run(bundle: Arc<Bundle>, work: Data<Work>) -> Result<(), tokio::task::JoinError> {
    let mut handled = work.shutdown.spawn((work.handler)(bundle.clone()));
    let ended = tokio::select! {
        ended = &mut handled => ended,
        () = work.shutdown.requested_now() => {
            handled.abort();
            handled.await
        }
    };
    if let Err(error) = &ended
        && error.is_panic()
    {
        tracing::error!(%error, "a handler panicked; the chunks it left open count it as a death");
        bundle.accuse_open().await;
    }
    ended
}
