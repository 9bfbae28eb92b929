//! From one stage of a job to the next.

use super::carry::{Serving, write_stage};
use super::finish::{StageDone, lock_job};
use super::submit::{ItemRows, Share};
use super::words::At;
use super::{Store, StoreError};
use crate::domain::code::Code;
use crate::domain::item::StageItems;
use crate::domain::job::JobSpec;

/// What follows a stage.
#[derive(Clone, Debug)]
pub enum NextStage {
    /// These items. Nothing to run: the stage has ended with it, and the one after it follows at the next hand-over.
    Items(StageItems),
    /// Nothing more: the job is completed.
    Complete,
    /// The results of the stage cannot be used; the job fails.
    Fail { code: Code, message: String },
}

/// What became of an advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advanced {
    /// The next stage's items wait.
    Started,
    /// The next stage has nothing to run; its own successor is to be made now.
    Passed(StageDone),
    /// The job has ended: completed after an empty last stage, or failed.
    Ended,
    /// Somebody else has advanced or ended the job.
    Stale,
}

impl Store {
    /// Makes what follows a stage that is done, in one transaction. Safe to repeat: an advance from a stage
    /// that is no longer the job's current one changes nothing.
    pub async fn advance(&self, done: StageDone, next: NextStage) -> Result<Advanced, StoreError> {
        let mut tx = self.pool.begin().await?;
        lock_job(&mut tx, done.job).await?;
        let row = sqlx::query!(
            r#"select spec::text as "spec!", class, weight, total from jobs
               where id = $1 and state in ('queued', 'running') and stage = $2::text::stage
                 and not exists (select from chunks c
                                 where c.job_id = $1 and c.state in ('ready', 'delayed', 'running'))"#,
            done.job.0,
            done.stage.as_str(),
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else { return Ok(Advanced::Stale) };
        let spec: JobSpec = At { table: "jobs", column: "spec", row: &done.job }.json(&row.spec)?;
        let class = At { table: "jobs", column: "class", row: &done.job }.class(row.class)?;
        let weight = At { table: "jobs", column: "weight", row: &done.job }.weight(row.weight)?;
        let items = match next {
            NextStage::Items(items) => items,
            NextStage::Complete => {
                sqlx::query!(
                    "update jobs set state = 'completed', finished_at = now() where id = $1",
                    done.job.0
                )
                .execute(&mut *tx)
                .await?;
                tx.commit().await?;
                return Ok(Advanced::Ended);
            }
            NextStage::Fail { code, message } => {
                sqlx::query!(
                    "update jobs set state = 'failed', finished_at = now(), error_code = $2, error = $3 where id = $1",
                    done.job.0,
                    code.as_str(),
                    message,
                )
                .execute(&mut *tx)
                .await?;
                tx.commit().await?;
                return Ok(Advanced::Ended);
            }
        };
        let mut rows = ItemRows::new(done.job.0, row.total);
        let share = Share { class, weight };
        let serving = Serving { job: done.job, spec: &spec, share, chunk_items: self.chunk_items };
        let total = write_stage(&mut tx, &mut rows, serving, &items).await?;
        let stage = items.stage;
        let ended = items.drafts.is_empty() && spec.task.stage_after(stage).is_none();
        sqlx::query!(
            "update jobs set stage = $2::text::stage, total = $3,
                    state = case when $4 then 'completed'::job_state else state end,
                    finished_at = case when $4 then now() end,
                    handed_over_at = case when $5 then now() end
             where id = $1",
            done.job.0,
            stage.as_str(),
            total,
            ended,
            items.drafts.is_empty() && !ended,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(match (items.drafts.is_empty(), ended) {
            (_, true) => Advanced::Ended,
            (true, false) => Advanced::Passed(StageDone { job: done.job, stage }),
            (false, false) => Advanced::Started,
        })
    }
}
