//! `/v1/models` and `/api/models/status`: what can serve, and loading by hand.

pub mod view;

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;

use self::view::{Queue, read_list, read_model};
use super::body::Params;
use super::problem::ApiError;
use super::state::State;
use crate::domain::code::Code;
use crate::domain::model::ModelState;
use crate::models::error::ModelError;
use crate::wire::model::{Model, ModelList, StatusMap, WaitQuery};

const DEFAULT_WAIT_S: f64 = 30.0;
const MAX_WAIT_S: f64 = 3600.0;

/// Every model's state, as one flat object.
#[utoipa::path(
    get, path = "/api/models/status", tag = "models",
    responses((status = 200, description = "State by name.", body = BTreeMap<String, ModelState>,
               example = json!({"concept": "ready", "relationship": "loading", "attribute": "not_loaded"}))),
)]
pub async fn model_states(Shared(state): Shared<State>) -> Json<StatusMap> {
    let statuses = state.models.get_all_statuses();
    Json(statuses.into_iter().map(|(name, status)| (name, status.state())).collect())
}

/// List models, in the order of the configuration.
#[utoipa::path(
    get, path = "/v1/models", tag = "models",
    responses((status = 200, description = "All configured models.", body = ModelList)),
)]
pub async fn list_models(Shared(state): Shared<State>) -> Result<Json<ModelList>, ApiError> {
    let queue = Queue::read(&state).await;
    Ok(Json(read_list(&state, queue.as_ref()).await?))
}

/// Look at a model: state, progress, last error, memory planned and in use, what waits for it, replicas.
#[utoipa::path(
    get, path = "/v1/models/{name}", tag = "models", params(("name" = String, Path, description = "The model.")),
    responses((status = 200, description = "The model as it stands.", body = Model)),
)]
pub async fn get_model(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
) -> Result<Json<Model>, ApiError> {
    Ok(Json(read_model(&state, &name).await?))
}

/// Load a model, or do nothing if it is loading or ready. Answers at once; see `/wait`.
#[utoipa::path(
    post, path = "/v1/models/{name}/load", tag = "models",
    params(("name" = String, Path, description = "The model.")),
    responses(
        (status = 202, description = "It is being loaded, or is ready.", body = Model),
        (status = 507, description = "It does not fit; the plan is attached, nothing has changed.",
         body = crate::wire::problem::Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn load_model(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<Model>), ApiError> {
    state.models.load(&name).await?;
    Ok((StatusCode::ACCEPTED, Json(read_model(&state, &name).await?)))
}

/// Unload a model. Running items finish first; its jobs wait until it is loaded again.
#[utoipa::path(
    post, path = "/v1/models/{name}/unload", tag = "models",
    params(("name" = String, Path, description = "The model.")),
    responses((status = 202, description = "It is being unloaded, or is not loaded.", body = Model)),
)]
pub async fn unload_model(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<Model>), ApiError> {
    state.models.get_status(&name)?;
    // an unload drains for longer than a request may take: the client watches the state
    let (models, unloaded) = (state.models.clone(), name.clone());
    state.shutdown.spawn(async move {
        if let Err(error) = models.unload(&unloaded).await {
            tracing::warn!(model = unloaded, %error, "the model was not unloaded");
        }
    });
    tokio::task::yield_now().await;
    Ok((StatusCode::ACCEPTED, Json(read_model(&state, &name).await?)))
}

/// Wait until a model is ready.
#[utoipa::path(
    get, path = "/v1/models/{name}/wait", tag = "models",
    params(("name" = String, Path, description = "The model."), WaitQuery),
    responses(
        (status = 200, description = "It is ready.", body = Model),
        (status = 408, description = "It was not ready in time.", body = crate::wire::problem::Problem, content_type = "application/problem+json"),
        (status = 502, description = "Its load failed; answered at once.", body = crate::wire::problem::Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn wait_for_model(
    Shared(state): Shared<State>,
    Path(name): Path<String>,
    Params(query): Params<WaitQuery>,
) -> Result<Json<Model>, ApiError> {
    let seconds = query.timeout.unwrap_or(DEFAULT_WAIT_S);
    if !(0.0..=MAX_WAIT_S).contains(&seconds) {
        let detail = format!("timeout must be from 0 to {MAX_WAIT_S} seconds");
        return Err(ApiError::new(Code::InvalidRequest, detail));
    }
    tokio::select! {
        waited = state.models.wait_for_model(&name, Duration::from_secs_f64(seconds)) => { waited?; }
        () = state.shutdown.requested() => return Err(ModelError::Stopping.into()),
    }
    Ok(Json(read_model(&state, &name).await?))
}
