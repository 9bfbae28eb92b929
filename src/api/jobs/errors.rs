//! `GET /v1/jobs/{id}/errors`: failed items by code.

use axum::Json;
use axum::extract::State as Shared;

use crate::api::body::JobPath;
use crate::api::problem::ApiError;
use crate::api::state::State;
use crate::store::failure::Failures;
use crate::wire::result::{ErrorGroup, ErrorGroups};

/// Read what failed in a job, by stage and code.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/errors", tag = "jobs", params(("id" = uuid::Uuid, Path, description = "The job.")),
    responses((status = 200, description = "The groups, most frequent first.", body = ErrorGroups)),
)]
pub async fn job_errors(
    Shared(state): Shared<State>,
    JobPath(id): JobPath,
) -> Result<Json<ErrorGroups>, ApiError> {
    let failures = state.store.failures(id).await?;
    if failures.is_empty() && state.store.job(id).await?.is_none() {
        return Err(ApiError::job_not_found(id));
    }
    Ok(Json(ErrorGroups { errors: failures.into_iter().map(group).collect() }))
}

fn group(failures: Failures) -> ErrorGroup {
    let Failures { stage, code, items, first, message, can_retry } = failures;
    ErrorGroup { code, about: code.about().into(), stage, items, first: i64::from(first), message, can_retry }
}
