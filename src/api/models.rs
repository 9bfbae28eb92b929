//! `/v1/models` and `/api/models/status`: what can serve, and loading by hand.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;

use super::body::Params;
use super::problem::ApiError;
use super::state::State;
use crate::domain::code::Code;
use crate::domain::model::ModelState;
use crate::models::error::ModelError;
use crate::models::manager::ModelInfo;
use crate::models::served::Served;
use crate::wire::model::{Engine, LastError, MemoryUse, Model, ModelList, Replica, StatusMap, WaitQuery};

const DEFAULT_WAIT_S: f64 = 30.0;
const MAX_WAIT_S: f64 = 3600.0;
/// Processes speak every five seconds; one that missed three turns is not shown.
const REPLICA_MAX_AGE_MS: u64 = 15_000;

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
    let infos = read_infos(&state, state.models.names()).await?;
    let queue = Queue::read(&state).await;
    let data = infos.into_iter().map(|info| model_view(&state, info, queue.as_ref())).collect();
    Ok(Json(ModelList { object: "list".into(), data }))
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

async fn read_model(state: &State, name: &str) -> Result<Model, ApiError> {
    state.models.get_status(name)?;
    let mut infos = read_infos(state, vec![name.into()]).await?;
    let info = infos.pop().expect("one name, one description");
    Ok(model_view(state, info, Queue::read(state).await.as_ref()))
}

/// Plans are computed from file headers, hence not on a thread that serves requests.
async fn read_infos(state: &State, names: Vec<String>) -> Result<Vec<ModelInfo>, ApiError> {
    let models = state.models.clone();
    let read = move || names.iter().map(|name| models.info(name)).collect::<Result<Vec<_>, _>>();
    let infos = tokio::task::spawn_blocking(read).await;
    Ok(infos.map_err(|error| ApiError::hidden(Code::Internal, &error))??)
}

/// What the database knows of the models.
struct Queue {
    items: BTreeMap<String, i64>,
    jobs: BTreeMap<String, i64>,
    replicas: BTreeMap<String, Vec<Replica>>,
}

impl Queue {
    /// `None` while the database is away.
    async fn read(state: &State) -> Option<Self> {
        let store = &state.store;
        let items = store.waiting_by_model().await.ok()?;
        let jobs = store.jobs_waiting_by_model().await.ok()?;
        let mut replicas: BTreeMap<String, Vec<Replica>> = BTreeMap::new();
        for replica in store.all_replicas(REPLICA_MAX_AGE_MS).await.ok()? {
            let view = Replica::new(replica.worker.0, replica.status, replica.updated_at);
            replicas.entry(replica.model).or_default().push(view);
        }
        Some(Self { items, jobs, replicas })
    }
}

fn model_view(state: &State, info: ModelInfo, queue: Option<&Queue>) -> Model {
    let engine = state.models.get_model(&info.name).ok().map(|served| engine_view(&served));
    let name = &info.name;
    let count = |counts: &BTreeMap<String, i64>| counts.get(name).copied().unwrap_or(0);
    Model {
        id: name.clone(),
        object: "model".into(),
        created: 0,
        owned_by: "adit".into(),
        state: info.status.state(),
        since: None,
        draining: false,
        load_s: None,
        progress: None,
        error: None,
        items_waiting: queue.map(|queue| count(&queue.items)),
        jobs_waiting: queue.map(|queue| count(&queue.jobs)),
        replicas: queue.and_then(|queue| queue.replicas.get(name).cloned()).unwrap_or_default(),
        shares_base_with: info.shares_base_with,
        path: info.path,
        adapter: info.adapter,
        plan: info.plan.map(Into::into),
        engine,
        memory: info.memory.map(|memory| MemoryUse {
            base_bytes: memory.base_bytes,
            adapter_bytes: memory.adapter_bytes,
            in_use_bytes: memory.base_bytes + memory.adapter_bytes,
            charged_to: memory.charged_to,
        }),
        last_error: info.last_error.map(|(at, failure)| LastError { at, failure: failure.into() }),
    }
    .with_status(info.status)
}

fn engine_view(served: &Served) -> Engine {
    let stats = served.engine().stats();
    Engine {
        prefix_cache: stats.levers.prefix_cache,
        jump_forward: stats.levers.jump_forward,
        prompt_lookup: stats.levers.prompt_lookup.as_str().into(),
        merge_adapters: stats.levers.merge_adapters,
        max_sequences: stats.levers.max_sequences as u64,
        steps: stats.steps,
        rows: stats.rows,
        merged_rows: stats.merged_rows,
        prompt_tokens: stats.prompt_tokens,
        prefix_hit_tokens: stats.prefix_hit_tokens,
        output_tokens: stats.output_tokens,
        forced_tokens: stats.forced_tokens,
        drafted_tokens: stats.drafted_tokens,
        accepted_tokens: stats.accepted_tokens,
        step_s: stats.step_ms_sum / 1e3,
        forward_s: stats.forward_ms_sum / 1e3,
        mask_s: stats.mask_ms_sum / 1e3,
        advance_s: stats.advance_ms_sum / 1e3,
    }
}
