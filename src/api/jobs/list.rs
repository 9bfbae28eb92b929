//! `GET /v1/jobs` and `GET /v1/jobs/{id}`.

use axum::Json;
use axum::extract::State as Shared;

use super::view::{self, Facts};
use crate::api::body::{JobPath, Params};
use crate::api::caller::Caller;
use crate::api::problem::ApiError;
use crate::api::state::State;
use crate::domain::code::Code;
use crate::domain::id::JobId;
use crate::store::job::JobFilter;
use crate::wire::job::{Job, JobPage, JobsQuery};

/// Jobs of a page when the client does not say.
const DEFAULT_PAGE: u32 = 50;

/// List jobs, newest first.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "jobs", params(JobsQuery),
    responses((status = 200, description = "A page of jobs.", body = JobPage)),
)]
pub async fn list_jobs(
    Shared(state): Shared<State>,
    caller: Caller,
    Params(query): Params<JobsQuery>,
) -> Result<Json<JobPage>, ApiError> {
    Ok(Json(read_page(&state, &caller, &query).await?))
}

/// Whether a query's page can be read.
pub fn check_page(state: &State, query: &JobsQuery) -> Result<u32, ApiError> {
    page_size(query.limit, DEFAULT_PAGE, state.settings.limits.max_page)
}

/// The page of the caller's jobs that a query asks for.
pub async fn read_page(state: &State, caller: &Caller, query: &JobsQuery) -> Result<JobPage, ApiError> {
    let limit = check_page(state, query)?;
    let filter = JobFilter {
        tenant: Some(caller.tenant().into()),
        states: query.state.into_iter().collect(),
        task: query.task,
        model: query.model.clone(),
    };
    // one more than asked for says whether there is a next page
    let mut rows = state.store.jobs(&filter, query.after.map(JobId), limit + 1).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|row| row.id.0);
    let facts = Facts::gather(state, &rows).await;
    Ok(JobPage { jobs: rows.into_iter().map(|row| view::job(row, &facts)).collect(), next })
}

/// Look at a job: state, counts by stage, usage, rates, when it will end, and why items wait.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", tag = "jobs", params(("id" = uuid::Uuid, Path, description = "The job.")),
    responses((status = 200, description = "The job as it stands.", body = Job)),
)]
pub async fn get_job(Shared(state): Shared<State>, JobPath(id): JobPath) -> Result<Json<Job>, ApiError> {
    Ok(Json(read_job(&state, id).await?))
}

/// The view of a job that must exist.
pub async fn read_job(state: &State, id: JobId) -> Result<Job, ApiError> {
    let row = state.store.job(id).await?.ok_or_else(|| ApiError::job_not_found(id))?;
    let facts = Facts::gather(state, std::slice::from_ref(&row)).await;
    Ok(view::job(row, &facts))
}

/// A page's size within its limit.
pub fn page_size(asked: Option<u32>, default: u32, max: u32) -> Result<u32, ApiError> {
    match asked {
        None => Ok(default.min(max)),
        Some(limit) if (1..=max).contains(&limit) => Ok(limit),
        Some(limit) => Err(ApiError::new(
            Code::InvalidRequest,
            format!("limit {limit} is not from 1 to limits.max_page ({max})"),
        )),
    }
}
