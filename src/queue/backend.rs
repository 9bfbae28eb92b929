//! The apalis backend: the gate, the claim, and the sleep between two looks.
//!
//! A claim is some seconds of work, and `bundles_in_hand` of them are kept. A job that comes in then would
//! wait for one of them to end, although its turn has come; so there is room for one more, small bundle, which
//! takes only what is first in line and of no job that is in hand: an express claim.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use apalis_core::backend::finalize::Ephemeral;
use apalis_core::backend::{Backend, BackendConfig};
use apalis_core::task::Task;
use apalis_core::task::builder::TaskBuilder;
use apalis_core::worker::context::WorkerContext;
use futures::Stream;
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::Sleep;
use tokio_stream::wrappers::WatchStream;
use tower::layer::util::Identity;

use super::bundle::{Bundle, Desk};
use super::pace;
use crate::domain::id::{JobId, WorkerId};
use crate::domain::lease::Claim;
use crate::domain::model::ModelStatus;
use crate::store::claim::ClaimRequest;
use crate::store::rescue::suspect_deaths;
use crate::telemetry::metric::{self, Metric};

/// Shortest sleep after an empty look; doubles up to the settings' `poll_ms`.
const MIN_SLEEP: Duration = Duration::from_millis(20);

/// Claims bundles of one model's chunks while its gate is open.
pub struct ChunkBackend {
    desk: Desk,
    worker: WorkerId,
    model: Arc<str>,
    gate: WatchStream<ModelStatus>,
    gate_now: tokio::sync::watch::Receiver<ModelStatus>,
    is_open: bool,
    /// New work was announced: the sleep ends early. Polling is the guarantee.
    work: Arc<Notify>,
    woken: Option<BoxFuture<'static, ()>>,
    sleep: Option<Pin<Box<Sleep>>>,
    sleep_for: Duration,
    claim: Option<BoxFuture<'static, Option<Bundle>>>,
}

impl ChunkBackend {
    pub(super) fn new(
        desk: Desk,
        worker: WorkerId,
        model: Arc<str>,
        gate: tokio::sync::watch::Receiver<ModelStatus>,
        work: Arc<Notify>,
    ) -> Self {
        Self {
            desk,
            worker,
            model,
            gate: WatchStream::new(gate.clone()),
            gate_now: gate,
            is_open: false,
            work,
            woken: None,
            sleep: None,
            sleep_for: MIN_SLEEP,
            claim: None,
        }
    }

    /// Drives a claim in flight. `Pending` only while one is.
    fn poll_claim(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bundle>> {
        let Some(claim) = &mut self.claim else { return Poll::Ready(None) };
        let bundle = match claim.as_mut().poll(cx) {
            Poll::Ready(bundle) => bundle,
            Poll::Pending => return Poll::Pending,
        };
        self.claim = None;
        match bundle {
            Some(bundle) => {
                self.sleep_for = MIN_SLEEP;
                Poll::Ready(Some(bundle))
            }
            None => {
                self.go_to_sleep();
                Poll::Ready(None)
            }
        }
    }

    fn go_to_sleep(&mut self) {
        let longest = Duration::from_millis(self.desk.queue.poll_ms);
        self.sleep = Some(Box::pin(tokio::time::sleep(self.sleep_for)));
        self.sleep_for = (self.sleep_for * 2).min(longest).max(MIN_SLEEP);
    }

    /// Ready when the sleep is over or work was announced.
    fn poll_sleep(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = &mut self.sleep else { return Poll::Ready(()) };
        let work = &self.work;
        let woken = self.woken.get_or_insert_with(|| {
            let work = work.clone();
            Box::pin(async move { work.notified().await })
        });
        let announced = woken.as_mut().poll(cx).is_ready();
        if announced {
            self.woken = None;
            self.sleep_for = MIN_SLEEP;
        }
        if announced || sleep.as_mut().poll(cx).is_ready() {
            self.sleep = None;
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn start_claim(&mut self) {
        let (items_per_s, running) = {
            let pace = self.desk.pace();
            (pace.items_per_s(), pace.running())
        };
        let helping = if running < self.desk.queue.bundles_in_hand {
            Helping { budget: pace::budget(items_per_s, &self.desk.queue), besides: Vec::new() }
        } else {
            Helping { budget: pace::budget(None, &self.desk.queue), besides: self.desk.hands.jobs() }
        };
        let (desk, worker, model) = (self.desk.clone(), self.worker, self.model.clone());
        self.claim = Some(Box::pin(claim(desk, worker, model, self.gate_now.clone(), helping)));
    }
}

/// What a claim may take.
struct Helping {
    budget: i32,
    /// Of an express claim: the jobs in hand.
    besides: Vec<JobId>,
}

/// One claim with its items. A database that is away is an empty look.
async fn claim(
    desk: Desk,
    worker: WorkerId,
    model: Arc<str>,
    gate: tokio::sync::watch::Receiver<ModelStatus>,
    helping: Helping,
) -> Option<Bundle> {
    if desk.places.available_permits() == 0 {
        // results wait for the database; more work would only wait with them
        return None;
    }
    let request = ClaimRequest {
        worker,
        model: &model,
        budget: helping.budget,
        lease_ms: desk.queue.lease_ms,
        suspect_deaths: suspect_deaths(desk.queue.max_worker_deaths),
        besides: &helping.besides,
    };
    let claims = match desk.store.claim(&request).await {
        Ok(claims) if claims.is_empty() => return None,
        Ok(claims) => claims,
        Err(error) => {
            tracing::warn!(%error, %model, "nothing could be claimed");
            return None;
        }
    };
    if !gate.borrow().admits_work() {
        // shut while the claim was on its way: nothing stays claimed behind it
        give_back(&desk, &claims).await;
        return None;
    }
    match desk.store.claimed_items(&claims).await {
        Ok(items) => {
            metric::count(Metric::Claims, &[("model", &*model)], 1);
            metric::count(Metric::ClaimedItems, &[("model", &*model)], items.len() as u64);
            Some(Bundle::new(desk, claims, items))
        }
        Err(error) => {
            tracing::warn!(%error, %model, "the items of a claim could not be read; it is given back");
            give_back(&desk, &claims).await;
            None
        }
    }
}

async fn give_back(desk: &Desk, claims: &[Claim]) {
    let fences: Vec<_> = claims.iter().map(|claim| claim.fence).collect();
    if let Err(error) = desk.store.release(&fences).await {
        tracing::warn!(%error, "the claim could not be given back; its lease will run out");
    }
}

impl Backend for ChunkBackend {
    type Task = Task<Arc<Bundle>>;
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Option<Result<Self::Task, Self::Error>>> {
        loop {
            match self.poll_claim(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(bundle)) => {
                    return Poll::Ready(Some(Ok(TaskBuilder::new(Arc::new(bundle)).build())));
                }
                Poll::Ready(None) => {}
            }
            while let Poll::Ready(Some(status)) = Pin::new(&mut self.gate).poll_next(cx) {
                if status.admits_work() && !self.is_open {
                    self.sleep = None;
                    self.sleep_for = MIN_SLEEP;
                }
                self.is_open = status.admits_work();
            }
            if !self.is_open || self.desk.shutdown.is_requested() {
                // woken by the gate; a stop ends the worker through its context
                return Poll::Pending;
            }
            if self.poll_sleep(cx).is_pending() {
                return Poll::Pending;
            }
            self.start_claim();
        }
    }

    /// A claim in flight is finished and given back.
    fn poll_close(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Self::Error>> {
        match self.poll_claim(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Ok(())),
            Poll::Ready(Some(bundle)) => {
                self.claim = Some(Box::pin(async move {
                    for at in 0..bundle.chunks.len() {
                        bundle.release(at).await;
                    }
                    None
                }));
                self.poll_close(cx, &WorkerContext::new("closing"))
            }
        }
    }
}

impl BackendConfig for ChunkBackend {
    type Args = Arc<Bundle>;
    type Id = u64;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &Self::Config {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Self::Layer {
        Identity::new()
    }
}
