//! What is the same for all items of a job, read once and kept for a while.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::domain::catalog::Catalog;
use crate::domain::id::JobId;
use crate::domain::job::JobSpec;
use crate::store::{Store, StoreError};

/// Jobs whose specification is kept. A bundle seldom holds more jobs than this.
const MAX_KEPT: usize = 256;

/// A job's immutable part.
pub struct JobContext {
    pub id: JobId,
    pub spec: JobSpec,
    /// Of a schema job.
    pub catalog: Option<Catalog>,
}

/// Reads job contexts through the store; the least recently used ones are dropped.
#[derive(Clone)]
pub struct Contexts {
    store: Store,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    by_job: HashMap<JobId, (u64, Arc<JobContext>)>,
    uses: u64,
}

impl Contexts {
    pub fn new(store: Store) -> Self {
        Self { store, kept: Arc::default() }
    }

    /// `None`: the job has been deleted.
    pub async fn get(&self, job: JobId) -> Result<Option<Arc<JobContext>>, StoreError> {
        let mut kept = self.kept.lock().await;
        kept.uses += 1;
        let now = kept.uses;
        if let Some((used, context)) = kept.by_job.get_mut(&job) {
            *used = now;
            return Ok(Some(context.clone()));
        }
        drop(kept);
        let Some((spec, catalog)) = self.store.job_spec(job).await? else {
            return Ok(None);
        };
        let context = Arc::new(JobContext { id: job, spec, catalog });
        let mut kept = self.kept.lock().await;
        if kept.by_job.len() >= MAX_KEPT
            && let Some(oldest) = kept.by_job.iter().min_by_key(|(_, (used, _))| *used).map(|(id, _)| *id)
        {
            kept.by_job.remove(&oldest);
        }
        kept.by_job.insert(job, (now, context.clone()));
        Ok(Some(context))
    }
}
