//! Cancelling: a client ends a job.

use super::finish::lock_job;
use super::{CHANNEL_CANCEL, Store, StoreError};
use crate::domain::id::JobId;

impl Store {
    /// Ends a job at once: every item that has no result yet is cancelled in this transaction, running ones
    /// too. Their workers are told, and whatever they still write is fenced off. A job that was cancelled
    /// before stays as it is.
    pub async fn cancel(&self, id: JobId) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        lock_job(&mut tx, id).await?;
        let ended = sqlx::query!(
            "update jobs set state = 'cancelled', finished_at = now()
             where id = $1 and state in ('queued', 'running')",
            id.0
        )
        .execute(&mut *tx)
        .await?;
        if ended.rows_affected() == 0 {
            tx.rollback().await?;
            let job = self.job(id).await?.ok_or(StoreError::NotFound(id))?;
            return match job.state {
                crate::domain::job::JobState::Cancelled => Ok(()),
                state => Err(StoreError::InvalidState {
                    job: id,
                    state,
                    wanted: "only an open job can be cancelled",
                }),
            };
        }
        sqlx::query!(
            "with open as (select id from chunks where job_id = $1 and state in ('ready', 'delayed', 'running')
                           order by id for update)
             update chunks c set state = 'cancelled', n_cancelled = n_items - n_succeeded - n_failed,
                    worker = null, lease_until = null, run_at = null
             from open where c.id = open.id",
            id.0
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!("select pg_notify($1, $2)", CHANNEL_CANCEL, id.0.to_string())
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }
}
