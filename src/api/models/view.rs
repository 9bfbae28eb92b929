//! From what manager and database know of a model to the model as clients see it.

use std::collections::BTreeMap;

use crate::api::problem::ApiError;
use crate::api::state::State;
use crate::domain::code::Code;
use crate::models::manager::ModelInfo;
use crate::models::served::Served;
use crate::wire::model::{DeviceMemory, Engine, LastError, MemoryUse, Model, ModelList, Replica};

/// Processes speak every five seconds; one that missed three turns is not shown.
const REPLICA_MAX_AGE_MS: u64 = 15_000;

pub async fn read_model(state: &State, name: &str) -> Result<Model, ApiError> {
    state.models.get_status(name)?;
    let mut infos = read_infos(state, vec![name.into()]).await?;
    let info = infos.pop().expect("one name, one description");
    Ok(model_view(state, info, Queue::read(state).await.as_ref()))
}

/// All models, with what the database said of them.
pub async fn read_list(state: &State, queue: Option<&Queue>) -> Result<ModelList, ApiError> {
    let infos = read_infos(state, state.models.names()).await?;
    let data: Vec<Model> = infos.into_iter().map(|info| model_view(state, info, queue)).collect();
    let device = state.models.device();
    // a machine that tells nothing is taken to have no end
    let known = |bytes: u64| (bytes < u64::MAX).then_some(bytes);
    let memory = DeviceMemory {
        total_bytes: known(device.total_bytes),
        available_bytes: known(device.available_bytes),
        planned_bytes: device.committed_bytes,
        in_use_bytes: data
            .iter()
            .filter_map(|model| model.memory.as_ref())
            .map(|memory| memory.in_use_bytes)
            .sum(),
    };
    Ok(ModelList { object: "list".into(), data, memory: Some(memory) })
}

/// Plans are computed from file headers, hence not on a thread that serves requests.
async fn read_infos(state: &State, names: Vec<String>) -> Result<Vec<ModelInfo>, ApiError> {
    let models = state.models.clone();
    let read = move || names.iter().map(|name| models.info(name)).collect::<Result<Vec<_>, _>>();
    let infos = tokio::task::spawn_blocking(read).await;
    Ok(infos.map_err(|error| ApiError::hidden(Code::Internal, &error))??)
}

/// What the database knows of the models.
pub struct Queue {
    items: BTreeMap<String, i64>,
    jobs: BTreeMap<String, i64>,
    replicas: BTreeMap<String, Vec<Replica>>,
}

impl Queue {
    /// `None` while the database is away.
    pub async fn read(state: &State) -> Option<Self> {
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
