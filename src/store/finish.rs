//! Writes under a claim: results while it runs, and its end. All are fenced.

use sqlx::PgConnection;

use super::words::{At, to_json};
use super::{Store, StoreError};
use crate::domain::id::{JobId, Seq};
use crate::domain::item::{NewResult, Outcome};
use crate::domain::lease::{Claim, Fence};
use crate::domain::task::Stage;

/// Results of one claim on their way.
#[derive(Clone, Debug)]
pub struct Write<'a> {
    pub claim: &'a Claim,
    pub results: &'a [NewResult],
}

/// How a claim ends.
#[derive(Clone, Debug)]
pub struct Finish<'a> {
    pub claim: &'a Claim,
    /// Those not written yet.
    pub results: &'a [NewResult],
    /// Items to be tried again, after `again_after_ms`, as a chunk of their own. The caller has left out
    /// those whose tries are used up.
    pub again: &'a [Seq],
    pub again_after_ms: u64,
}

/// Whether a write found its claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fenced {
    /// Written.
    Held,
    /// Another claim, a cancel or an expiry has replaced this one; nothing was written.
    Lost,
}

/// What the end of a claim meant for its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    Lost,
    /// Other chunks of the stage are open, or the job has ended for another reason.
    Open,
    /// It was the last of the job's last stage: the job is completed.
    JobCompleted(JobId),
    /// It was the last of its stage. Exactly one caller is told; see [`Store::advance`].
    StageDone(StageDone),
}

/// A stage all of whose items have ended, and which has a successor to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StageDone {
    pub job: JobId,
    pub stage: Stage,
}

impl Store {
    /// Writes results of running claims, in one transaction. One answer per write.
    pub async fn commit_results(&self, writes: &[Write<'_>]) -> Result<Vec<Fenced>, StoreError> {
        let mut tx = self.pool.begin().await?;
        let mut order: Vec<usize> = (0..writes.len()).collect();
        order.sort_by_key(|at| writes[*at].claim.fence.chunk);
        let mut answers = vec![Fenced::Lost; writes.len()];
        for at in order {
            let write = &writes[at];
            if lock_claim(&mut tx, write.claim.fence).await? {
                write_results(&mut tx, write.claim, write.results).await?;
                answers[at] = Fenced::Held;
            }
        }
        tx.commit().await?;
        Ok(answers)
    }

    /// Ends a claim: last results, items to be tried again, the chunk's end, and what follows for the job,
    /// in one transaction. Items of the claim that are in neither list wait again as a chunk of their own.
    pub async fn finish(&self, finish: &Finish<'_>) -> Result<Finished, StoreError> {
        let claim = finish.claim;
        let mut tx = self.pool.begin().await?;
        lock_job(&mut tx, claim.job).await?;
        if !lock_claim(&mut tx, claim.fence).await? {
            return Ok(Finished::Lost);
        }
        write_results(&mut tx, claim, finish.results).await?;
        if !finish.again.is_empty() {
            move_items(&mut tx, claim.fence.chunk.0, finish.again, MoveTo::Delayed(finish.again_after_ms))
                .await?;
        }
        let left = unended_items(&mut tx, claim.fence.chunk.0).await?;
        if !left.is_empty() {
            move_items(&mut tx, claim.fence.chunk.0, &left, MoveTo::Ready).await?;
        }
        end_chunk(&mut tx, claim.fence.chunk.0).await?;
        let finished = settle_job(&mut tx, claim.job, claim.stage).await?;
        tx.commit().await?;
        Ok(finished)
    }
}

/// The first lock of every transaction that may end a job or a stage.
pub(super) async fn lock_job(tx: &mut PgConnection, job: JobId) -> Result<(), StoreError> {
    sqlx::query!("select id from jobs where id = $1 for no key update", job.0).fetch_optional(tx).await?;
    Ok(())
}

/// The fence: locks the chunk's row if this claim still holds it.
async fn lock_claim(tx: &mut PgConnection, fence: Fence) -> Result<bool, StoreError> {
    let held = sqlx::query!(
        "select id from chunks where id = $1 and worker = $2 and attempt = $3 and state = 'running' for update",
        fence.chunk.0,
        fence.worker.0,
        fence.attempt,
    )
    .fetch_optional(tx)
    .await?;
    Ok(held.is_some())
}

/// Inserts results and counts those that were inserted. A result that exists already (the answer to a
/// commit was lost, and it is written again) is left as it is and counted once.
pub(super) async fn write_results(
    tx: &mut PgConnection,
    claim: &Claim,
    results: &[NewResult],
) -> Result<(), StoreError> {
    if results.is_empty() {
        return Ok(());
    }
    let mut rows = ResultColumns::default();
    for result in results {
        rows.push(result);
    }
    sqlx::query!(
        "with fresh as (
             insert into results (job_id, seq, outcome, output, error_code, error, attempts, prompt_tokens,
                                  prefix_hit_tokens, output_tokens, forced_tokens, latency_ms,
                                  confidence, field_confidence)
             select $1, u.seq, u.outcome::outcome, u.output::json, u.error_code, u.error, $3,
                    u.prompt, least(u.hit, u.prompt), u.answer, least(u.forced, u.answer), u.latency,
                    u.confidence, u.fields::json
             from unnest($4::int[], $5::text[], $6::text[], $7::text[], $8::text[],
                         $9::int[], $10::int[], $11::int[], $12::int[], $13::int[], $14::real[], $15::text[])
                  u (seq, outcome, output, error_code, error, prompt, hit, answer, forced, latency, confidence,
                     fields)
             where u.seq in (select chunk_seqs(c.lo, c.hi, c.seqs) from chunks c where c.id = $2)
             on conflict do nothing
             returning outcome, prompt_tokens, prefix_hit_tokens, output_tokens, forced_tokens),
         sums as (
             select count(*) filter (where outcome = 'succeeded') as succeeded,
                    count(*) filter (where outcome = 'failed') as failed,
                    coalesce(sum(prompt_tokens), 0) as prompt, coalesce(sum(prefix_hit_tokens), 0) as hit,
                    coalesce(sum(output_tokens), 0) as answer, coalesce(sum(forced_tokens), 0) as forced
             from fresh)
         update chunks set n_succeeded = n_succeeded + s.succeeded, n_failed = n_failed + s.failed,
                prompt_tokens = prompt_tokens + s.prompt, prefix_hit_tokens = prefix_hit_tokens + s.hit,
                output_tokens = output_tokens + s.answer, forced_tokens = forced_tokens + s.forced,
                result_at = now()
         from sums s where id = $2",
        claim.job.0,
        claim.fence.chunk.0,
        claim.tries.saturating_add(1),
        &rows.seq,
        &rows.outcome as &[&str],
        &rows.output as &[Option<String>],
        &rows.error_code as &[Option<&str>],
        &rows.error as &[Option<String>],
        &rows.prompt_tokens,
        &rows.prefix_hit_tokens,
        &rows.output_tokens,
        &rows.forced_tokens,
        &rows.latency_ms,
        &rows.confidence as &[Option<f32>],
        &rows.field_confidence as &[Option<String>],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Results by column, as UNNEST takes them.
#[derive(Default)]
struct ResultColumns {
    seq: Vec<i32>,
    outcome: Vec<&'static str>,
    output: Vec<Option<String>>,
    error_code: Vec<Option<&'static str>>,
    /// Without NUL, which text of Postgres cannot hold.
    error: Vec<Option<String>>,
    prompt_tokens: Vec<i32>,
    prefix_hit_tokens: Vec<i32>,
    output_tokens: Vec<i32>,
    forced_tokens: Vec<i32>,
    latency_ms: Vec<i32>,
    confidence: Vec<Option<f32>>,
    field_confidence: Vec<Option<String>>,
}

impl ResultColumns {
    fn push(&mut self, result: &NewResult) {
        let (output, error_code, error) = match &result.outcome {
            Outcome::Succeeded { output } => (Some(to_json(output)), None, None),
            Outcome::Failed { code, message } => (None, Some(code.as_str()), Some(message.as_str())),
            // no row: whoever cancels or expires items has counted them in their chunk and taken the claim
            Outcome::Cancelled | Outcome::Expired => return,
        };
        let count = |tokens: u64| i32::try_from(tokens).unwrap_or(i32::MAX);
        self.seq.push(result.seq);
        self.outcome.push(result.outcome.kind().as_str());
        self.output.push(output);
        self.error_code.push(error_code);
        self.error.push(error.map(|text| text.replace('\0', "")));
        self.prompt_tokens.push(count(result.usage.prompt_tokens));
        self.prefix_hit_tokens.push(count(result.usage.prefix_hit_tokens));
        self.output_tokens.push(count(result.usage.output_tokens));
        self.forced_tokens.push(count(result.usage.forced_tokens));
        self.latency_ms.push(i32::try_from(result.latency_ms).unwrap_or(i32::MAX));
        let confidence = result.confidence.as_ref();
        self.confidence.push(confidence.map(|known| known.least.as_f64() as f32));
        let fields = confidence.map(|known| &known.fields).filter(|fields| !fields.is_empty());
        self.field_confidence.push(fields.map(to_json));
    }
}

/// Where items that leave a chunk go.
pub(super) enum MoveTo {
    /// Another chunk that may be claimed at once, with the same tries.
    Ready,
    /// Another chunk with one more try behind it, after some milliseconds.
    Delayed(u64),
}

/// Takes unended items out of a running chunk into a new one. The caller holds the chunk's lock.
pub(super) async fn move_items(
    tx: &mut PgConnection,
    chunk: i64,
    seqs: &[Seq],
    to: MoveTo,
) -> Result<(), StoreError> {
    let delay_ms = match to {
        MoveTo::Ready => None,
        MoveTo::Delayed(ms) => Some(ms as f64),
    };
    sqlx::query!(
        "with moved as (
             select array(select s from chunk_seqs(c.lo, c.hi, c.seqs) s
                          where s = any($2)
                            and not exists (select from results r where r.job_id = c.job_id and r.seq = s)
                          order by s) as seqs
             from chunks c where c.id = $1),
         -- the virtual time stays: these items have waited their turn once
         made as (
             insert into chunks (job_id, stage, model, lo, hi, seqs, n_items, class, vtime, tries, deaths, state, run_at)
             select c.job_id, c.stage, c.model, c.lo, c.hi, m.seqs, cardinality(m.seqs), c.class, c.vtime,
                    c.tries + case when $3::float8 is null then 0 else 1 end, c.deaths,
                    (case when $3::float8 is null then 'ready' else 'delayed' end)::chunk_state,
                    now() + make_interval(secs => $3::float8 / 1000)
             from chunks c, moved m where c.id = $1 and cardinality(m.seqs) > 0)
         update chunks c
         set seqs = array(select s from chunk_seqs(c.lo, c.hi, c.seqs) s where s <> all(m.seqs) order by s),
             n_items = c.n_items - cardinality(m.seqs)
         from moved m where c.id = $1 and cardinality(m.seqs) > 0",
        chunk,
        seqs,
        delay_ms,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The items of a chunk that have no result.
pub(super) async fn unended_items(tx: &mut PgConnection, chunk: i64) -> Result<Vec<Seq>, StoreError> {
    let seqs = sqlx::query_scalar!(
        r#"select s.seq as "seq!" from chunks c cross join lateral chunk_seqs(c.lo, c.hi, c.seqs) s (seq)
           where c.id = $1 and c.n_succeeded + c.n_failed < c.n_items
             and not exists (select from results r where r.job_id = c.job_id and r.seq = s.seq)
           order by 1"#,
        chunk,
    )
    .fetch_all(tx)
    .await?;
    Ok(seqs)
}

/// Every item has a result: the chunk is done. A CHECK refuses it otherwise.
pub(super) async fn end_chunk(tx: &mut PgConnection, chunk: i64) -> Result<(), StoreError> {
    sqlx::query!(
        "update chunks set state = 'done', worker = null, lease_until = null
         where id = $1 and state = 'running'",
        chunk
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// After a chunk of `stage` has ended: completes the job, or hands over the stage, if nothing of it is open.
/// The caller holds the job's lock, which is why exactly one caller sees the last chunk end.
pub(super) async fn settle_job(
    tx: &mut PgConnection,
    job: JobId,
    stage: Stage,
) -> Result<Finished, StoreError> {
    let row = sqlx::query!(
        r#"select task::text as "task!" from jobs
           where id = $1 and state in ('queued', 'running') and stage = $2::text::stage
             and not exists (select from chunks c where c.job_id = $1 and c.state in ('ready', 'delayed', 'running'))"#,
        job.0,
        stage.as_str(),
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(Finished::Open) };
    let task = At { table: "jobs", column: "task", row: &job }.task(&row.task)?;
    if task.stage_after(stage).is_none() {
        sqlx::query!("update jobs set state = 'completed', finished_at = now() where id = $1", job.0)
            .execute(tx)
            .await?;
        return Ok(Finished::JobCompleted(job));
    }
    sqlx::query!("update jobs set handed_over_at = now() where id = $1", job.0).execute(tx).await?;
    Ok(Finished::StageDone(StageDone { job, stage }))
}
