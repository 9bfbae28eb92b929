//! `/v1/batches`: files of chat completions that run as jobs.

use axum::Json;
use axum::extract::{Request, State as Shared};
use sha2::{Digest, Sha256};

use super::body::{self, Named, Params, page_of};
use super::caller::Caller;
use super::problem::ApiError;
use super::state::State;
use crate::domain::batch::{BatchState, FileRole};
use crate::domain::chat::Refusal;
use crate::domain::code::Code;
use crate::domain::id::{BatchId, FileId};
use crate::store::StoreError;
use crate::store::batch::{BatchRow, NewBatch};
use crate::wire::openai::batch::{
    Batch, BatchErrors, BatchList, BatchRequest, BatchUsage, BatchesQuery, ENDPOINT, ExpiresAfter,
    InputDetails, OutputDetails, RequestCounts, check_metadata, window_s,
};
use crate::wire::openai::file::EXPIRES_AFTER_S;
use crate::wire::openai::{DEFAULT_PAGE, MAX_PAGE};

/// Create a batch.
///
/// Its lines are checked in the background: one that cannot be run goes to the error file with its number, and
/// the others run; only a file without a single good line makes the batch `failed`. Lines may name different
/// models; each waits for its own.
#[utoipa::path(
    post, path = "/v1/batches", tag = "openai", request_body = BatchRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key with the same content answers the same batch; with other content, 409.")),
    responses((status = 200, description = "The batch is committed.", body = Batch)),
)]
pub async fn create_batch(
    Shared(state): Shared<State>,
    caller: Caller,
    request: Request,
) -> Result<Json<Batch>, ApiError> {
    if state.shutdown.is_requested() {
        return Err(ApiError::new(Code::ShuttingDown, "no new batches are taken"));
    }
    let (parts, body) = request.into_parts();
    let key = body::idempotency_key(&parts.headers)?;
    let limits = &state.settings.limits;
    let asked: BatchRequest = body::read_json(body, &parts.headers, limits, state.request_timeout()).await?;
    let digest = Sha256::digest(serde_json::to_vec(&asked).expect("a request came from JSON")).to_vec();
    let batch =
        NewBatch { idempotency: key.map(|key| (key, digest)), ..check(&state, &caller, asked).await? };
    let id = state.store.create_batch(&batch).await?;
    read(&state, &caller, id).await.map(Json)
}

async fn check(state: &State, caller: &Caller, asked: BatchRequest) -> Result<NewBatch, ApiError> {
    if asked.endpoint != ENDPOINT {
        let message = format!("endpoint '{}' is not supported, only '{ENDPOINT}'", asked.endpoint);
        return Err(Refusal::of("endpoint", message).into());
    }
    let window_s = window_s(&asked.completion_window)?;
    asked.metadata.as_ref().map(check_metadata).transpose()?;
    let output_ttl_s = asked.output_expires_after.map(ttl_s).transpose()?;
    let id = asked.input_file_id;
    let missing = || Refusal::of("input_file_id", format!("no file '{id}'"));
    let input_file: FileId = id.parse().map_err(|_| missing())?;
    let file = state.store.file(caller.tenant(), input_file).await?.ok_or_else(missing)?;
    if file.role != FileRole::Input {
        let message = format!("'{id}' is the output of a batch; a batch reads a file of purpose 'batch'");
        return Err(Refusal::of("input_file_id", message).into());
    }
    Ok(NewBatch {
        id: BatchId::new(),
        tenant: caller.tenant().into(),
        endpoint: asked.endpoint,
        input_file,
        completion_window: asked.completion_window,
        window_s,
        metadata: asked.metadata,
        output_ttl_s,
        idempotency: None,
        charge: caller.charge(),
        input_bytes: file.bytes,
    })
}

fn ttl_s(asked: ExpiresAfter) -> Result<i32, Refusal> {
    if asked.anchor != "created_at" {
        return Err(Refusal::of("output_expires_after.anchor", "the anchor is created_at"));
    }
    let seconds = Some(asked.seconds).filter(|seconds| EXPIRES_AFTER_S.contains(seconds));
    seconds.and_then(|seconds| i32::try_from(seconds).ok()).ok_or_else(|| {
        let (low, high) = (EXPIRES_AFTER_S.start(), EXPIRES_AFTER_S.end());
        Refusal::of("output_expires_after.seconds", format!("seconds is a number from {low} to {high}"))
    })
}

/// List batches, newest first.
#[utoipa::path(
    get, path = "/v1/batches", tag = "openai", params(BatchesQuery),
    responses((status = 200, description = "A page of batches.", body = BatchList)),
)]
pub async fn list_batches(
    Shared(state): Shared<State>,
    caller: Caller,
    Params(query): Params<BatchesQuery>,
) -> Result<Json<BatchList>, ApiError> {
    let limit = page_of(query.limit, DEFAULT_PAGE, MAX_PAGE)?;
    let before = query.after.as_deref().map(|id| id.parse().map_err(|_| no_batch(id))).transpose()?;
    // one more than asked for says whether there is a next page
    let mut rows = state.store.batches(caller.tenant(), before, limit + 1).await?;
    let has_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let data: Vec<Batch> = rows.into_iter().map(view).collect();
    let id_of = |batch: Option<&Batch>| batch.map(|batch| batch.id.clone());
    let (first_id, last_id) = (id_of(data.first()), id_of(data.last()));
    Ok(Json(BatchList { object: "list".into(), data, first_id, last_id, has_more }))
}

/// Look at a batch.
#[utoipa::path(
    get, path = "/v1/batches/{id}", tag = "openai", params(("id" = String, Path, description = "The batch.")),
    responses((status = 200, description = "The batch as it stands.", body = Batch)),
)]
pub async fn get_batch(
    Shared(state): Shared<State>,
    caller: Caller,
    Named(id): Named<BatchId>,
) -> Result<Json<Batch>, ApiError> {
    read(&state, &caller, id).await.map(Json)
}

/// Cancel a batch. What runs ends within a step; what has been answered stays readable.
#[utoipa::path(
    post, path = "/v1/batches/{id}/cancel", tag = "openai", params(("id" = String, Path, description = "The batch.")),
    responses((status = 200, description = "The batch, being cancelled.", body = Batch)),
)]
pub async fn cancel_batch(
    Shared(state): Shared<State>,
    caller: Caller,
    Named(id): Named<BatchId>,
) -> Result<Json<Batch>, ApiError> {
    // whose it is, before anything is done to it
    read(&state, &caller, id).await?;
    let refused = match state.store.cancel_batch(id).await {
        Ok(()) => None,
        Err(StoreError::InvalidState { .. } | StoreError::NotFound(_)) => Some(()),
        Err(error) => return Err(error.into()),
    };
    let batch = read(&state, &caller, id).await?;
    match refused {
        None => Ok(Json(batch)),
        Some(()) => {
            let detail = format!("a batch with status '{}' cannot be cancelled", batch.status.as_str());
            Err(ApiError::new(Code::InvalidState, detail))
        }
    }
}

async fn read(state: &State, caller: &Caller, id: BatchId) -> Result<Batch, ApiError> {
    let row = state.store.batch(caller.tenant(), id).await?;
    row.map(view).ok_or_else(|| no_batch(&id.to_string()))
}

fn no_batch(id: &str) -> ApiError {
    ApiError::new(Code::NotFound, format!("no batch '{id}'")).pointer("/id")
}

fn view(row: BatchRow) -> Batch {
    let counts = row.counts;
    let failed = counts.failed + counts.expired + counts.cancelled;
    let ended_as = |state: BatchState| row.ended_at.filter(|_| row.state == state).map(|at| at.timestamp());
    let model = match row.models.as_slice() {
        [one] => Some(one.clone()),
        _ => None,
    };
    let errors = (row.state == BatchState::Failed).then(|| BatchErrors {
        object: "list".into(),
        data: row.errors.iter().cloned().map(Into::into).collect(),
    });
    Batch {
        id: row.id.to_string(),
        object: "batch".into(),
        endpoint: row.endpoint,
        model,
        errors,
        input_file_id: row.input_file.to_string(),
        completion_window: row.completion_window,
        status: row.state,
        output_file_id: row.output_file.filter(|_| counts.succeeded > 0).map(|file| file.to_string()),
        error_file_id: row.error_file.filter(|_| failed > 0).map(|file| file.to_string()),
        created_at: row.created_at.timestamp(),
        in_progress_at: row.in_progress_at.map(|at| at.timestamp()),
        expires_at: Some(row.expires_at.timestamp()),
        finalizing_at: row.finalizing_at.map(|at| at.timestamp()),
        completed_at: ended_as(BatchState::Completed),
        failed_at: ended_as(BatchState::Failed),
        expired_at: ended_as(BatchState::Expired),
        cancelling_at: row.cancelling_at.map(|at| at.timestamp()),
        cancelled_at: ended_as(BatchState::Cancelled),
        request_counts: RequestCounts { total: counts.total, completed: counts.succeeded, failed },
        usage: (counts.total > 0).then(|| BatchUsage {
            input_tokens: row.usage.prompt_tokens,
            input_tokens_details: InputDetails { cached_tokens: row.usage.prefix_hit_tokens },
            output_tokens: row.usage.output_tokens,
            output_tokens_details: OutputDetails::default(),
            total_tokens: row.usage.prompt_tokens + row.usage.output_tokens,
        }),
        metadata: row.metadata,
    }
}
