//! `POST /v1/jobs/{id}/cancel`, `POST /v1/jobs/{id}/retry`, `DELETE /v1/jobs/{id}`.

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;

use super::list::read_job;
use crate::api::body::{JobPath, Params};
use crate::api::problem::ApiError;
use crate::api::state::State;
use crate::wire::job::{Job, Retried, RetryQuery};

/// Cancel a job. Waiting items end at once, running ones within a step; results so far are kept.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/cancel", tag = "jobs", params(("id" = uuid::Uuid, Path, description = "The job.")),
    responses((status = 200, description = "The job, cancelled.", body = Job)),
)]
pub async fn cancel_job(Shared(state): Shared<State>, JobPath(id): JobPath) -> Result<Json<Job>, ApiError> {
    state.store.cancel(id).await?;
    Ok(Json(read_job(&state, id).await?))
}

/// Run the failed items of a job again, all or those that failed with one code.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/retry", tag = "jobs",
    params(("id" = uuid::Uuid, Path, description = "The job."), RetryQuery),
    responses((status = 200, description = "How many items wait again.", body = Retried)),
)]
pub async fn retry_job(
    Shared(state): Shared<State>,
    JobPath(id): JobPath,
    Params(query): Params<RetryQuery>,
) -> Result<Json<Retried>, ApiError> {
    let items = state.store.retry_failed(id, query.code).await?;
    Ok(Json(Retried { items, job: read_job(&state, id).await? }))
}

/// Delete a job that has ended, with its results.
#[utoipa::path(
    delete, path = "/v1/jobs/{id}", tag = "jobs", params(("id" = uuid::Uuid, Path, description = "The job.")),
    responses((status = 204, description = "It is gone.")),
)]
pub async fn delete_job(Shared(state): Shared<State>, JobPath(id): JobPath) -> Result<StatusCode, ApiError> {
    state.store.delete(id).await?;
    Ok(StatusCode::NO_CONTENT)
}
