//! Models as clients see them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::domain;
use crate::domain::model::{LoadStage, ModelState, ModelStatus};

/// `GET /api/models/status`: each model's state by its name.
pub type StatusMap = BTreeMap<String, ModelState>;

/// The OpenAI list shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelList {
    /// `list`.
    pub object: String,
    pub data: Vec<Model>,
    /// Of the device; ours, as most of each model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<DeviceMemory>,
}

/// A device's memory and what the models of this process take of it; a shared base counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceMemory {
    /// Absent, as `available_bytes`, where the machine does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Free, or freed on demand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
    /// Planned for all that is loaded or being loaded.
    pub planned_bytes: u64,
    /// Allocated by models, as the sum of their `memory.in_use_bytes`.
    pub in_use_bytes: u64,
}

/// A configured model. `id`, `object`, `created` and `owned_by` are OpenAI's; the rest is ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Model {
    pub id: String,
    /// `model`.
    pub object: String,
    /// Seconds since the epoch at which it became what `state` says.
    pub created: i64,
    pub owned_by: String,
    pub state: ModelState,
    /// Since when; absent while nobody has asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// Of a `ready` model: it is being unloaded, running items finish.
    #[serde(default)]
    pub draining: bool,
    /// Of a `ready` model: what its load took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_s: Option<f64>,
    /// Of a `loading` model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<LoadProgress>,
    /// Of a model in `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<LoadFailure>,
    /// The checkpoint, as configured.
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// Bytes it needs, or would need; absent if the checkpoint's headers cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<MemoryPlan>,
    /// Names of the other models that use the same base.
    #[serde(default)]
    pub shares_base_with: Vec<String>,
    /// Bytes it holds now; absent while it holds none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryUse>,
    /// Of a `ready` model: its engine, which models on the same base share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// Items of all jobs that wait for it; absent while the database is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items_waiting: Option<i64>,
    /// Jobs with items that wait for it; absent while the database is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs_waiting: Option<i64>,
    /// Every process that serves from this database, with what it last said of its copy of the model.
    #[serde(default)]
    pub replicas: Vec<Replica>,
    /// The newest failure in this process, also when the model has recovered since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

/// Bytes a model holds, as allocated. The sum over all models is what the process holds for them: a shared
/// base is charged to one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryUse {
    /// Weights, KV pool, tables and scratch; 0 where another model is charged for them.
    pub base_bytes: u64,
    pub adapter_bytes: u64,
    /// The sum of the above.
    pub in_use_bytes: u64,
    /// The other model that is charged for the shared base, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charged_to: Option<String>,
}

/// One process's copy of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Replica {
    /// One start of one process.
    pub worker: Uuid,
    pub state: ModelState,
    pub updated_at: DateTime<Utc>,
    /// Of a copy in `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<LoadFailure>,
}

impl Replica {
    pub fn new(worker: Uuid, status: ModelStatus, updated_at: DateTime<Utc>) -> Self {
        let state = status.state();
        let error = match status {
            ModelStatus::Error { failure, .. } => Some(failure.into()),
            _ => None,
        };
        Self { worker, state, updated_at, error }
    }
}

/// A failure that may be over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LastError {
    pub at: DateTime<Utc>,
    #[serde(flatten)]
    pub failure: LoadFailure,
}

/// What an engine may use to do less work, and what it has done since the base was loaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Engine {
    /// A head that several prompts share is computed once.
    pub prefix_cache: bool,
    /// Tokens that a schema forces are appended without sampling.
    pub jump_forward: bool,
    /// Tokens found in the prompt are read along and verified: `off`, `auto` (while it saves time) or `on`.
    pub prompt_lookup: String,
    /// An adapter that runs alone for long is merged into a copy of the base.
    pub merge_adapters: bool,
    /// Sequences that may run at once.
    pub max_sequences: u64,
    pub steps: u64,
    /// Tokens that went through the forward pass.
    pub rows: u64,
    /// Those of them that ran on a copy of the base with their adapter merged in.
    pub merged_rows: u64,
    pub prompt_tokens: u64,
    pub prefix_hit_tokens: u64,
    pub output_tokens: u64,
    pub forced_tokens: u64,
    /// Tokens that were read along, and those of them that came true.
    pub drafted_tokens: u64,
    pub accepted_tokens: u64,
    /// Seconds in steps; of those, in forward passes, with nothing but masks, and taking tokens in.
    pub step_s: f64,
    pub forward_s: f64,
    pub mask_s: f64,
    pub advance_s: f64,
    /// Sequences that had to leave for want of memory and are computed again.
    #[serde(default)]
    pub preemptions: u64,
    #[serde(default)]
    pub now: EngineNow,
}

/// An engine as of its last step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EngineNow {
    /// Sequences that run, and requests that wait for a place.
    pub running: u64,
    pub queued: u64,
    /// Tokens of the last step, and what it took.
    pub step_rows: u64,
    pub step_ms: f64,
    /// Blocks of the KV pool: held by sequences, held by the prefix cache alone, and all.
    pub kv_blocks_used: u64,
    pub kv_blocks_cached: u64,
    pub kv_blocks_total: u64,
}

/// How far a load has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LoadProgress {
    pub stage: LoadStage,
    pub bytes_done: u64,
    pub bytes_total: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_s: Option<f64>,
}

impl From<domain::model::LoadProgress> for LoadProgress {
    fn from(progress: domain::model::LoadProgress) -> Self {
        let domain::model::LoadProgress { stage, bytes_done, bytes_total, bytes_per_s, eta_s } = progress;
        Self { stage, bytes_done, bytes_total, bytes_per_s, eta_s }
    }
}

/// Why a load failed, and what happens next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LoadFailure {
    /// Stable word: `file_missing`, `file_corrupt`, `tensor_missing`, `shape_mismatch`, …
    pub code: String,
    pub message: String,
    /// What a person can do about it.
    pub hint: String,
    pub attempt: u32,
    /// Absent if trying again cannot help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_retry_at: Option<DateTime<Utc>>,
}

impl From<domain::model::LoadFailure> for LoadFailure {
    fn from(failure: domain::model::LoadFailure) -> Self {
        let domain::model::LoadFailure { code, message, hint, attempt, next_retry_at } = failure;
        Self { code, message, hint, attempt, next_retry_at }
    }
}

/// Bytes a model needs on its device, computed from file headers before anything is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryPlan {
    /// 0 when another loaded model shares them.
    pub weights_bytes: u64,
    pub adapter_bytes: u64,
    /// A copy of the base with an adapter merged in; 0 unless `engine.merge_adapters` is on.
    pub merged_bytes: u64,
    /// The KV pool; 0 when shared.
    pub kv_bytes: u64,
    /// Scratch of one step.
    pub activation_bytes: u64,
    /// Kept free.
    pub reserve_bytes: u64,
    /// The sum of the above.
    pub needed_bytes: u64,
    /// What the model may use.
    pub budget_bytes: u64,
    pub fits: bool,
    /// Token positions the KV pool holds.
    pub kv_tokens: u64,
    /// The loaded model whose base is used, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares_base_with: Option<String>,
}

impl From<domain::model::MemoryPlan> for MemoryPlan {
    fn from(plan: domain::model::MemoryPlan) -> Self {
        Self {
            needed_bytes: plan.needed_bytes(),
            fits: plan.fits(),
            weights_bytes: plan.weights_bytes,
            adapter_bytes: plan.adapter_bytes,
            merged_bytes: plan.merged_bytes,
            kv_bytes: plan.kv_bytes,
            activation_bytes: plan.activation_bytes,
            reserve_bytes: plan.reserve_bytes,
            budget_bytes: plan.budget_bytes,
            kv_tokens: plan.kv_tokens,
            shares_base_with: plan.shares_base_with,
        }
    }
}

impl Model {
    /// Fills in what `status` says; the rest is as `self` has it.
    pub fn with_status(mut self, status: ModelStatus) -> Self {
        self.state = status.state();
        match status {
            ModelStatus::NotLoaded => {}
            ModelStatus::Loading { progress, since } => {
                self.since = Some(since);
                self.progress = Some(progress.into());
            }
            ModelStatus::Ready { since, load_s, draining } => {
                self.since = Some(since);
                self.load_s = Some(load_s);
                self.draining = draining;
            }
            ModelStatus::Error { failure, since } => {
                self.since = Some(since);
                self.error = Some(failure.into());
            }
        }
        self.created = self.since.map_or(0, |since| since.timestamp());
        self
    }
}

/// `GET /v1/models/{name}/wait`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// Seconds to wait; default 30, at most 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0.0, maximum = 3600.0)]
    pub timeout: Option<f64>,
}
