//! Probes.

use axum::Json;
use axum::extract::State as Shared;

use super::problem::ApiError;
use super::state::State;
use crate::domain::code::Code;
use crate::wire::health::Health;

/// The process runs. Asks nothing of models or database.
#[utoipa::path(
    get, path = "/livez", tag = "service",
    responses((status = 200, description = "It runs.", body = Health)),
)]
pub async fn livez(Shared(state): Shared<State>) -> Json<Health> {
    Json(ok(&state))
}

/// Jobs can be accepted durably: the database answers. Models need not be ready, their jobs wait.
#[utoipa::path(
    get, path = "/readyz", tag = "service",
    responses((status = 200, description = "Jobs are accepted.", body = Health)),
)]
pub async fn readyz(Shared(state): Shared<State>) -> Result<Json<Health>, ApiError> {
    if state.shutdown.is_requested() {
        return Err(ApiError::new(Code::ShuttingDown, "no new jobs are taken"));
    }
    state.store.ping().await?;
    Ok(Json(ok(&state)))
}

fn ok(state: &State) -> Health {
    Health { status: "ok".into(), version: state.version.into() }
}
