//! Reading jobs: what was asked, where they stand, what their chunks sum up to.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::words::At;
use super::{Store, StoreError};
use crate::domain::catalog::Catalog;
use crate::domain::code::Code;
use crate::domain::id::JobId;
use crate::domain::job::{Class, Counts, JobSpec, JobState, Weight};
use crate::domain::omission::Omissions;
use crate::domain::task::{Stage, Task};
use crate::domain::usage::Usage;

/// What "lately" means for rates.
const WINDOW_S: f64 = 60.0;
/// A job of which nothing was claimed or ended for so long has paused.
const PAUSE_S: f64 = 20.0;

/// A job as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRow {
    pub id: JobId,
    pub tenant: String,
    pub spec: JobSpec,
    pub class: Class,
    pub weight: Weight,
    pub state: JobState,
    /// The stage at work, or the last one that was.
    pub stage: Stage,
    pub counts: Counts,
    pub usage: Usage,
    /// In the order of the task's stages; only stages that have items, once for each model.
    pub stages: Vec<StageRow>,
    /// Why the job as a whole failed.
    pub failure: Option<(Code, String)>,
    pub created_at: DateTime<Utc>,
    /// First claim.
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
    /// When failed items were last sent back.
    pub retried_at: Option<DateTime<Utc>>,
    /// `None`: nothing has ended within the last minute.
    pub recent: Option<Recent>,
    /// What of the job's source could not be read. Empty in lists.
    pub left_out: Omissions,
    /// The job that this one was made from. It may be gone.
    pub since: Option<JobId>,
}

impl JobRow {
    /// Items whose answers come from the earlier job.
    pub fn carried(&self) -> i64 {
        self.stages.iter().map(|stage| stage.carried).sum()
    }
}

/// What ended of a job within the last minute, or since it went on after a pause, if that is less.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recent {
    pub seconds: f64,
    pub items: f64,
    pub prompt_tokens: f64,
    pub output_tokens: f64,
}

/// One stage's share of a job, by model: the lines of a batch may ask for different ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageRow {
    pub stage: Stage,
    pub model: String,
    pub counts: Counts,
    pub usage: Usage,
    /// Of those that succeeded: items whose answers come from an earlier job. They are not in `usage`.
    pub carried: i64,
}

/// Which jobs a list shows. The default shows all.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    pub tenant: Option<String>,
    /// Empty: any.
    pub states: Vec<JobState>,
    pub task: Option<Task>,
    /// Jobs with items that this model serves.
    pub model: Option<String>,
}

struct RawJob {
    id: Uuid,
    tenant: String,
    spec: String,
    class: i16,
    state: String,
    stage: String,
    error_code: Option<String>,
    error: Option<String>,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    expires_at: Option<DateTime<Utc>>,
    weight: i16,
    retried_at: Option<DateTime<Utc>>,
    since: Option<Uuid>,
}

struct RawSum {
    job_id: Uuid,
    stage: String,
    model: String,
    items: i64,
    waiting: i64,
    running: i64,
    succeeded: i64,
    failed: i64,
    cancelled: i64,
    expired: i64,
    prompt_tokens: i64,
    prefix_hit_tokens: i64,
    output_tokens: i64,
    forced_tokens: i64,
    carried: i64,
}

impl Store {
    pub async fn job(&self, id: JobId) -> Result<Option<JobRow>, StoreError> {
        // one snapshot, so that the job's state and its counts belong together
        let mut tx = self.pool.begin_with("begin isolation level repeatable read, read only").await?;
        let row = sqlx::query_as!(
            RawJob,
            r#"select id, tenant, spec::text as "spec!", class, state::text as "state!", stage::text as "stage!",
                      error_code, error, created_at, started_at, finished_at, expires_at, weight, retried_at, since
               from jobs where id = $1"#,
            id.0,
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let mut sums = read_sums(&mut tx, &[id.0]).await?;
        let mut rates = read_recent(&mut tx, &[id.0]).await?;
        let left_out = read_left_out(&mut tx, id).await?;
        tx.rollback().await?;
        let stages = sums.remove(&id.0).unwrap_or_default();
        let job = to_job(row, stages, rates.remove(&id.0))?;
        Ok(Some(JobRow { left_out, ..job }))
    }

    /// A page of jobs, newest first, older than `before`.
    pub async fn jobs(
        &self,
        filter: &JobFilter,
        before: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<JobRow>, StoreError> {
        let states: Vec<String> = filter.states.iter().map(|state| state.as_str().to_owned()).collect();
        let mut tx = self.pool.begin_with("begin isolation level repeatable read, read only").await?;
        let rows = sqlx::query_as!(
            RawJob,
            r#"select id, tenant, spec::text as "spec!", class, state::text as "state!", stage::text as "stage!",
                      error_code, error, created_at, started_at, finished_at, expires_at, weight, retried_at, since
               from jobs
               where ($1::text is null or tenant = $1)
                 and (cardinality($2::text[]) = 0 or state::text = any($2))
                 and ($3::uuid is null or id < $3)
                 and ($5::text is null or task::text = $5)
                 and ($6::text is null or exists (select from chunks c where c.job_id = jobs.id and c.model = $6))
               order by id desc limit $4"#,
            filter.tenant,
            &states,
            before.map(|job| job.0),
            i64::from(limit),
            filter.task.map(Task::as_str),
            filter.model,
        )
        .fetch_all(&mut *tx)
        .await?;
        let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
        let mut sums = read_sums(&mut tx, &ids).await?;
        let mut rates = read_recent(&mut tx, &ids).await?;
        tx.rollback().await?;
        rows.into_iter()
            .map(|row| {
                let stages = sums.remove(&row.id).unwrap_or_default();
                let recent = rates.remove(&row.id);
                to_job(row, stages, recent)
            })
            .collect()
    }

    /// What a job was asked, for workers and exports. `None`: there is no such job.
    pub async fn job_spec(&self, id: JobId) -> Result<Option<(JobSpec, Option<Catalog>)>, StoreError> {
        let row =
            sqlx::query!(r#"select spec::text as "spec!", catalog::text from jobs where id = $1"#, id.0)
                .fetch_optional(&self.pool)
                .await?;
        let Some(row) = row else { return Ok(None) };
        let spec = At { table: "jobs", column: "spec", row: &id }.json(&row.spec)?;
        let at = At { table: "jobs", column: "catalog", row: &id };
        let catalog = row.catalog.as_deref().map(|text| at.json(text)).transpose()?;
        Ok(Some((spec, catalog)))
    }

    /// Items that wait, by the model they wait for.
    pub async fn waiting_by_model(&self) -> Result<BTreeMap<String, i64>, StoreError> {
        let rows = sqlx::query!(
            r#"select model, sum(n_items - n_succeeded - n_failed) as "items!"
               from chunks where state in ('ready', 'delayed') group by model"#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.model, row.items)).collect())
    }

    /// Jobs of which items wait, by the model they wait for.
    pub async fn jobs_waiting_by_model(&self) -> Result<BTreeMap<String, i64>, StoreError> {
        let rows = sqlx::query!(
            r#"select model, count(distinct job_id) as "jobs!"
               from chunks where state in ('ready', 'delayed') group by model"#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.model, row.jobs)).collect())
    }

    /// Seconds since the oldest job with waiting items was submitted, by the model they wait for.
    pub async fn oldest_waiting_by_model(&self) -> Result<BTreeMap<String, f64>, StoreError> {
        let rows = sqlx::query!(
            r#"select c.model, extract(epoch from now() - min(j.created_at))::float8 as "seconds!"
               from chunks c join jobs j on j.id = c.job_id
               where c.state in ('ready', 'delayed') group by c.model"#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.model, row.seconds)).collect())
    }

    /// Removes a job that has ended, with its items and results.
    pub async fn delete(&self, id: JobId) -> Result<(), StoreError> {
        let deleted = sqlx::query!(
            "delete from jobs where id = $1 and state in ('completed', 'cancelled', 'failed')",
            id.0
        )
        .execute(&self.pool)
        .await?;
        if deleted.rows_affected() == 1 {
            return Ok(());
        }
        let job = self.job(id).await?.ok_or(StoreError::NotFound(id))?;
        Err(StoreError::InvalidState { job: id, state: job.state, wanted: "cancel it before deleting it" })
    }
}

async fn read_left_out(tx: &mut sqlx::PgConnection, id: JobId) -> Result<Omissions, StoreError> {
    let text = sqlx::query_scalar!("select left_out::text from jobs where id = $1", id.0)
        .fetch_optional(tx)
        .await?
        .flatten();
    let at = At { table: "jobs", column: "left_out", row: &id };
    text.map_or(Ok(Omissions::default()), |text| at.json(&text))
}

/// Sums over the chunks of some jobs, by stage. Reads chunk rows, of which a job of a million items has
/// some thousand, never items or results.
pub(super) async fn read_sums(
    tx: &mut sqlx::PgConnection,
    jobs: &[Uuid],
) -> Result<BTreeMap<Uuid, Vec<StageRow>>, StoreError> {
    let rows = sqlx::query_as!(
        RawSum,
        r#"select job_id, stage::text as "stage!", model, sum(n_items) as "items!",
                  coalesce(sum(n_items - n_succeeded - n_failed) filter (where state in ('ready', 'delayed')), 0) as "waiting!",
                  coalesce(sum(n_items - n_succeeded - n_failed) filter (where state = 'running'), 0) as "running!",
                  sum(n_succeeded) as "succeeded!", sum(n_failed) as "failed!",
                  sum(n_cancelled) as "cancelled!", sum(n_expired) as "expired!",
                  sum(prompt_tokens)::bigint as "prompt_tokens!",
                  sum(prefix_hit_tokens)::bigint as "prefix_hit_tokens!",
                  sum(output_tokens)::bigint as "output_tokens!", sum(forced_tokens)::bigint as "forced_tokens!",
                  coalesce(sum(n_items) filter (where carried), 0) as "carried!"
           from chunks where job_id = any($1) group by job_id, stage, model order by job_id, chunks.stage, min(id)"#,
        jobs,
    )
    .fetch_all(tx)
    .await?;
    let mut sums: BTreeMap<Uuid, Vec<StageRow>> = BTreeMap::new();
    for row in rows {
        let stage = At { table: "chunks", column: "stage", row: &row.job_id }.stage(&row.stage)?;
        sums.entry(row.job_id).or_default().push(StageRow {
            stage,
            model: row.model,
            counts: Counts {
                total: row.items,
                waiting: row.waiting,
                running: row.running,
                succeeded: row.succeeded,
                failed: row.failed,
                cancelled: row.cancelled,
                expired: row.expired,
            },
            usage: Usage {
                prompt_tokens: row.prompt_tokens.unsigned_abs(),
                prefix_hit_tokens: row.prefix_hit_tokens.unsigned_abs(),
                output_tokens: row.output_tokens.unsigned_abs(),
                forced_tokens: row.forced_tokens.unsigned_abs(),
            },
            carried: row.carried,
        });
    }
    Ok(sums)
}

/// What ended lately, from the chunks' counters: a chunk's results since its last claim are held to have come
/// evenly between that claim and the last write. The measurement begins [`WINDOW_S`] ago, or where the work went
/// on after the last pause of more than [`PAUSE_S`], so that a pause does not count as slowness.
async fn read_recent(
    tx: &mut sqlx::PgConnection,
    jobs: &[Uuid],
) -> Result<BTreeMap<Uuid, Recent>, StoreError> {
    let rows = sqlx::query!(
        r#"with active as (
               select job_id, n_succeeded + n_failed as n, n_succeeded + n_failed - n_before as fresh,
                      prompt_tokens, output_tokens, claimed_at, result_at,
                      least(greatest(claimed_at, now() - make_interval(secs => $2)), now()) as lo,
                      case when state = 'running' then now() else least(result_at, now()) end as hi
               from chunks
               where job_id = any($1) and claimed_at is not null
                 and (state = 'running'
                      or result_at > greatest(claimed_at, now() - make_interval(secs => $2)))),
           began as (
               select job_id, coalesce(
                          (select max(lower(busy)) from unnest(busy) busy where upper(busy) >= now()),
                          now() - make_interval(secs => $2)) as at
               from (select job_id, range_agg(tstzrange(lo, greatest(lo, hi) + make_interval(secs => $3))) as busy
                     from active group by job_id) merged),
           parts as (
               select a.job_id, b.at, a.fresh::float8 as fresh, a.fresh::float8 / a.n as of_tokens,
                      prompt_tokens, output_tokens,
                      extract(epoch from a.result_at - greatest(a.claimed_at, b.at))::float8
                          / greatest(extract(epoch from a.result_at - a.claimed_at)::float8, 0.001) as part
               from active a join began b using (job_id)
               where a.fresh > 0 and a.result_at > greatest(a.claimed_at, b.at))
           select job_id as "job_id!", greatest(extract(epoch from now() - at)::float8, 0.1) as "seconds!",
                  sum(fresh * part) as "items!", sum(prompt_tokens * of_tokens * part) as "prompt_tokens!",
                  sum(output_tokens * of_tokens * part) as "output_tokens!"
           from parts group by job_id, at"#,
        jobs,
        WINDOW_S,
        PAUSE_S,
    )
    .fetch_all(tx)
    .await?;
    let recent = rows.into_iter().map(|row| {
        let recent = Recent {
            seconds: row.seconds,
            items: row.items,
            prompt_tokens: row.prompt_tokens,
            output_tokens: row.output_tokens,
        };
        (row.job_id, recent)
    });
    Ok(recent.collect())
}

fn to_job(row: RawJob, stages: Vec<StageRow>, recent: Option<Recent>) -> Result<JobRow, StoreError> {
    let at = |column| At { table: "jobs", column, row: &row.id };
    let failure = match (&row.error_code, row.error) {
        (Some(code), Some(message)) => Some((at("error_code").code(code)?, message)),
        _ => None,
    };
    let (mut counts, mut usage) = (Counts::default(), Usage::default());
    for stage in &stages {
        counts += stage.counts;
        usage += stage.usage;
    }
    Ok(JobRow {
        id: JobId(row.id),
        spec: at("spec").json(&row.spec)?,
        class: at("class").class(row.class)?,
        state: at("state").job_state(&row.state)?,
        stage: at("stage").stage(&row.stage)?,
        tenant: row.tenant,
        counts,
        usage,
        stages,
        failure,
        created_at: row.created_at,
        started_at: row.started_at,
        finished_at: row.finished_at,
        expires_at: row.expires_at,
        weight: at("weight").weight(row.weight)?,
        retried_at: row.retried_at,
        recent,
        left_out: Omissions::default(),
        since: row.since.map(JobId),
    })
}
