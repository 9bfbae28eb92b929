//! `GET /v1/jobs/{id}/results`: a page, or lines.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use futures::stream;
use tokio::sync::OwnedSemaphorePermit;

use super::list::page_size;
use crate::api::body::{JobPath, Params, wants_lines};
use crate::api::problem::ApiError;
use crate::api::state::State;
use crate::api::validate::probability;
use crate::domain::code::Code;
use crate::domain::id::{JobId, Seq};
use crate::domain::item::Outcome;
use crate::store::StoreError;
use crate::store::result::{Again, Filter, ResultPage as Rows, ResultRow};
use crate::wire::result::{ItemError, ItemResult, ResultPage, ResultsQuery};
use crate::wire::submit::NDJSON;

/// Results of a page when the client does not say, and of one read of a stream.
const DEFAULT_PAGE: u32 = 100;

/// Read results, as a page or, with `Accept: application/x-ndjson`, as lines.
///
/// Readable while the job runs. Pages go by `seq`. A stream with `follow=true` waits for items that have not
/// ended, in order, and ends with the job. Failed items that are sent back (`POST …/retry`) while it follows come
/// again once they have ended, more than once if a further retry comes meanwhile: of several lines with one
/// `seq`, the last one counts. A stream that begins or resumes with `after` later than the retry does not look back.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/results", tag = "jobs",
    params(("id" = uuid::Uuid, Path, description = "The job."), ResultsQuery),
    responses((status = 200, description = "A page; or one result per line.", content(
        (ResultPage = "application/json"), (ItemResult = "application/x-ndjson"),
    ))),
)]
pub async fn get_results(
    Shared(state): Shared<State>,
    JobPath(id): JobPath,
    Params(query): Params<ResultsQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if wants_lines(&headers) {
        return stream_results(state, id, query).await;
    }
    let limit = page_size(query.limit, DEFAULT_PAGE, state.settings.limits.max_page)?;
    // looked at first: results of a job that had ended before cannot be missing from the page
    let job = state.store.job(id).await?.ok_or_else(|| ApiError::job_not_found(id))?;
    let filter = filter_of(&query)?;
    let rows = state.store.results(id, query.after.map(seq_of), limit, filter).await?.rows;
    let next = rows.last().filter(|_| rows.len() == limit as usize).map(|row| i64::from(row.seq));
    let with_input = query.input.unwrap_or(false);
    let results = rows.into_iter().map(|row| result_view(row, with_input)).collect();
    Ok(Json(ResultPage { results, next, complete: job.state.is_final() }).into_response())
}

/// What a client may name as a place is any number.
fn seq_of(after: i64) -> Seq {
    Seq::try_from(after).unwrap_or(if after < 0 { -1 } else { Seq::MAX })
}

fn filter_of(query: &ResultsQuery) -> Result<Filter, ApiError> {
    let Some(below) = query.below else { return Ok(query.outcome.into()) };
    if query.outcome.is_some() {
        let detail = "give below or outcome: only succeeded items have a confidence";
        return Err(ApiError::new(Code::InvalidRequest, detail));
    }
    probability("below", below).map(Filter::Below)
}

fn result_view(row: ResultRow, with_input: bool) -> ItemResult {
    let outcome = row.outcome.kind();
    let (output, error) = match row.outcome {
        Outcome::Succeeded { output } => (Some(output), None),
        Outcome::Failed { code, message } => (None, Some(ItemError { code, message })),
        Outcome::Cancelled | Outcome::Expired => (None, None),
    };
    let fields = row.confidence.as_ref().map(|known| &known.fields).filter(|fields| !fields.is_empty());
    ItemResult {
        confidence: row.confidence.as_ref().map(|known| known.least.as_f64()),
        field_confidence: fields
            .map(|fields| fields.iter().map(|(pointer, known)| (pointer.clone(), known.as_f64())).collect()),
        seq: i64::from(row.seq),
        stage: row.stage,
        outcome,
        input: with_input.then_some(row.input),
        output,
        error,
        usage: row.usage.into(),
        latency_ms: i64::from(row.latency_ms),
        attempts: row.attempts,
        finished_at: row.finished_at,
    }
}

async fn stream_results(state: State, id: JobId, query: ResultsQuery) -> Result<Response, ApiError> {
    let permit = state.open_stream()?;
    let job = state.store.job(id).await?.ok_or_else(|| ApiError::job_not_found(id))?;
    let tail = Tail {
        id,
        begin: query.after.map(seq_of),
        after: query.after.map(seq_of),
        left: query.limit.map(u64::from),
        filter: filter_of(&query)?,
        follow: query.follow.unwrap_or(false),
        with_input: query.input.unwrap_or(false),
        retried_at: job.retried_at,
        again: None,
        passed: None,
        ended: false,
        rows: VecDeque::new(),
        state,
        _permit: permit,
    };
    let lines = stream::unfold(tail, |mut tail| async move {
        let line = tail.next().await.transpose()?;
        Some((line, tail))
    });
    Ok(([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response())
}

/// A stream of results on its way: one page of rows in memory at most.
struct Tail {
    state: State,
    id: JobId,
    /// Where the client wanted to begin.
    begin: Option<Seq>,
    after: Option<Seq>,
    /// Lines that may still be sent.
    left: Option<u64>,
    filter: Filter,
    follow: bool,
    with_input: bool,
    /// The last retry of the job that this stream knows of.
    retried_at: Option<DateTime<Utc>>,
    /// What was sent before that retry is passed over, unless it has ended anew.
    again: Option<Again>,
    /// Up to here the last turn was complete, whatever of it was sent.
    passed: Option<Seq>,
    /// What is read next is the last there is.
    ended: bool,
    rows: VecDeque<ResultRow>,
    _permit: OwnedSemaphorePermit,
}

impl Tail {
    /// The next line; `None` at the end. An error breaks the response off, which a client notices: the body
    /// lacks its last chunk.
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            if self.left == Some(0) {
                return Ok(None);
            }
            if let Some(row) = self.rows.pop_front() {
                self.after = Some(row.seq);
                self.left = self.left.map(|left| left - 1);
                let mut line =
                    serde_json::to_vec(&result_view(row, self.with_input)).expect("a result came from JSON");
                line.push(b'\n');
                return Ok(Some(line.into()));
            }
            if self.ended || !self.read_more().await? {
                return Ok(None);
            }
        }
    }

    /// After a retry the stream goes once more through what it has sent, for what ends anew.
    fn turn_back(&mut self, retried_at: DateTime<Utc>) {
        if self.retried_at.is_some_and(|known| known >= retried_at) {
            return;
        }
        self.retried_at = Some(retried_at);
        let Some(upto) = self.after.max(self.passed) else { return };
        // a turn that was not complete goes on under its own, earlier time
        let unfinished = self.again.filter(|again| upto < again.upto);
        self.again = Some(unfinished.unwrap_or(Again { upto, since: retried_at }));
        self.after = self.begin;
    }

    /// Reads the next rows, waiting for them if the stream follows. Returns whether to look at them.
    async fn read_more(&mut self) -> Result<bool, StoreError> {
        loop {
            // before the rows: what a job that had ended lacks will never come
            let job = if self.follow { self.state.store.job(self.id).await? } else { None };
            if let Some(retried_at) = job.as_ref().and_then(|job| job.retried_at) {
                self.turn_back(retried_at);
            }
            let over = !self.follow || job.is_none_or(|job| job.state.is_final());
            let Self { id, after, filter, again, .. } = *self;
            let read = self.state.store.results_again(id, after, DEFAULT_PAGE, filter, again);
            let Rows { rows, settled_before } = read.await?;
            let full = rows.len() == DEFAULT_PAGE as usize;
            self.passed = again.map(|again| again.upto).filter(|upto| !full && settled_before > *upto);
            self.rows = rows.into_iter().filter(|row| over || row.seq < settled_before).collect();
            if over {
                self.ended = !full;
                return Ok(!self.rows.is_empty());
            }
            if !self.rows.is_empty() {
                return Ok(true);
            }
            let wait = Duration::from_millis(self.state.settings.http.stream_poll_ms);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.state.shutdown.requested() => return Ok(false),
            }
        }
    }
}
