//! `GET /v1/jobs/{id}/results`: a page, or lines.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use tokio::sync::OwnedSemaphorePermit;

use super::list::page_size;
use crate::api::body::{JobPath, Params, wants_lines};
use crate::api::problem::ApiError;
use crate::api::state::State;
use crate::domain::id::{JobId, Seq};
use crate::domain::item::{Outcome, OutcomeKind};
use crate::store::StoreError;
use crate::store::result::{ResultPage as Rows, ResultRow};
use crate::wire::result::{ItemError, ItemResult, ResultPage, ResultsQuery};
use crate::wire::submit::NDJSON;

/// Results of a page when the client does not say, and of one read of a stream.
const DEFAULT_PAGE: u32 = 100;

/// Read results, as a page or, with `Accept: application/x-ndjson`, as lines.
///
/// Readable while the job runs. Pages go by `seq`. A stream with `follow=true` waits for items that have not
/// ended, in order.
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
    let rows = read_rows(&state, id, query.after, limit, query.outcome).await?.rows;
    let next = rows.last().filter(|_| rows.len() == limit as usize).map(|row| i64::from(row.seq));
    let results = rows.into_iter().map(result_view).collect();
    Ok(Json(ResultPage { results, next, complete: job.state.is_final() }).into_response())
}

async fn read_rows(
    state: &State,
    id: JobId,
    after: Option<i64>,
    limit: u32,
    outcome: Option<OutcomeKind>,
) -> Result<Rows, StoreError> {
    let after = after.map(|after| Seq::try_from(after).unwrap_or(if after < 0 { -1 } else { Seq::MAX }));
    state.store.results(id, after, limit, outcome).await
}

fn result_view(row: ResultRow) -> ItemResult {
    let outcome = row.outcome.kind();
    let (output, error) = match row.outcome {
        Outcome::Succeeded { output } => (Some(output), None),
        Outcome::Failed { code, message } => (None, Some(ItemError { code, message })),
        Outcome::Cancelled | Outcome::Expired => (None, None),
    };
    ItemResult {
        seq: i64::from(row.seq),
        stage: row.stage,
        outcome,
        output,
        error,
        usage: row.usage.into(),
        latency_ms: i64::from(row.latency_ms),
    }
}

async fn stream_results(state: State, id: JobId, query: ResultsQuery) -> Result<Response, ApiError> {
    let permit = state.open_stream()?;
    if state.store.job(id).await?.is_none() {
        return Err(ApiError::job_not_found(id));
    }
    let tail = Tail {
        id,
        after: query.after,
        left: query.limit.map(u64::from),
        outcome: query.outcome,
        follow: query.follow.unwrap_or(false),
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
    after: Option<i64>,
    /// Lines that may still be sent.
    left: Option<u64>,
    outcome: Option<OutcomeKind>,
    follow: bool,
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
                self.after = Some(i64::from(row.seq));
                self.left = self.left.map(|left| left - 1);
                let mut line = serde_json::to_vec(&result_view(row)).expect("a result came from JSON");
                line.push(b'\n');
                return Ok(Some(line.into()));
            }
            if self.ended || !self.read_more().await? {
                return Ok(None);
            }
        }
    }

    /// Reads the next rows, waiting for them if the stream follows. Returns whether to look at them.
    async fn read_more(&mut self) -> Result<bool, StoreError> {
        loop {
            // before the rows: what a job that had ended lacks will never come
            let job = if self.follow { self.state.store.job(self.id).await? } else { None };
            let over = !self.follow || job.is_none_or(|job| job.state.is_final());
            let Rows { rows, settled_before } =
                read_rows(&self.state, self.id, self.after, DEFAULT_PAGE, self.outcome).await?;
            let full = rows.len() == DEFAULT_PAGE as usize;
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
