//! Where a job has ended: its span is sent.

use crate::domain::id::JobId;
use crate::store::Store;
use crate::telemetry::trace::{self, EndedJob};

/// Reads the job once more, only where spans are sent at all. A job that cannot be read has no span.
pub async fn tell(store: &Store, job: JobId) {
    if !trace::is_on() {
        return;
    }
    let row = match store.job(job).await {
        Ok(row) => row,
        Err(error) => return tracing::warn!(%error, %job, "the span of a job that has ended is lost"),
    };
    let Some(row) = row else { return };
    let Some(finished_at) = row.finished_at else { return };
    trace::job_ended(&EndedJob {
        id: job.0,
        task: row.spec.task.as_str(),
        state: row.state.as_str(),
        items: row.counts.total,
        succeeded: row.counts.succeeded,
        created_at: row.created_at,
        finished_at,
    });
}
