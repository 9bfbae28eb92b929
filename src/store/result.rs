//! Reading results: pages by key while the job runs, and a finished stage with its inputs.

use chrono::{DateTime, Utc};
use futures::Stream;
use futures::StreamExt;
use serde_json::Value;

use super::words::At;
use super::{Store, StoreError};
use crate::domain::confidence::{Confidence, ItemConfidence};
use crate::domain::id::{JobId, Seq};
use crate::domain::item::{ItemDraft, Outcome, OutcomeKind};
use crate::domain::task::Stage;
use crate::domain::usage::Usage;

/// Seqs of one look for items that ended without a result row.
const WINDOW: i32 = 8_192;

/// How one item ended, with what went in.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultRow {
    pub seq: Seq,
    pub stage: Stage,
    pub input: Value,
    pub outcome: Outcome,
    pub usage: Usage,
    pub latency_ms: u32,
    pub confidence: Option<ItemConfidence>,
    /// Tries it took; 0 for an item that was cancelled or expired.
    pub attempts: i16,
    /// Absent for an item that was cancelled or expired.
    pub finished_at: Option<DateTime<Utc>>,
}

/// Which results a reader wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    #[default]
    All,
    Outcome(OutcomeKind),
    /// Of a lower confidence than this; those without any are not among them.
    Below(Confidence),
}

impl From<Option<OutcomeKind>> for Filter {
    fn from(outcome: Option<OutcomeKind>) -> Self {
        outcome.map_or(Filter::All, Filter::Outcome)
    }
}

/// For readers that have been here before: of seqs up to `upto`, only what ended after `since` is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    pub upto: Seq,
    pub since: DateTime<Utc>,
}

/// A page of results, by seq.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResultPage {
    pub rows: Vec<ResultRow>,
    /// Every item before this has ended: a reader that follows a running job and goes no further than this
    /// misses none. Beyond it, results may still come in between those already there.
    pub settled_before: Seq,
}

/// An item with its answer, as the next stage and the exports take it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub seq: Seq,
    pub draft: ItemDraft,
    /// `None`: the item failed, or has not ended.
    pub output: Option<Value>,
}

struct RawAnswer {
    seq: i32,
    stage: String,
    input: String,
    output: Option<String>,
}

struct RawResult {
    seq: i32,
    stage: String,
    input: String,
    outcome: String,
    output: Option<String>,
    error_code: Option<String>,
    error: Option<String>,
    attempts: i16,
    prompt_tokens: i32,
    prefix_hit_tokens: i32,
    output_tokens: i32,
    forced_tokens: i32,
    latency_ms: i32,
    confidence: Option<f32>,
    field_confidence: Option<String>,
    finished_at: DateTime<Utc>,
}

impl Store {
    /// Up to `limit` results with a seq above `after`. Of a job that does not exist: an empty page.
    pub async fn results(
        &self,
        job: JobId,
        after: Option<Seq>,
        limit: u32,
        filter: impl Into<Filter>,
    ) -> Result<ResultPage, StoreError> {
        self.results_again(job, after, limit, filter.into(), None).await
    }

    /// As [`Store::results`], less what a reader has seen already.
    pub async fn results_again(
        &self,
        job: JobId,
        after: Option<Seq>,
        limit: u32,
        filter: Filter,
        again: Option<Again>,
    ) -> Result<ResultPage, StoreError> {
        let after = after.unwrap_or(-1);
        let mut tx = self.pool.begin_with("begin isolation level repeatable read, read only").await?;
        let marks = sqlx::query!(
            r#"select coalesce(min(lo) filter (where state in ('ready', 'delayed', 'running')), max(hi), 0) as "settled!",
                      coalesce(max(hi), 0) as "hi!", coalesce(sum(n_cancelled + n_expired), 0) as "unwritten!"
               from chunks where job_id = $1"#,
            job.0
        )
        .fetch_one(&mut *tx)
        .await?;
        let limit_rows = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut rows = match filter {
            Filter::Outcome(OutcomeKind::Cancelled | OutcomeKind::Expired) => Vec::new(),
            Filter::Outcome(OutcomeKind::Failed) => read_failed(&mut tx, job, after, limit, again).await?,
            Filter::Outcome(OutcomeKind::Succeeded) | Filter::All | Filter::Below(_) => {
                read_written(&mut tx, job, after, limit, filter, again).await?
            }
        };
        let unwritten = match filter {
            Filter::All => Some(None),
            Filter::Outcome(kind @ (OutcomeKind::Cancelled | OutcomeKind::Expired)) => {
                Some(Some(kind.as_str()))
            }
            _ => None,
        };
        if let Some(word) = unwritten.filter(|_| marks.unwritten > 0) {
            let end = if rows.len() == limit_rows { rows[rows.len() - 1].seq } else { marks.hi };
            let mut lo = after + 1;
            let mut unwritten = Vec::new();
            while lo < end && unwritten.len() < limit_rows {
                let hi = end.min(lo.saturating_add(WINDOW));
                let left = limit_rows - unwritten.len();
                unwritten.extend(read_unwritten(&mut tx, job, lo, hi, left, word).await?);
                lo = hi;
            }
            rows.extend(unwritten);
            rows.sort_by_key(|row| row.seq);
            rows.truncate(limit_rows);
        }
        tx.rollback().await?;
        Ok(ResultPage { rows, settled_before: marks.settled })
    }

    /// Every item of a job, or of one of its stages, with its answer, by seq, streamed.
    pub fn answers(
        &self,
        job: JobId,
        stage: Option<Stage>,
    ) -> impl Stream<Item = Result<Answer, StoreError>> + Send + '_ {
        sqlx::query_as!(
            RawAnswer,
            r#"select i.seq, i.stage::text as "stage!", i.input::text as "input!", r.output::text as "output?"
               from items i left join results r on r.job_id = i.job_id and r.seq = i.seq
               where i.job_id = $1 and ($2::text is null or i.stage = $2::text::stage) order by i.seq"#,
            job.0,
            stage.map(Stage::as_str),
        )
        .fetch(&self.pool)
        .map(move |row| {
            let row = row?;
            let place = format!("{job}/{}", row.seq);
            let at = |table, column| At { table, column, row: &place };
            let stage = at("items", "stage").stage(&row.stage)?;
            let input = at("items", "input").json(&row.input)?;
            let output = row.output.as_deref().map(|text| at("results", "output").json(text)).transpose()?;
            Ok(Answer { seq: row.seq, draft: ItemDraft { stage, input }, output })
        })
    }
}

async fn read_written(
    tx: &mut sqlx::PgConnection,
    job: JobId,
    after: Seq,
    limit: u32,
    filter: Filter,
    again: Option<Again>,
) -> Result<Vec<ResultRow>, StoreError> {
    let (outcome, below) = match filter {
        Filter::All => (None, None),
        Filter::Outcome(kind) => (Some(kind.as_str()), None),
        Filter::Below(below) => (None, Some(below.as_f64() as f32)),
    };
    let rows = sqlx::query_as!(
        RawResult,
        r#"select r.seq, i.stage::text as "stage!", i.input::text as "input!", r.outcome::text as "outcome!",
                  r.output::text, r.error_code, r.error, r.attempts, r.prompt_tokens, r.prefix_hit_tokens,
                  r.output_tokens, r.forced_tokens, r.latency_ms, r.confidence, r.field_confidence::text,
                  r.finished_at
           from results r join items i on i.job_id = r.job_id and i.seq = r.seq
           where r.job_id = $1 and r.seq > $2 and ($4::text is null or r.outcome = $4::outcome)
             and ($5::int is null or r.seq > $5 or r.finished_at > $6)
             and ($7::real is null or r.confidence < $7)
           order by r.seq limit $3"#,
        job.0,
        after,
        i64::from(limit),
        outcome,
        again.map(|again| again.upto),
        again.map(|again| again.since),
        below,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(|row| to_result(job, row)).collect()
}

/// As above for failed items, over their own index.
async fn read_failed(
    tx: &mut sqlx::PgConnection,
    job: JobId,
    after: Seq,
    limit: u32,
    again: Option<Again>,
) -> Result<Vec<ResultRow>, StoreError> {
    let rows = sqlx::query_as!(
        RawResult,
        r#"select r.seq, i.stage::text as "stage!", i.input::text as "input!", r.outcome::text as "outcome!",
                  r.output::text, r.error_code, r.error, r.attempts, r.prompt_tokens, r.prefix_hit_tokens,
                  r.output_tokens, r.forced_tokens, r.latency_ms, r.confidence, r.field_confidence::text,
                  r.finished_at
           from results r join items i on i.job_id = r.job_id and i.seq = r.seq
           where r.job_id = $1 and r.seq > $2 and r.outcome = 'failed'
             and ($4::int is null or r.seq > $4 or r.finished_at > $5)
           order by r.seq limit $3"#,
        job.0,
        after,
        i64::from(limit),
        again.map(|again| again.upto),
        again.map(|again| again.since),
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(|row| to_result(job, row)).collect()
}

/// Items of `[lo, hi)` whose chunk was cancelled or expired before they had a result.
async fn read_unwritten(
    tx: &mut sqlx::PgConnection,
    job: JobId,
    lo: Seq,
    hi: Seq,
    limit: usize,
    state: Option<&str>,
) -> Result<Vec<ResultRow>, StoreError> {
    let rows = sqlx::query!(
        r#"select i.seq, i.stage::text as "stage!", i.input::text as "input!", c.state::text as "state!"
           from chunks c
           cross join lateral chunk_seqs(greatest(c.lo, $2), least(c.hi, $3), c.seqs) s (seq)
           join items i on i.job_id = $1 and i.seq = s.seq
           where c.job_id = $1 and c.state in ('cancelled', 'expired') and c.lo < $3 and c.hi > $2
             and ($5::text is null or c.state::text = $5) and s.seq >= $2 and s.seq < $3
             and not exists (select from results r where r.job_id = $1 and r.seq = s.seq)
           order by i.seq limit $4"#,
        job.0,
        lo,
        hi,
        i64::try_from(limit).unwrap_or(i64::MAX),
        state,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let place = format!("{job}/{}", row.seq);
            Ok(ResultRow {
                seq: row.seq,
                stage: At { table: "items", column: "stage", row: &place }.stage(&row.stage)?,
                input: At { table: "items", column: "input", row: &place }.json(&row.input)?,
                outcome: if row.state == "cancelled" { Outcome::Cancelled } else { Outcome::Expired },
                usage: Usage::default(),
                latency_ms: 0,
                confidence: None,
                attempts: 0,
                finished_at: None,
            })
        })
        .collect()
}

fn to_result(job: JobId, row: RawResult) -> Result<ResultRow, StoreError> {
    let place = format!("{}/{}", job.0, row.seq);
    let at = |table, column| At { table, column, row: &place };
    let outcome = match row.outcome.as_str() {
        "succeeded" => Outcome::Succeeded {
            output: at("results", "output").json(row.output.as_deref().unwrap_or_default())?,
        },
        _ => Outcome::Failed {
            code: at("results", "error_code").code(row.error_code.as_deref().unwrap_or_default())?,
            message: row.error.unwrap_or_default(),
        },
    };
    let count = |tokens: i32| u64::from(tokens.unsigned_abs());
    Ok(ResultRow {
        seq: row.seq,
        stage: at("items", "stage").stage(&row.stage)?,
        input: at("items", "input").json(&row.input)?,
        outcome,
        usage: Usage {
            prompt_tokens: count(row.prompt_tokens),
            prefix_hit_tokens: count(row.prefix_hit_tokens),
            output_tokens: count(row.output_tokens),
            forced_tokens: count(row.forced_tokens),
        },
        latency_ms: row.latency_ms.unsigned_abs(),
        confidence: confidence(row.confidence, row.field_confidence.as_deref(), &place)?,
        attempts: row.attempts,
        finished_at: Some(row.finished_at),
    })
}

fn confidence(
    least: Option<f32>,
    fields: Option<&str>,
    place: &String,
) -> Result<Option<ItemConfidence>, StoreError> {
    let Some(least) = least.and_then(|least| Confidence::new(f64::from(least))) else { return Ok(None) };
    let at = At { table: "results", column: "field_confidence", row: place };
    let fields = fields.map(|text| at.json(text)).transpose()?.unwrap_or_default();
    Ok(Some(ItemConfidence { least, fields }))
}
