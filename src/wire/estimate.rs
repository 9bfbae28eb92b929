//! What a job would take, told before it is submitted.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::model::ModelState;
use crate::domain::task::Stage;
use crate::wire::job::Eta;

/// `POST /v1/jobs/estimate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Estimate {
    pub items: u64,
    /// Of all stages; absent where a stage's is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// From now to the last result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The same with its bounds and what it rests on: the forecast that the job would have right after its submission.
    pub eta: Eta,
    /// In order.
    pub stages: Vec<StageEstimate>,
    /// Parts of the source that a lenient submission would leave out.
    pub left_out: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StageEstimate {
    pub stage: Stage,
    pub model: String,
    pub model_state: ModelState,
    pub items: u64,
    /// Whether items and prompts are those that would be submitted. A later stage's depend on the answers of the
    /// one before; here every table is taken for a concept of its own.
    pub exact: bool,
    /// By the model's own tokenizer; absent while it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
    /// Those of them that come from the prefix cache, if the head of the prompts is computed once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_hit_tokens: Option<u64>,
    /// Items that would fail because their prompt leaves no room for an answer.
    #[serde(default)]
    pub too_long: u64,
    /// As answers of this model and stage had of late; absent if there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Items of other jobs that wait for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items_ahead: Option<u64>,
    /// From the end of the stage before, or from now, to its own; a load of the model and what shares its engine
    /// are in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Why something is absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}
