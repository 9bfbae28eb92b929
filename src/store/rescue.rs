//! What happens to work that nobody does any more: dead workers' chunks, expired jobs, stages whose maker
//! is gone.

use uuid::Uuid;

use super::finish::{
    Finished, MoveTo, StageDone, end_chunk, lock_job, move_items, settle_job, unended_items, write_results,
};
use super::words::At;
use super::{CHANNEL_CANCEL, Store, StoreError};
use crate::domain::code::Code;
use crate::domain::id::{ChunkId, JobId, Seq, WorkerId};
use crate::domain::item::{NewResult, Outcome};
use crate::domain::lease::{Claim, Fence, ItemRange};
use crate::domain::task::Stage;
use crate::domain::usage::Usage;

/// Chunks of one look.
const MAX_CHUNKS: i64 = 200;
/// Jobs of one look.
const MAX_JOBS: i64 = 100;

/// A chunk whose lease ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abandoned {
    pub chunk: ChunkId,
    pub job: JobId,
    pub stage: Stage,
    pub worker: WorkerId,
    pub attempt: i32,
}

/// What a rescue did with a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rescued {
    /// It was finished, renewed or cancelled meanwhile.
    Gone,
    /// It waits again.
    Ready,
    /// It was split into this many single items, to find the one that kills.
    Split { items: usize },
    /// Its one item is poison and has failed; or nothing of it was left to do.
    Ended(Finished),
}

/// What to do with a chunk whose worker is gone. Pure; `deaths` counts this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Again,
    Split,
    Poison,
}

/// A chunk that has seen two workers die is split down to single items; a single item that has seen
/// `max_worker_deaths` die is poison.
pub fn judge(deaths: u16, items_left: usize, max_worker_deaths: u16) -> Verdict {
    if items_left > 1 {
        let split_at = suspect_deaths(max_worker_deaths).min(2);
        if deaths >= split_at { Verdict::Split } else { Verdict::Again }
    } else if deaths >= max_worker_deaths.max(1) {
        Verdict::Poison
    } else {
        Verdict::Again
    }
}

/// Deaths from which one more convicts: such a chunk is claimed alone.
pub fn suspect_deaths(max_worker_deaths: u16) -> u16 {
    max_worker_deaths.saturating_sub(1).max(1)
}

impl Store {
    /// Chunks whose lease ran out, longest first.
    pub async fn abandoned(&self) -> Result<Vec<Abandoned>, StoreError> {
        let rows = sqlx::query!(
            r#"select id, job_id, stage::text as "stage!", worker as "worker!", attempt from chunks
               where state = 'running' and lease_until < now() order by lease_until limit $1"#,
            MAX_CHUNKS,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Abandoned {
                    chunk: ChunkId(row.id),
                    job: JobId(row.job_id),
                    stage: At { table: "chunks", column: "stage", row: &row.id }.stage(&row.stage)?,
                    worker: WorkerId(row.worker),
                    attempt: row.attempt,
                })
            })
            .collect()
    }

    /// Takes an abandoned chunk from its worker. `died`: whether to hold its worker's death against it;
    /// `false` when the worker is known to live and has merely lost sight of the chunk. `at_once`: even if
    /// the lease still runs.
    pub async fn rescue(
        &self,
        chunk: Abandoned,
        died: bool,
        at_once: bool,
        max_worker_deaths: u16,
    ) -> Result<Rescued, StoreError> {
        let mut tx = self.pool.begin().await?;
        lock_job(&mut tx, chunk.job).await?;
        let row = sqlx::query!(
            "update chunks set deaths = deaths + $5::int
             where id = $1 and worker = $2 and attempt = $3 and state = 'running' and ($4 or lease_until < now())
             returning deaths, tries",
            chunk.chunk.0,
            chunk.worker.0,
            chunk.attempt,
            at_once,
            i32::from(died),
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else { return Ok(Rescued::Gone) };
        let left = unended_items(&mut tx, chunk.chunk.0).await?;
        let verdict = judge(row.deaths.unsigned_abs(), left.len(), max_worker_deaths);
        let rescued = match verdict {
            _ if left.is_empty() => {
                end_chunk(&mut tx, chunk.chunk.0).await?;
                Rescued::Ended(settle_job(&mut tx, chunk.job, chunk.stage).await?)
            }
            Verdict::Again => {
                make_ready(&mut tx, chunk.chunk).await?;
                Rescued::Ready
            }
            Verdict::Split => {
                for seq in &left {
                    move_items(&mut tx, chunk.chunk.0, &[*seq], MoveTo::Ready).await?;
                }
                end_chunk(&mut tx, chunk.chunk.0).await?;
                Rescued::Split { items: left.len() }
            }
            Verdict::Poison => {
                let claim = claim_of(&chunk, &left, row.tries);
                write_results(&mut tx, &claim, &[poison(left[0], row.deaths)]).await?;
                end_chunk(&mut tx, chunk.chunk.0).await?;
                Rescued::Ended(settle_job(&mut tx, chunk.job, chunk.stage).await?)
            }
        };
        tx.commit().await?;
        Ok(rescued)
    }

    /// Ends what waits of jobs past their time. Items that run are let finish.
    pub async fn expire_due(&self) -> Result<Vec<Finished>, StoreError> {
        let due = sqlx::query!(
            r#"select id, stage::text as "stage!" from jobs
               where state in ('queued', 'running') and expires_at <= now()
                 and (exists (select from chunks c where c.job_id = jobs.id and c.state in ('ready', 'delayed'))
                      or not exists (select from chunks c where c.job_id = jobs.id and c.state = 'running'))
               order by id limit $1"#,
            MAX_JOBS,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut finished = Vec::new();
        for row in due {
            finished.extend(self.expire(row.id).await?);
        }
        Ok(finished)
    }

    async fn expire(&self, job: Uuid) -> Result<Option<Finished>, StoreError> {
        let mut tx = self.pool.begin().await?;
        lock_job(&mut tx, JobId(job)).await?;
        sqlx::query!(
            "with waiting as (select id from chunks where job_id = $1 and state in ('ready', 'delayed')
                              order by id for update)
             update chunks c set state = 'expired', n_expired = n_items - n_succeeded - n_failed, run_at = null
             from waiting where c.id = waiting.id",
            job
        )
        .execute(&mut *tx)
        .await?;
        // an expired job has no further stages
        let ended = sqlx::query!(
            "update jobs set state = 'completed', finished_at = now()
             where id = $1 and state in ('queued', 'running') and expires_at <= now()
               and not exists (select from chunks c where c.job_id = $1 and c.state in ('ready', 'delayed', 'running'))",
            job
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!("select pg_notify($1, $2)", CHANNEL_CANCEL, job.to_string()).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok((ended.rows_affected() == 1).then_some(Finished::JobCompleted(JobId(job))))
    }

    /// Stages that are done and whose successor has not been made within `after_ms` of the last hand-over.
    /// Each is handed to one caller until `after_ms` have passed again.
    pub async fn take_over_stages(&self, after_ms: u64) -> Result<Vec<StageDone>, StoreError> {
        let rows = sqlx::query!(
            r#"update jobs set handed_over_at = now()
               where id in (
                   select id from jobs
                   where state = 'running'
                     and (handed_over_at is null or handed_over_at < now() - make_interval(secs => $1::float8 / 1000))
                     and not exists (select from chunks c
                                     where c.job_id = jobs.id and c.state in ('ready', 'delayed', 'running'))
                   order by id limit $2 for no key update skip locked)
               returning id, stage::text as "stage!""#,
            after_ms as f64,
            MAX_JOBS,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let stage = At { table: "jobs", column: "stage", row: &row.id }.stage(&row.stage)?;
                Ok(StageDone { job: JobId(row.id), stage })
            })
            .collect()
    }
}

async fn make_ready(tx: &mut sqlx::PgConnection, chunk: ChunkId) -> Result<(), StoreError> {
    sqlx::query!(
        "update chunks set state = 'ready', worker = null, lease_until = null where id = $1",
        chunk.0
    )
    .execute(tx)
    .await?;
    Ok(())
}

fn claim_of(chunk: &Abandoned, left: &[Seq], tries: i16) -> Claim {
    Claim {
        fence: Fence { chunk: chunk.chunk, worker: chunk.worker, attempt: chunk.attempt },
        job: chunk.job,
        stage: chunk.stage,
        range: ItemRange::List(left.to_vec()),
        tries,
    }
}

fn poison(seq: Seq, deaths: i16) -> NewResult {
    NewResult {
        seq,
        outcome: Outcome::Failed {
            code: Code::Poison,
            message: format!("{deaths} workers died while they held this item"),
        },
        usage: Usage::default(),
        latency_ms: 0,
        confidence: None,
    }
}
