//! Retrying failed items at a client's wish.
//!
//! Results stay insert-only: the failed rows are taken away, and their items move to new chunks, in one
//! transaction. The old chunks keep the items that succeeded, and the tokens that were spent.

use super::finish::lock_job;
use super::submit::notify_work;
use super::{Store, StoreError};
use crate::domain::code::Code;
use crate::domain::id::JobId;
use crate::domain::job::JobState;

impl Store {
    /// Lets the failed items of a job's ended chunks wait again, with fresh tries; returns how many. A
    /// completed or failed job runs again; a cancelled one is refused. A job that failed between stages is
    /// handed over again, even when no item had failed. With `only`, what failed with another code stays failed.
    pub async fn retry_failed(&self, id: JobId, only: Option<Code>) -> Result<i64, StoreError> {
        let mut tx = self.pool.begin().await?;
        lock_job(&mut tx, id).await?;
        let state = sqlx::query_scalar!(r#"select state::text as "state!" from jobs where id = $1"#, id.0)
            .fetch_optional(&mut *tx)
            .await?
            .ok_or(StoreError::NotFound(id))?;
        if state == JobState::Cancelled.as_str() {
            let wanted = "a cancelled job cannot be retried";
            return Err(StoreError::InvalidState { job: id, state: JobState::Cancelled, wanted });
        }
        let moved = sqlx::query!(
            r#"with source as (
                 select * from chunks
                 where job_id = $1 and state in ('done', 'expired') and n_failed > 0
                   -- an earlier stage's failures have been used by its successor already
                   and stage = (select stage from jobs where id = $1)
                 order by id for update),
             gone as (
                 delete from results r using (
                     select c.id as chunk, s.seq from source c
                     cross join lateral chunk_seqs(c.lo, c.hi, c.seqs) s (seq)) owned
                 where r.job_id = $1 and r.outcome = 'failed' and r.seq = owned.seq
                   and ($2::text is null or r.error_code = $2)
                 returning owned.chunk, r.seq),
             failed as (select chunk, array_agg(seq order by seq) as seqs from gone group by chunk),
             made as (
                 insert into chunks (job_id, stage, model, lo, hi, seqs, n_items, class, vtime)
                 select c.job_id, c.stage, c.model, c.lo, c.hi, f.seqs, cardinality(f.seqs), c.class,
                        (select coalesce(min(vtime), 0) from chunks q
                         where q.state = 'ready' and q.model = c.model and q.class = c.class)
                 from source c join failed f on f.chunk = c.id
                 returning model, n_items),
             kept as (
                 update chunks c
                 set seqs = array(select s from chunk_seqs(c.lo, c.hi, c.seqs) s
                                  except select unnest(f.seqs) order by 1),
                     n_items = c.n_items - cardinality(f.seqs), n_failed = c.n_failed - cardinality(f.seqs)
                 from failed f where c.id = f.chunk)
             select model, sum(n_items) as "items!" from made group by model"#,
            id.0,
            only.map(Code::as_str),
        )
        .fetch_all(&mut *tx)
        .await?;
        let items: i64 = moved.iter().map(|row| row.items).sum();
        if items > 0 || (only.is_none() && state == JobState::Failed.as_str()) {
            sqlx::query!(
                "update jobs set state = 'running', started_at = coalesce(started_at, now()), finished_at = null,
                        error_code = null, error = null, handed_over_at = null, expires_at = null, retried_at = now()
                 where id = $1",
                id.0
            )
            .execute(&mut *tx)
            .await?;
        }
        if items > 0 {
            // its files will hold something else
            sqlx::query!("update batches set ended_at = null where job_id = $1", id.0)
                .execute(&mut *tx)
                .await?;
        }
        for row in &moved {
            notify_work(&mut tx, &row.model).await?;
        }
        tx.commit().await?;
        Ok(items)
    }
}
