//! The claims that this process holds, and who is to be told when one is lost.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::domain::id::JobId;
use crate::domain::lease::{Claim, Fence};

/// Shared between workers, renewal and rescue. The lock is never held across an await.
#[derive(Clone, Debug, Default)]
pub struct Hands {
    held: Arc<Mutex<HashMap<Fence, (JobId, CancellationToken)>>>,
}

impl Hands {
    /// Takes a claim in hand; the token is cancelled when the claim is lost.
    pub fn take(&self, claim: &Claim) -> CancellationToken {
        let token = CancellationToken::new();
        self.lock().insert(claim.fence, (claim.job, token.clone()));
        token
    }

    pub fn put_down(&self, fence: &Fence) {
        self.lock().remove(fence);
    }

    pub fn holds(&self, chunk: i64, attempt: i32) -> bool {
        self.lock().keys().any(|fence| fence.chunk.0 == chunk && fence.attempt == attempt)
    }

    pub fn fences(&self) -> Vec<Fence> {
        self.lock().keys().copied().collect()
    }

    /// Jobs of which something is held.
    pub fn jobs(&self) -> Vec<JobId> {
        let jobs: HashSet<JobId> = self.lock().values().map(|(job, _)| *job).collect();
        jobs.into_iter().collect()
    }

    /// These are the ones still held, of those that were asked about.
    pub fn keep_only(&self, asked: &[Fence], held: &[Fence]) {
        let hands = self.lock();
        for fence in asked.iter().filter(|fence| !held.contains(fence)) {
            if let Some((_, token)) = hands.get(fence) {
                token.cancel();
            }
        }
    }

    /// A job was cancelled: whatever runs of it is of no use any more.
    pub fn drop_job(&self, job: JobId) {
        self.lock().values().filter(|(of, _)| *of == job).for_each(|(_, token)| token.cancel());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Fence, (JobId, CancellationToken)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
