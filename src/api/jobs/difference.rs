//! `GET /v1/jobs/{id}/difference`: what has changed since the job that this one was made from.

use axum::Json;
use axum::extract::State as Shared;

use crate::api::body::JobPath;
use crate::api::problem::ApiError;
use crate::api::state::State;
use crate::domain::code::Code;
use crate::extract::{difference, pipeline};
use crate::wire::difference::Difference;
use crate::worker;

/// Read what a job submitted with `since` found beside what the earlier job had found.
///
/// Tables by fingerprint, facts by the identifiers that they rest on. Once the job has ended; the earlier job need
/// not be there any more.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/difference", tag = "jobs",
    params(("id" = uuid::Uuid, Path, description = "The job.")),
    responses((status = 200, description = "The difference.", body = Difference)),
)]
pub async fn job_difference(
    Shared(state): Shared<State>,
    JobPath(id): JobPath,
) -> Result<Json<Difference>, ApiError> {
    let job = state.store.job(id).await?.ok_or_else(|| ApiError::job_not_found(id))?;
    let invalid = |detail: String| ApiError::new(Code::InvalidState, detail);
    if job.since.is_none() {
        return Err(invalid(format!(
            "job {id} was submitted without since: there is nothing to compare it with"
        )));
    }
    if !job.state.is_final() {
        let state = job.state.as_str();
        return Err(invalid(format!("job {id} is {state}; the difference is known once it has ended")));
    }
    let rerun = state.store.rerun(id).await?.ok_or_else(|| ApiError::job_not_found(id))?;
    let (spec, catalog) = state.store.job_spec(id).await?.ok_or_else(|| ApiError::job_not_found(id))?;
    let catalog = catalog.ok_or_else(|| invalid(format!("job {id} has no data model")))?;
    let finished = worker::finished_items(&state.store, id).await?;
    let model = pipeline::assemble(&spec, &catalog, &finished)?;
    let facts = difference::difference(&rerun.model, &model);
    Ok(Json(Difference::new(id.0, rerun.since.0, rerun.tables, facts)))
}
