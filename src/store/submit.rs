//! Submission: job, items and chunks in one transaction, streamed, with bounded memory.

use chrono::{DateTime, Utc};
use sqlx::postgres::Postgres;
use sqlx::{PgConnection, Transaction};
use uuid::Uuid;

use super::quota::{self, Charge};
use super::words::to_json;
use super::{CHANNEL_WORK, Store, StoreError};
use crate::domain::basis::Basis;
use crate::domain::catalog::Catalog;
use crate::domain::code::Code;
use crate::domain::id::JobId;
use crate::domain::item::ItemDraft;
use crate::domain::job::{Class, JobSpec, Weight};
use crate::domain::omission::Omissions;
use crate::domain::task::Stage;

/// Up to here rows go as arrays of one INSERT; a COPY costs more to start than it saves.
const MAX_ARRAY_ROWS: i32 = 2_000;
/// Bytes of one COPY, which is all that a submission holds in memory.
const COPY_BYTES: usize = 4 << 20;
/// Seqs are `integer`; far beyond what the API admits.
const MAX_ITEMS: i64 = 100_000_000;

/// A job as it comes in, without its items.
#[derive(Clone, Debug)]
pub struct NewJob {
    pub id: JobId,
    pub tenant: String,
    pub spec: JobSpec,
    pub catalog: Option<Catalog>,
    /// Of a job that reads a catalog, so that another can be made from it.
    pub basis: Option<Basis>,
    pub class: Class,
    /// Share among the jobs of its class, in percent of an ordinary one's.
    pub weight: Weight,
    /// Makes a repeated submission answer the first one's job.
    pub idempotency_key: Option<String>,
    /// Digest of the request, compared when the key is met again. A caller that knows it only after the
    /// last byte leaves it `None` and calls [`Submission::set_request_hash`].
    pub request_hash: Option<Vec<u8>>,
    pub expires_at: Option<DateTime<Utc>>,
}

/// Which job a submission came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    pub job: JobId,
    /// `false`: an earlier submission under the same key made it.
    pub created: bool,
}

/// An open submission. Dropped before [`Submission::commit`], it leaves nothing behind.
pub struct Submission {
    pub(super) tx: Transaction<'static, Postgres>,
    pub(super) job: NewJob,
    /// Set when the key was met before: what is pushed is dropped, only the hash counts.
    pub(super) earlier: Option<Earlier>,
    pub(super) rows: ItemRows,
    /// Whether its items are in chunks already, which is so of a job made from another.
    pub(super) has_chunks: bool,
    /// Up to where in the order of pushes which model serves; empty: the job's own serves all.
    served: Vec<(i32, String)>,
    failures: Failures,
    left_out: Omissions,
    /// Whose quota it counts towards.
    charge: Option<Charge>,
    pub(super) chunk_items: i32,
}

/// Items that ended as they came in: where in the order of pushes they begin, and those that are not written.
#[derive(Default)]
struct Failures {
    from: Option<i32>,
    codes: Vec<&'static str>,
    messages: Vec<String>,
}

pub(super) struct Earlier {
    job: JobId,
    request_hash: Option<Vec<u8>>,
}

impl Store {
    /// Opens a submission. Waits while another one under the same key is open.
    pub async fn submit_begin(&self, job: NewJob) -> Result<Submission, StoreError> {
        let mut tx = self.pool.begin().await?;
        // its locks are on its own rows alone, and its client may be slow
        sqlx::query("set local idle_in_transaction_session_timeout = 0").execute(&mut *tx).await?;
        Submission::open(tx, job, self.chunk_items).await
    }
}

impl Submission {
    pub(super) async fn open(
        mut tx: Transaction<'static, Postgres>,
        job: NewJob,
        chunk_items: i32,
    ) -> Result<Self, StoreError> {
        let earlier =
            if insert_job(&mut tx, &job).await? { None } else { Some(find_earlier(&mut tx, &job).await?) };
        let rows = ItemRows::new(job.id.0, 0);
        let (served, failures, left_out) = (Vec::new(), Failures::default(), Omissions::default());
        let charge = None;
        Ok(Self {
            tx,
            job,
            earlier,
            rows,
            has_chunks: false,
            served,
            failures,
            left_out,
            charge,
            chunk_items,
        })
    }

    pub fn job(&self) -> JobId {
        self.earlier.as_ref().map_or(self.job.id, |earlier| earlier.job)
    }

    /// Items so far.
    pub fn len(&self) -> i64 {
        i64::from(self.rows.next_seq)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// For callers that hash what they stream.
    pub fn set_request_hash(&mut self, hash: Vec<u8>) {
        self.job.request_hash = Some(hash);
    }

    /// What of the source became no item, for the job's view.
    pub fn set_left_out(&mut self, left_out: Omissions) {
        self.left_out = left_out;
    }

    /// Counts what is pushed towards a key's quota. What alone exceeds it is refused while it comes in; what waits
    /// besides is asked about once, at the commit.
    pub fn charge_to(&mut self, charge: Option<Charge>) {
        self.charge = charge;
    }

    /// Of the items so far, and of the catalog that their prompts are made from.
    fn tokens(&self) -> i64 {
        let catalog = self.job.catalog.as_ref().map_or(0, |catalog| to_json(catalog).len());
        quota::tokens_of(self.rows.input_bytes + catalog as u64)
    }

    /// Adds an item of the job's first stage. Its place is the order of pushes.
    pub async fn push(&mut self, draft: ItemDraft) -> Result<(), StoreError> {
        if self.earlier.is_some() {
            return Ok(());
        }
        self.rows.push(&mut self.tx, &draft).await?;
        let asked = quota::tokens_of(self.rows.input_bytes);
        match self.charge.and_then(|charge| charge.max_queued_tokens) {
            Some(max) => quota::admit(0, asked, max),
            None => Ok(()),
        }
    }

    /// Adds an item that has failed already. Such items come after all that are to be run.
    pub async fn push_failed(
        &mut self,
        draft: ItemDraft,
        code: Code,
        message: String,
    ) -> Result<(), StoreError> {
        self.failures.from.get_or_insert(self.rows.next_seq);
        self.failures.codes.push(code.as_str());
        self.failures.messages.push(message.replace('\0', ""));
        self.push(draft).await?;
        if self.failures.codes.len() >= MAX_ARRAY_ROWS as usize {
            self.flush_failures().await
        } else {
            Ok(())
        }
    }

    /// What was pushed since the last call is served by `model`. Without a call, the job's own serves all; with
    /// one, the last call comes after the last item that is to be run.
    pub fn served_by(&mut self, model: &str) {
        self.served.push((self.rows.next_seq, model.into()));
    }

    /// Makes the job real, and its batch with it. False: the batch does not want to any more, and nothing was
    /// written.
    pub async fn commit_batch(mut self) -> Result<bool, StoreError> {
        self.write().await?;
        if !super::batch::accept(&mut self.tx, self.job.id).await? {
            self.tx.rollback().await?;
            return Ok(false);
        }
        self.tx.commit().await?;
        Ok(true)
    }

    /// Makes the job real, or answers the earlier one of the same key.
    pub async fn commit(mut self) -> Result<Submitted, StoreError> {
        if let Some(earlier) = self.earlier {
            self.tx.rollback().await?;
            return if earlier.request_hash == self.job.request_hash {
                Ok(Submitted { job: earlier.job, created: false })
            } else {
                Err(StoreError::IdempotencyConflict { job: earlier.job })
            };
        }
        self.write().await?;
        if let Some(charge) = self.charge {
            let tokens = self.tokens();
            quota::check(&mut self.tx, charge, tokens).await?;
        }
        self.tx.commit().await?;
        Ok(Submitted { job: self.job.id, created: true })
    }

    /// Everything but the commit: the items that are still buffered, and the chunks that hold them all.
    async fn write(&mut self) -> Result<(), StoreError> {
        let total = self.rows.finish(&mut self.tx).await?;
        if total == 0 || self.failures.from == Some(0) {
            return Err(StoreError::Empty(self.job.id));
        }
        let tokens = self.tokens();
        let key = self.charge.map(|charge| charge.key.0);
        set_total_and_hash(&mut self.tx, &self.job, total, key, tokens).await?;
        if !self.left_out.is_empty() {
            set_left_out(&mut self.tx, self.job.id, &self.left_out).await?;
        }
        if self.has_chunks {
            return Ok(());
        }
        let stage = first_stage(&self.job.spec);
        let share = Share { class: self.job.class, weight: self.job.weight };
        let failed_from = self.failures.from.unwrap_or(total);
        if self.served.is_empty() {
            self.served.push((failed_from, self.job.spec.model_of(stage).into()));
        }
        let mut lo = 0;
        for (hi, model) in &self.served {
            let cut = Cut { lo, hi: *hi, chunk_items: self.chunk_items };
            insert_chunks(&mut self.tx, self.job.id, stage, model, share, cut).await?;
            notify_work(&mut self.tx, model).await?;
            lo = *hi;
        }
        self.flush_failures().await?;
        let cut = Cut { lo: failed_from, hi: total, chunk_items: self.chunk_items };
        insert_failed_chunks(&mut self.tx, self.job.id, stage, &self.served[0].1, share, cut).await?;
        Ok(())
    }

    async fn flush_failures(&mut self) -> Result<(), StoreError> {
        // a result needs its item
        let end = self.rows.finish(&mut self.tx).await?;
        let count = i32::try_from(self.failures.codes.len()).expect("a buffer holds few rows");
        insert_failures(&mut self.tx, self.job.id, end - count, &self.failures).await?;
        self.failures.codes.clear();
        self.failures.messages.clear();
        Ok(())
    }
}

fn first_stage(spec: &JobSpec) -> Stage {
    *spec.task.stages().first().expect("every task has a stage")
}

/// Rows of `items` on their way, buffered: arrays while they are few, COPY beyond.
pub(super) struct ItemRows {
    job: Uuid,
    next_seq: i32,
    stages: Vec<&'static str>,
    inputs: Vec<String>,
    buffered_bytes: usize,
    /// Of all inputs so far.
    input_bytes: u64,
}

impl ItemRows {
    /// Rows of `job` from `next_seq` on.
    pub fn new(job: Uuid, next_seq: i32) -> Self {
        Self { job, next_seq, stages: Vec::new(), inputs: Vec::new(), buffered_bytes: 0, input_bytes: 0 }
    }

    pub async fn push(&mut self, tx: &mut PgConnection, draft: &ItemDraft) -> Result<(), StoreError> {
        if i64::from(self.next_seq) >= MAX_ITEMS {
            return Err(StoreError::TooMany { limit: MAX_ITEMS });
        }
        let input = to_json(&draft.input);
        self.buffered_bytes += input.len() + 64;
        self.input_bytes += input.len() as u64;
        self.stages.push(draft.stage.as_str());
        self.inputs.push(input);
        self.next_seq += 1;
        if self.buffered_bytes >= COPY_BYTES { self.flush(tx).await } else { Ok(()) }
    }

    /// Writes what is buffered; returns the seq after the last.
    pub async fn finish(&mut self, tx: &mut PgConnection) -> Result<i32, StoreError> {
        self.flush(tx).await?;
        Ok(self.next_seq)
    }

    async fn flush(&mut self, tx: &mut PgConnection) -> Result<(), StoreError> {
        let rows = i32::try_from(self.inputs.len()).expect("a buffer holds few rows");
        let first = self.next_seq - rows;
        if rows > MAX_ARRAY_ROWS || self.buffered_bytes >= COPY_BYTES {
            copy_items(tx, self.job, first, &self.stages, &self.inputs).await?;
        } else if rows > 0 {
            insert_items(tx, self.job, first, &self.stages, &self.inputs).await?;
        }
        self.stages.clear();
        self.inputs.clear();
        self.buffered_bytes = 0;
        Ok(())
    }
}

/// Inserts the job's row unless its key is taken; returns whether it did. A row of the same key that is
/// not committed yet is waited for.
async fn insert_job(tx: &mut PgConnection, job: &NewJob) -> Result<bool, StoreError> {
    let spec = to_json(&job.spec);
    let catalog = job.catalog.as_ref().map(to_json);
    let basis = job.basis.as_ref().map(to_json);
    let inserted = sqlx::query!(
        "insert into jobs (id, tenant, task, spec, catalog, class, stage, idempotency_key, request_hash, expires_at,
                           weight, basis)
         values ($1, $2, $3::text::task, $4::text::json, $5::text::json, $6, $7::text::stage, $8, $9, $10, $11,
                 $12::text::json)
         on conflict (tenant, idempotency_key) where idempotency_key is not null do nothing",
        job.id.0,
        job.tenant,
        job.spec.task.as_str(),
        spec,
        catalog,
        job.class as i16,
        first_stage(&job.spec).as_str(),
        job.idempotency_key,
        job.idempotency_key.as_ref().and(job.request_hash.as_deref()),
        job.expires_at,
        job.weight.percent(),
        basis,
    )
    .execute(tx)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

async fn find_earlier(tx: &mut PgConnection, job: &NewJob) -> Result<Earlier, StoreError> {
    let row = sqlx::query!(
        "select id, request_hash from jobs where tenant = $1 and idempotency_key = $2",
        job.tenant,
        job.idempotency_key,
    )
    .fetch_optional(tx)
    .await?;
    // deleted between the two statements: the caller may simply try again
    let row = row.ok_or(StoreError::Unavailable(sqlx::Error::RowNotFound))?;
    Ok(Earlier { job: JobId(row.id), request_hash: row.request_hash })
}

async fn insert_items(
    tx: &mut PgConnection,
    job: Uuid,
    first: i32,
    stages: &[&'static str],
    inputs: &[String],
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into items (job_id, seq, stage, input)
         select $1, $2 + (u.at - 1)::int, u.stage::stage, u.input::json
         from unnest($3::text[], $4::text[]) with ordinality u (stage, input, at)",
        job,
        first,
        stages as &[&str],
        inputs,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The same rows by binary COPY. One whole COPY per buffer: a COPY held open across awaits of the caller
/// would have to borrow the transaction that owns it.
async fn copy_items(
    tx: &mut PgConnection,
    job: Uuid,
    first: i32,
    stages: &[&'static str],
    inputs: &[String],
) -> Result<(), StoreError> {
    let mut copy =
        tx.copy_in_raw("copy items (job_id, seq, stage, input) from stdin (format binary)").await?;
    let bytes = inputs.iter().map(|input| input.len() + 64).sum();
    let mut buffer: Vec<u8> = Vec::with_capacity(bytes);
    buffer.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    let field = |buffer: &mut Vec<u8>, bytes: &[u8]| {
        let len = i32::try_from(bytes.len()).expect("an input is far below 2 GiB");
        buffer.extend_from_slice(&len.to_be_bytes());
        buffer.extend_from_slice(bytes);
    };
    for (seq, (stage, input)) in (first..).zip(stages.iter().zip(inputs)) {
        buffer.extend_from_slice(&4i16.to_be_bytes());
        field(&mut buffer, job.as_bytes());
        field(&mut buffer, &seq.to_be_bytes());
        field(&mut buffer, stage.as_bytes());
        field(&mut buffer, input.as_bytes());
    }
    buffer.extend_from_slice(&(-1i16).to_be_bytes());
    copy.send(buffer).await?;
    copy.finish().await?;
    Ok(())
}

async fn set_total_and_hash(
    tx: &mut PgConnection,
    job: &NewJob,
    total: i32,
    key: Option<Uuid>,
    input_tokens: i64,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update jobs set total = $2, request_hash = $3, key_id = $4, input_tokens = $5 where id = $1",
        job.id.0,
        total,
        job.idempotency_key.as_ref().and(job.request_hash.as_deref()),
        key,
        input_tokens,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn set_left_out(tx: &mut PgConnection, id: JobId, left_out: &Omissions) -> Result<(), StoreError> {
    sqlx::query!("update jobs set left_out = $2::text::json where id = $1", id.0, to_json(left_out))
        .execute(tx)
        .await?;
    Ok(())
}

/// How `[lo, hi)` is cut into chunks.
pub(super) struct Cut {
    pub lo: i32,
    pub hi: i32,
    pub chunk_items: i32,
}

/// When a job's chunks are served: by class, and within it by weight.
#[derive(Clone, Copy)]
pub(super) struct Share {
    pub class: Class,
    pub weight: Weight,
}

/// Start-time fair queueing: a job's virtual time starts where the queue of its model and class stands, and
/// advances by its own items, more slowly the heavier they weigh. So a short job meets a long one's next
/// chunk, not its last, and of two long ones each gets its share.
pub(super) async fn insert_chunks(
    tx: &mut PgConnection,
    job: JobId,
    stage: Stage,
    model: &str,
    share: Share,
    cut: Cut,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into chunks (job_id, stage, model, lo, hi, n_items, class, vtime)
         select $1, $2::text::stage, $3, g, least(g + $6, $5), least(g + $6, $5) - g, $7,
                base.vtime + (g - $4)::bigint * 100000 / $8
         from generate_series($4, $5 - 1, $6) g,
              (select coalesce(min(vtime), 0) as vtime from chunks
               where state = 'ready' and model = $3 and class = $7) base",
        job.0,
        stage.as_str(),
        model,
        cut.lo,
        cut.hi,
        cut.chunk_items,
        share.class as i16,
        i64::from(share.weight.percent()),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Chunks all of whose items have failed already; nobody claims them.
async fn insert_failed_chunks(
    tx: &mut PgConnection,
    job: JobId,
    stage: Stage,
    model: &str,
    share: Share,
    cut: Cut,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into chunks (job_id, stage, model, lo, hi, n_items, n_failed, class, vtime, state)
         select $1, $2::text::stage, $3, g, least(g + $6, $5), least(g + $6, $5) - g, least(g + $6, $5) - g, $7, 0,
                'done'
         from generate_series($4, $5 - 1, $6) g",
        job.0,
        stage.as_str(),
        model,
        cut.lo,
        cut.hi,
        cut.chunk_items,
        share.class as i16,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Results of items that were never run, by seq from `first`.
async fn insert_failures(
    tx: &mut PgConnection,
    job: JobId,
    first: i32,
    failures: &Failures,
) -> Result<(), StoreError> {
    if failures.codes.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into results (job_id, seq, outcome, error_code, error, attempts, prompt_tokens, prefix_hit_tokens,
                              output_tokens, forced_tokens, latency_ms)
         select $1, $2 + (u.at - 1)::int, 'failed', u.code, u.message, 1, 0, 0, 0, 0, 0
         from unnest($3::text[], $4::text[]) with ordinality u (code, message, at)",
        job.0,
        first,
        &failures.codes as &[&str],
        &failures.messages,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Delivered when the transaction commits.
pub(super) async fn notify_work(tx: &mut PgConnection, model: &str) -> Result<(), StoreError> {
    sqlx::query!("select pg_notify($1, $2)", CHANNEL_WORK, model).fetch_one(tx).await?;
    Ok(())
}
