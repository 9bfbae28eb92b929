//! A job as clients see it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::domain;
use crate::domain::code::Code;
use crate::domain::job::{Class, JobState};
use crate::domain::model::ModelState;
use crate::domain::task::{Stage, Task};

/// A job: what was asked, and what has become of it so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    pub id: Uuid,
    pub task: Task,
    pub state: JobState,
    pub class: Class,
    /// Share among the jobs of its class, in percent of an ordinary one's.
    pub weight: i16,
    /// Models of all stages, in order, without repeats.
    pub models: Vec<String>,
    pub created_at: DateTime<Utc>,
    /// When the first item was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// When failed items were last sent back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried_at: Option<DateTime<Utc>>,
    /// The job that this one was made from. It may be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Uuid>,
    /// Of the items that succeeded: those whose answers were carried over from that job. They took no tokens here.
    #[serde(default, skip_serializing_if = "is_no_item")]
    pub carried: i64,
    /// Items of all stages made so far; a later stage's items appear when the stage before has ended.
    pub counts: Counts,
    pub stages: Vec<StageProgress>,
    pub usage: Usage,
    /// Absent until items have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<Throughput>,
    /// When it will end. Absent when it has, and while the database cannot be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<Eta>,
    /// Why items wait, one entry per model that items wait for; empty when none waits.
    #[serde(default)]
    pub waiting_for: Vec<WaitingFor>,
    /// Why a `failed` job failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,
    /// What of a lenient source could not be read, the first 1,000 parts. Not in lists of jobs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// How many parts were left out, listed or not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out_total: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_no_item(n: &i64) -> bool {
    *n == 0
}

/// A part of a source that could not be read, by its place in the document. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeftOut {
    pub line: u64,
    pub column: u64,
    pub message: String,
}

impl From<domain::omission::Omission> for LeftOut {
    fn from(omission: domain::omission::Omission) -> Self {
        let domain::omission::Omission { line, column, message } = omission;
        Self { line, column, message }
    }
}

/// Items by what became of them. `total` is the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    pub total: i64,
    pub waiting: i64,
    pub running: i64,
    pub succeeded: i64,
    pub failed: i64,
    pub cancelled: i64,
    pub expired: i64,
}

impl From<domain::job::Counts> for Counts {
    fn from(counts: domain::job::Counts) -> Self {
        let domain::job::Counts { total, waiting, running, succeeded, failed, cancelled, expired } = counts;
        Self { total, waiting, running, succeeded, failed, cancelled, expired }
    }
}

impl Counts {
    pub fn ended(&self) -> i64 {
        self.succeeded + self.failed + self.cancelled + self.expired
    }

    pub fn adds_up(&self) -> bool {
        self.total == self.ended() + self.waiting + self.running
    }
}

/// One stage of a job by the model that serves it; a batch's lines may name several. Its counts are zero until the
/// stage before has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StageProgress {
    pub stage: Stage,
    pub model: String,
    /// Whether the stage's items exist already.
    pub begun: bool,
    pub counts: Counts,
    /// Of the items that succeeded: those carried over from an earlier job.
    #[serde(default, skip_serializing_if = "is_no_item")]
    pub carried: i64,
}

/// Token counts, summed over ended items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Tokens of the rendered prompts.
    pub prompt_tokens: u64,
    /// Of those, tokens whose KV was found in the prefix cache.
    pub prefix_hit_tokens: u64,
    /// Tokens of the answers.
    pub output_tokens: u64,
    /// Of those, tokens that the schema left no choice about and that were not sampled.
    pub forced_tokens: u64,
}

impl From<domain::usage::Usage> for Usage {
    fn from(usage: domain::usage::Usage) -> Self {
        let domain::usage::Usage { prompt_tokens, prefix_hit_tokens, output_tokens, forced_tokens } = usage;
        Self { prompt_tokens, prefix_hit_tokens, output_tokens, forced_tokens }
    }
}

/// When a job will end, from now: by what its items take, how fast its engines are, what shares them under the
/// queue's fairness, stages to come, and what is left of a load. Jobs that come later are foreseen only so far as
/// they disturbed earlier forecasts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Eta {
    /// Until the last item of the last stage; absent, as its bounds, where nobody can tell: `unknown` says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// One in ten ends sooner, by how far off earlier forecasts were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_s: Option<f64>,
    /// One in ten ends later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high_s: Option<f64>,
    /// What it rests on, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub basis: Vec<String>,
    /// Why no end can be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// Rates: of the last minute while it runs, of the whole run once it has
/// ended. Zero when nothing ended within the last minute. A pause of more than 20 s does not count: the
/// measurement begins anew where work went on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Throughput {
    pub items_per_s: f64,
    pub prompt_tokens_per_s: f64,
    pub output_tokens_per_s: f64,
    /// As `eta.seconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_s: Option<f64>,
}

/// How fast a job went, from its beginning to its end or to now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ThroughputHistory {
    /// Absent, as `until`, while nothing has been claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// Length of each interval.
    pub interval_s: f64,
    /// One after the other, without gaps. The items of a chunk are spread evenly over the time it took.
    pub intervals: Vec<Rates>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rates {
    pub items_per_s: f64,
    pub prompt_tokens_per_s: f64,
    pub output_tokens_per_s: f64,
}

/// `GET /v1/jobs/{id}/throughput`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ThroughputQuery {
    /// Into how many intervals the time is cut; default 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub intervals: Option<u32>,
}

/// Why items of one model wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WaitingFor {
    pub model: String,
    /// Items of this job that wait for it.
    pub items: i64,
    /// Items of all jobs that wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_items: Option<i64>,
    pub model_state: ModelState,
    pub reason: WaitReason,
    /// The same in words.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaitReason {
    /// The model serves; items before these are worked on.
    Queued,
    /// The model is being loaded.
    ModelLoading,
    /// The model's load failed.
    ModelError,
    /// Nobody has loaded the model.
    ModelNotLoaded,
    /// The model is being unloaded.
    ModelDraining,
    /// No model of this name is configured any more.
    ModelUnknown,
}

/// Why a job failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobError {
    pub code: Code,
    pub message: String,
}

/// A page of jobs, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobPage {
    pub jobs: Vec<Job>,
    /// Give as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Uuid>,
}

/// Filters and page of `GET /v1/jobs`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobsQuery {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<JobState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// Jobs with a stage that this model serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Uuid>,
    /// Jobs of one page; at most `limits.max_page`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1)]
    pub limit: Option<u32>,
}

/// `POST /v1/jobs/{id}/retry`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RetryQuery {
    /// Only items that failed with this code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
}

/// What a retry did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Retried {
    /// Failed items that wait again.
    pub items: i64,
    pub job: Job,
}
