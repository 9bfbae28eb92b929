//! What a worker gets: claims of one or more chunks with their items, and the fenced ways to end them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::ended;
use super::hands::Hands;
use super::pace::Pace;
use crate::config::settings;
use crate::domain::id::Seq;
use crate::domain::item::NewResult;
use crate::domain::lease::Claim;
use crate::shutdown::Shutdown;
use crate::store::claim::ClaimedItem;
use crate::store::finish::{Fenced, Finish, Finished, StageDone, Write};
use crate::store::rescue::{Abandoned, Rescued};
use crate::store::{Store, StoreError};

/// First pause after a write that found no database; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Claims handed out together: one helping of work for the engine.
#[derive(Debug)]
pub struct Bundle {
    pub chunks: Vec<Held>,
    desk: Desk,
}

/// One claim in hand.
#[derive(Debug)]
pub struct Held {
    pub claim: Claim,
    /// Those that had not ended when it was claimed.
    pub items: Vec<ClaimedItem>,
    /// Cancelled when the claim is lost: the job was cancelled, or another worker has it now.
    pub lost: CancellationToken,
}

/// Room for the result of one item that runs, or of several that have ended and are not committed yet.
#[derive(Debug)]
pub struct Place(OwnedSemaphorePermit);

impl Place {
    pub fn join(&mut self, other: Place) {
        self.0.merge(other.0);
    }
}

/// What a bundle needs of its worker.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    pub store: Store,
    pub hands: Hands,
    pub pace: Arc<Mutex<Pace>>,
    pub stages: mpsc::UnboundedSender<StageDone>,
    /// Of the process: results that may be on their way at once.
    pub places: Arc<Semaphore>,
    pub shutdown: Shutdown,
    pub queue: settings::Queue,
}

impl Desk {
    pub fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bundle {
    pub(super) fn new(desk: Desk, claims: Vec<Claim>, items: Vec<ClaimedItem>) -> Self {
        let mut chunks: Vec<Held> = claims
            .into_iter()
            .map(|claim| Held { lost: desk.hands.take(&claim), claim, items: Vec::new() })
            .collect();
        for item in items {
            if let Some(held) = chunks.iter_mut().find(|held| held.claim.fence.chunk == item.chunk) {
                held.items.push(item);
            }
        }
        desk.pace().begin(Instant::now());
        Self { chunks, desk }
    }

    pub fn n_items(&self) -> usize {
        self.chunks.iter().map(|held| held.items.len()).sum()
    }

    /// Room for one more result; `None` while as many are held as `queue.max_buffered_results` says. An item
    /// takes it before it begins and gives it back with its commit.
    pub fn place(&self) -> Option<Place> {
        self.desk.places.clone().try_acquire_owned().ok().map(Place)
    }

    /// Writes results of running chunks, by index into `chunks`. Waits for a database that is away.
    pub async fn commit(&self, results: &[(usize, Vec<NewResult>)]) {
        let writes: Vec<Write<'_>> = results
            .iter()
            .filter(|(at, results)| !results.is_empty() && !self.chunks[*at].lost.is_cancelled())
            .map(|(at, results)| Write { claim: &self.chunks[*at].claim, results })
            .collect();
        if writes.is_empty() {
            return;
        }
        let Some(answers) = self.patiently("commit", || self.desk.store.commit_results(&writes)).await else {
            for (at, _) in results {
                self.accuse(*at).await;
            }
            return;
        };
        for (write, answer) in writes.iter().zip(answers) {
            match answer {
                Fenced::Held => self.desk.pace().add(write.results.len(), Instant::now()),
                Fenced::Lost => self.lose(write.claim),
            }
        }
    }

    /// Ends a chunk: its last results, and the items that are to be tried again. Items that are in neither
    /// wait again.
    pub async fn finish(&self, at: usize, results: &[NewResult], again: &[Seq]) {
        let held = &self.chunks[at];
        if held.lost.is_cancelled() {
            return;
        }
        let finish =
            Finish { claim: &held.claim, results, again, again_after_ms: again_after_ms(held.claim.tries) };
        match self.patiently("finish", || self.desk.store.finish(&finish)).await {
            Some(Finished::Lost) => self.lose(&held.claim),
            Some(Finished::StageDone(done)) => {
                self.desk.pace().add(results.len(), Instant::now());
                // the receiver is gone only while the process ends; the rescue hands the stage out again
                let _ = self.desk.stages.send(done);
            }
            Some(Finished::Open) => self.desk.pace().add(results.len(), Instant::now()),
            Some(Finished::JobCompleted(job)) => {
                self.desk.pace().add(results.len(), Instant::now());
                ended::tell(&self.desk.store, job).await;
            }
            None => self.accuse(at).await,
        }
        self.desk.hands.put_down(&held.claim.fence);
    }

    /// The handler ended without order: every chunk it has left open is held to have lost a worker, so that
    /// an item that fells its handler each time is split off and ends as poison.
    pub(super) async fn accuse_open(&self) {
        for at in 0..self.chunks.len() {
            if self.desk.hands.fences().contains(&self.chunks[at].claim.fence) {
                self.accuse(at).await;
            }
        }
    }

    /// Takes a chunk from ourselves as a rescue would from a dead worker. A write that Postgres refuses
    /// would be refused again, so that counts too.
    async fn accuse(&self, at: usize) {
        let held = &self.chunks[at];
        if held.lost.is_cancelled() || self.desk.shutdown.requested_now().now_or_never().is_some() {
            return;
        }
        held.lost.cancel();
        let Claim { fence, job, stage, .. } = held.claim;
        let chunk =
            Abandoned { chunk: fence.chunk, job, stage, worker: fence.worker, attempt: fence.attempt };
        let max_deaths = self.desk.queue.max_worker_deaths;
        let accused =
            self.patiently("accuse", || self.desk.store.rescue(chunk, true, true, max_deaths)).await;
        if let Some(Rescued::Ended(Finished::StageDone(done))) = accused {
            let _ = self.desk.stages.send(done);
        }
    }

    /// Gives a chunk back untouched, but for what was committed.
    pub async fn release(&self, at: usize) {
        let held = &self.chunks[at];
        if !held.lost.is_cancelled() {
            let fences = [held.claim.fence];
            self.patiently("release", || self.desk.store.release(&fences)).await;
        }
        self.desk.hands.put_down(&held.claim.fence);
    }

    /// Tries of an item that may pass, this one included, before it fails for good.
    pub fn may_try_again(&self, at: usize) -> bool {
        let tries = u16::try_from(self.chunks[at].claim.tries).unwrap_or(0);
        tries + 1 < self.desk.queue.max_attempts
    }

    fn lose(&self, claim: &Claim) {
        tracing::info!(chunk = claim.fence.chunk.0, job = %claim.job, "claim lost, its writes were dropped");
        if let Some(held) = self.chunks.iter().find(|held| held.claim.fence == claim.fence) {
            held.lost.cancel();
        }
    }

    /// Repeats a write until it passes. `None`: it never will (a fault of ours, logged), or the process was
    /// told to stop at once; the lease then runs out and another worker repeats what is missing.
    async fn patiently<T, F>(&self, what: &str, write: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut pause = MIN_PAUSE;
        loop {
            let error = match write().await {
                Ok(done) => return Some(done),
                Err(error) => error,
            };
            if !error.is_transient() {
                tracing::error!(%error, what, "a write was refused by the database");
                return None;
            }
            tracing::warn!(%error, what, "the database is away; the write waits");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.desk.shutdown.requested_now() => return None,
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        for held in &self.chunks {
            self.desk.hands.put_down(&held.claim.fence);
        }
        self.desk.pace().end(Instant::now());
    }
}

/// Pause before a chunk of items that failed in a way that may pass: 1 s, 2 s, 4 s, … at most 60 s.
fn again_after_ms(tries: i16) -> u64 {
    1_000u64.saturating_mul(1 << tries.clamp(0, 6)).min(60_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let pauses: Vec<u64> = [0, 1, 2, 5, 6, 7, 100].map(again_after_ms).to_vec();
        assert_eq!(pauses, [1_000, 2_000, 4_000, 32_000, 60_000, 60_000, 60_000]);
    }
}
