//! All work that is open, as a forecast needs it: by job, stage and model, in the order of the queue.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::experience::Experience;
use super::words::At;
use super::{Store, StoreError};
use crate::domain::id::{JobId, Seq};
use crate::domain::item::ItemDraft;
use crate::domain::job::{Class, JobState, Weight};
use crate::domain::task::{Stage, Task};

/// One stage of a job that has not ended, at one model.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenPart {
    pub job: JobId,
    pub task: Task,
    pub class: Class,
    pub weight: Weight,
    /// The stage that the job is in; parts of earlier ones have ended.
    pub at: Stage,
    pub stage: Stage,
    pub model: String,
    pub waiting: i64,
    pub running: i64,
    /// Of those that run: when each claim was made, which tells claims apart, and its items.
    pub claims: Vec<(i64, i64)>,
    /// Items that a worker has had and that have ended, with what they took.
    pub ended: Experience,
    /// Virtual time of the chunk that is next in line, and its items.
    pub next: Option<(i64, i64)>,
}

/// How a job ended, and how long ago.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Departed {
    pub job: JobId,
    pub state: JobState,
    pub seconds_ago: f64,
}

impl Store {
    /// Of every job that has not ended, the one whose chunk is first in line first. Reads the chunk rows of open
    /// jobs, never items or results.
    pub async fn open_work(&self) -> Result<Vec<OpenPart>, StoreError> {
        let rows = sqlx::query!(
            r#"select j.id, j.task::text as "task!", j.class, j.weight, j.stage::text as "at!",
                      c.stage::text as "stage!", c.model,
                      coalesce(sum(n_items - n_succeeded - n_failed) filter (where c.state in ('ready', 'delayed')), 0) as "waiting!",
                      coalesce(sum(n_items - n_succeeded - n_failed) filter (where c.state = 'running'), 0) as "running!",
                      coalesce(sum(n_succeeded + n_failed) filter (where claimed_at is not null), 0)::float8 as "ended!",
                      sum(prompt_tokens)::float8 as "prompt!", sum(prefix_hit_tokens)::float8 as "hits!",
                      sum(output_tokens)::float8 as "output!", sum(forced_tokens)::float8 as "forced!",
                      min(vtime) filter (where c.state in ('ready', 'delayed')) as vtime,
                      (array_agg((n_items - n_succeeded - n_failed)::bigint order by vtime, c.id)
                           filter (where c.state in ('ready', 'delayed')))[1] as next
               from jobs j join chunks c on c.job_id = j.id
               where j.state in ('queued', 'running')
               group by j.id, c.stage, c.model
               order by min(c.id) filter (where c.state in ('ready', 'delayed')) nulls first, j.id"#
        )
        .fetch_all(&self.pool)
        .await?;
        let mut claims = self.open_claims().await?;
        rows.into_iter()
            .map(|row| {
                let key = (row.id, row.stage.clone(), row.model.clone());
                let of_job = |column| At { table: "jobs", column, row: &row.id };
                Ok(OpenPart {
                    job: JobId(row.id),
                    task: of_job("task").task(&row.task)?,
                    class: of_job("class").class(row.class)?,
                    weight: of_job("weight").weight(row.weight)?,
                    at: of_job("stage").stage(&row.at)?,
                    stage: At { table: "chunks", column: "stage", row: &row.id }.stage(&row.stage)?,
                    model: row.model,
                    waiting: row.waiting,
                    running: row.running,
                    claims: claims.remove(&key).unwrap_or_default(),
                    ended: Experience {
                        items: row.ended,
                        prompt_tokens: row.prompt,
                        prefix_hit_tokens: row.hits,
                        output_tokens: row.output,
                        forced_tokens: row.forced,
                    },
                    next: row.vtime.zip(row.next),
                })
            })
            .collect()
    }

    /// Items of running chunks, by when they were claimed; by job, stage and model. All chunks of one claim have its
    /// time.
    async fn open_claims(&self) -> Result<BTreeMap<(Uuid, String, String), Vec<(i64, i64)>>, StoreError> {
        let rows = sqlx::query!(
            r#"select job_id, stage::text as "stage!", model, (extract(epoch from claimed_at) * 1000000)::bigint as "at!",
                      sum(n_items - n_succeeded - n_failed) as "items!"
               from chunks where state = 'running' and claimed_at is not null
               group by job_id, stage, model, claimed_at order by claimed_at"#
        )
        .fetch_all(&self.pool)
        .await?;
        let mut claims: BTreeMap<_, Vec<(i64, i64)>> = BTreeMap::new();
        for row in rows {
            claims.entry((row.job_id, row.stage, row.model)).or_default().push((row.at, row.items));
        }
        Ok(claims)
    }

    /// Some items of a job, spread evenly over its first `total`; at most `n`.
    pub async fn some_items(&self, job: JobId, total: i64, n: i64) -> Result<Vec<ItemDraft>, StoreError> {
        let seqs: Vec<Seq> =
            (0..n.min(total)).filter_map(|at| Seq::try_from(at * total / n.min(total)).ok()).collect();
        let rows = sqlx::query!(
            r#"select seq, stage::text as "stage!", input::text as "input!" from items
               where job_id = $1 and seq = any($2) order by seq"#,
            job.0,
            &seqs,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let place = format!("{job}/{}", row.seq);
                Ok(ItemDraft {
                    stage: At { table: "items", column: "stage", row: &place }.stage(&row.stage)?,
                    input: At { table: "items", column: "input", row: &place }.json(&row.input)?,
                })
            })
            .collect()
    }

    /// Of these jobs, those that have ended.
    pub async fn departed(&self, jobs: &[JobId]) -> Result<Vec<Departed>, StoreError> {
        let ids: Vec<Uuid> = jobs.iter().map(|job| job.0).collect();
        let rows = sqlx::query!(
            r#"select id, state::text as "state!", extract(epoch from now() - finished_at)::float8 as "ago!"
               from jobs where id = any($1) and finished_at is not null"#,
            &ids,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let state = At { table: "jobs", column: "state", row: &row.id }.job_state(&row.state)?;
                Ok(Departed { job: JobId(row.id), state, seconds_ago: row.ago })
            })
            .collect()
    }
}
