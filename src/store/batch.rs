//! Batches: from a file to a job, and from the job's end to the batch's.
//!
//! While lines are checked, the transaction that will become the job is open, and an advisory lock in it keeps
//! other processes from checking the same ones; a process that dies leaves neither behind.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::job::{StageRow, read_sums};
use super::quota::{self, Charge};
use super::submit::{NewJob, Submission};
use super::words::{At, to_json};
use super::{Store, StoreError};
use crate::domain::batch::{BatchError, BatchState, Standing};
use crate::domain::id::{BatchId, FileId, JobId};
use crate::domain::job::Counts;
use crate::domain::usage::Usage;

/// Batches of one look for what is to be done.
const MAX_DUE: i64 = 100;

#[derive(Clone, Debug)]
pub struct NewBatch {
    pub id: BatchId,
    pub tenant: String,
    pub endpoint: String,
    pub input_file: FileId,
    pub completion_window: String,
    pub window_s: i64,
    pub metadata: Option<BTreeMap<String, String>>,
    pub output_ttl_s: Option<i32>,
    /// Makes a repeated request answer the first one's batch, with the digest that they have to have in common.
    pub idempotency: Option<(String, Vec<u8>)>,
    /// Whose quota its lines count towards.
    pub charge: Option<Charge>,
    /// Of the input file: what counts until the lines are a job.
    pub input_bytes: i64,
}

/// A batch as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchRow {
    pub id: BatchId,
    pub endpoint: String,
    pub input_file: FileId,
    pub output_file: Option<FileId>,
    pub error_file: Option<FileId>,
    pub completion_window: String,
    pub metadata: Option<BTreeMap<String, String>>,
    pub state: BatchState,
    pub errors: Vec<BatchError>,
    /// Models of its lines.
    pub models: Vec<String>,
    pub counts: Counts,
    pub usage: Usage,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub in_progress_at: Option<DateTime<Utc>>,
    pub cancelling_at: Option<DateTime<Utc>>,
    /// Every line has ended.
    pub finalizing_at: Option<DateTime<Utc>>,
    /// The state is final.
    pub ended_at: Option<DateTime<Utc>>,
}

/// A batch whose lines are to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToValidate {
    pub id: BatchId,
    pub tenant: String,
    pub input_file: FileId,
    pub expires_at: DateTime<Utc>,
    pub cancel_asked: bool,
}

/// A batch whose lines have ended, and when; its files are to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToClose {
    pub id: BatchId,
    pub finished_at: DateTime<Utc>,
}

struct RawBatch {
    id: Uuid,
    job_id: Option<Uuid>,
    endpoint: String,
    input_file_id: Uuid,
    output_file_id: Option<Uuid>,
    error_file_id: Option<Uuid>,
    completion_window: String,
    metadata: Option<String>,
    errors: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    in_progress_at: Option<DateTime<Utc>>,
    cancel_asked_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    job_state: Option<String>,
    finished_at: Option<DateTime<Utc>>,
}

impl Store {
    /// Inserts a batch whose lines are still to be checked, or finds the earlier one of the same key. Returns
    /// which.
    pub async fn create_batch(&self, batch: &NewBatch) -> Result<BatchId, StoreError> {
        let metadata = batch.metadata.as_ref().map(to_json);
        let (key, hash) =
            batch.idempotency.as_ref().map(|(key, hash)| (key.as_str(), hash.as_slice())).unzip();
        let mut tx = self.pool.begin().await?;
        let created = sqlx::query!(
            "insert into batches (id, tenant, endpoint, input_file_id, completion_window, metadata, output_ttl_s,
                                  expires_at, idempotency_key, request_hash, key_id)
             values ($1, $2, $3, $4, $5, $6::text::json, $7, now() + make_interval(secs => $8::float8), $9, $10, $11)
             on conflict (tenant, idempotency_key) where idempotency_key is not null do nothing",
            batch.id.0,
            batch.tenant,
            batch.endpoint,
            batch.input_file.0,
            batch.completion_window,
            metadata,
            batch.output_ttl_s,
            batch.window_s as f64,
            key,
            hash,
            batch.charge.map(|charge| charge.key.0),
        )
        .execute(&mut *tx)
        .await?;
        if created.rows_affected() == 1 {
            if let Some(charge) = batch.charge {
                let asked = quota::tokens_of(batch.input_bytes.unsigned_abs());
                quota::check(&mut tx, charge, asked).await?;
            }
            tx.commit().await?;
            return Ok(batch.id);
        }
        tx.rollback().await?;
        let earlier = sqlx::query!(
            "select id, request_hash from batches where tenant = $1 and idempotency_key = $2",
            batch.tenant,
            key,
        )
        .fetch_optional(&self.pool)
        .await?;
        // deleted between the two statements: the caller may simply try again
        let earlier = earlier.ok_or(StoreError::Unavailable(sqlx::Error::RowNotFound))?;
        if earlier.request_hash.as_deref() == hash {
            Ok(BatchId(earlier.id))
        } else {
            Err(StoreError::IdempotencyConflict { job: JobId(earlier.id) })
        }
    }

    pub async fn batch(&self, tenant: &str, id: BatchId) -> Result<Option<BatchRow>, StoreError> {
        Ok(self.read_batches(tenant, (id.0, id.0), 1).await?.pop())
    }

    /// A page of batches, newest first, older than `before`.
    pub async fn batches(
        &self,
        tenant: &str,
        before: Option<BatchId>,
        limit: u32,
    ) -> Result<Vec<BatchRow>, StoreError> {
        let highest = before.map_or(Uuid::max(), |id| Uuid::from_u128(id.0.as_u128().saturating_sub(1)));
        self.read_batches(tenant, (Uuid::nil(), highest), i64::from(limit)).await
    }

    /// Batches with ids within a range, both ends included, newest first.
    async fn read_batches(
        &self,
        tenant: &str,
        (low, high): (Uuid, Uuid),
        limit: i64,
    ) -> Result<Vec<BatchRow>, StoreError> {
        // one snapshot, so that state and counts belong together
        let mut tx = self.pool.begin_with("begin isolation level repeatable read, read only").await?;
        let rows = sqlx::query_as!(
            RawBatch,
            r#"select b.id, b.job_id, b.endpoint, b.input_file_id,
                      (select f.id from files f where f.batch_id = b.id and f.role = 'output') as output_file_id,
                      (select f.id from files f where f.batch_id = b.id and f.role = 'errors') as error_file_id,
                      b.completion_window, b.metadata::text, b.errors::text, b.created_at, b.expires_at,
                      b.in_progress_at, b.cancel_asked_at, b.ended_at,
                      j.state::text as "job_state?", j.finished_at as "finished_at?"
               from batches b left join jobs j on j.id = b.job_id
               where b.tenant = $1 and b.id between $2 and $3 order by b.id desc limit $4"#,
            tenant,
            low,
            high,
            limit,
        )
        .fetch_all(&mut *tx)
        .await?;
        let jobs: Vec<Uuid> = rows.iter().filter_map(|row| row.job_id).collect();
        let mut sums = read_sums(&mut tx, &jobs).await?;
        tx.rollback().await?;
        rows.into_iter()
            .map(|row| {
                let sums = sums.remove(&row.id).unwrap_or_default();
                to_batch(row, sums)
            })
            .collect()
    }

    /// Ends a batch: at once if it is a job, else before it becomes one. What has been answered is kept.
    pub async fn cancel_batch(&self, id: BatchId) -> Result<(), StoreError> {
        let asked = sqlx::query!(
            "update batches set cancel_asked_at = coalesce(cancel_asked_at, now())
             where id = $1 and job_id is null and ended_at is null",
            id.0
        )
        .execute(&self.pool)
        .await?;
        // the lines became a job, or were refused, before this or meanwhile
        if asked.rows_affected() == 0 { self.cancel(id.job()).await } else { Ok(()) }
    }

    /// Batches that are no job yet, oldest first.
    pub async fn batches_to_validate(&self) -> Result<Vec<ToValidate>, StoreError> {
        let rows = sqlx::query!(
            "select id, tenant, input_file_id, expires_at, cancel_asked_at from batches
             where ended_at is null and job_id is null order by id limit $1",
            MAX_DUE,
        )
        .fetch_all(&self.pool)
        .await?;
        let batches = rows.into_iter().map(|row| ToValidate {
            id: BatchId(row.id),
            tenant: row.tenant,
            input_file: FileId(row.input_file_id),
            expires_at: row.expires_at,
            cancel_asked: row.cancel_asked_at.is_some(),
        });
        Ok(batches.collect())
    }

    /// Opens the submission that the batch's lines go into; `job` has the batch's id. `None`: another process
    /// is at it, or it is done.
    pub async fn validation_begin(&self, job: NewJob) -> Result<Option<Submission>, StoreError> {
        let mut tx = self.pool.begin().await?;
        sqlx::query("set local idle_in_transaction_session_timeout = 0").execute(&mut *tx).await?;
        let is_ours = sqlx::query_scalar!(
            r#"select pg_try_advisory_xact_lock(hashtextextended($1, 0)) as "is_ours!""#,
            BatchId(job.id.0).to_string(),
        )
        .fetch_one(&mut *tx)
        .await?;
        if !is_ours || !is_to_validate(&mut tx, job.id).await? {
            return Ok(None);
        }
        Submission::open(tx, job, self.chunk_items).await.map(Some)
    }

    /// Ends a batch none of whose lines can be run.
    pub async fn fail_batch(&self, id: BatchId, errors: &[BatchError]) -> Result<(), StoreError> {
        sqlx::query!(
            "update batches set errors = $2::text::json, ended_at = now()
             where id = $1 and job_id is null and ended_at is null and cancel_asked_at is null",
            id.0,
            to_json(&errors),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Ends a batch that was cancelled before it became a job.
    pub async fn drop_batch(&self, id: BatchId) -> Result<(), StoreError> {
        sqlx::query!(
            "update batches set ended_at = now()
             where id = $1 and job_id is null and ended_at is null and cancel_asked_at is not null",
            id.0
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Batches whose jobs have ended and whose files are not measured.
    pub async fn batches_to_close(&self) -> Result<Vec<ToClose>, StoreError> {
        let rows = sqlx::query!(
            r#"select b.id, j.finished_at as "finished_at!" from batches b join jobs j on j.id = b.job_id
               where b.ended_at is null and j.finished_at is not null order by b.id limit $1"#,
            MAX_DUE,
        )
        .fetch_all(&self.pool)
        .await?;
        let due = rows.into_iter().map(|row| ToClose { id: BatchId(row.id), finished_at: row.finished_at });
        Ok(due.collect())
    }

    /// Ends a batch whose files have these sizes, unless its job has gone on meanwhile.
    pub async fn close_batch(
        &self,
        due: ToClose,
        output_bytes: i64,
        error_bytes: i64,
    ) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        let closed = sqlx::query!(
            "update batches b set ended_at = now() from jobs j
             where b.id = $1 and b.ended_at is null and j.id = b.job_id and j.finished_at = $2
             returning b.output_ttl_s",
            due.id.0,
            due.finished_at,
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(closed) = closed else { return Ok(()) };
        sqlx::query!(
            "update files set bytes = case role when 'output' then $2::bigint else $3::bigint end,
                    expires_at = now() + make_interval(secs => $4::float8)
             where batch_id = $1",
            due.id.0,
            output_bytes,
            error_bytes,
            closed.output_ttl_s.map(f64::from),
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }
}

async fn is_to_validate(tx: &mut sqlx::PgConnection, job: JobId) -> Result<bool, StoreError> {
    let row = sqlx::query!(
        "select id from batches where id = $1 and job_id is null and ended_at is null and cancel_asked_at is null",
        job.0
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.is_some())
}

/// Within the transaction that makes the job: the batch becomes it, and gets the two files it is read through.
/// Returns whether it still wants to.
pub(super) async fn accept(tx: &mut sqlx::PgConnection, job: JobId) -> Result<bool, StoreError> {
    let accepted = sqlx::query!(
        "update batches set job_id = id, in_progress_at = now()
         where id = $1 and job_id is null and ended_at is null and cancel_asked_at is null",
        job.0
    )
    .execute(&mut *tx)
    .await?;
    if accepted.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query!(
        "update jobs j set key_id = b.key_id from batches b where j.id = $1 and b.id = j.id and b.key_id is not null",
        job.0
    )
    .execute(&mut *tx)
    .await?;
    let name = BatchId(job.0);
    sqlx::query!(
        "insert into files (id, tenant, role, filename, batch_id)
         select u.id, b.tenant, u.role::file_role, u.filename, b.id
         from batches b, unnest($2::uuid[], array['output', 'errors'], $3::text[]) u (id, role, filename)
         where b.id = $1",
        job.0,
        &[FileId::new().0, FileId::new().0],
        &[format!("{name}_output.jsonl"), format!("{name}_error.jsonl")],
    )
    .execute(tx)
    .await?;
    Ok(true)
}

fn to_batch(row: RawBatch, sums: Vec<StageRow>) -> Result<BatchRow, StoreError> {
    let at = |column| At { table: "batches", column, row: &row.id };
    let job_state = row.job_state.as_deref().map(|state| at("job_id").job_state(state)).transpose()?;
    let (mut counts, mut usage) = (Counts::default(), Usage::default());
    let mut models = Vec::new();
    for sum in sums {
        counts += sum.counts;
        usage += sum.usage;
        models.push(sum.model);
    }
    let standing = Standing {
        is_refused: row.errors.is_some(),
        cancel_asked: row.cancel_asked_at.is_some(),
        is_ended: row.ended_at.is_some(),
        job: job_state.map(|state| (state, counts.expired > 0)),
    };
    let was_cancelled = job_state == Some(crate::domain::job::JobState::Cancelled);
    let metadata = row.metadata.as_deref().map(|text| at("metadata").json(text)).transpose()?;
    let errors = row.errors.as_deref().map(|text| at("errors").json(text)).transpose()?;
    Ok(BatchRow {
        id: BatchId(row.id),
        endpoint: row.endpoint,
        input_file: FileId(row.input_file_id),
        output_file: row.output_file_id.map(FileId),
        error_file: row.error_file_id.map(FileId),
        completion_window: row.completion_window,
        metadata,
        state: standing.state(),
        errors: errors.unwrap_or_default(),
        models,
        counts,
        usage,
        created_at: row.created_at,
        expires_at: row.expires_at,
        in_progress_at: row.in_progress_at,
        // a job is cancelled in the moment in which that is asked
        cancelling_at: row.cancel_asked_at.or(row.finished_at.filter(|_| was_cancelled)),
        finalizing_at: row.finished_at.filter(|_| !was_cancelled),
        ended_at: row.ended_at,
    })
}
