//! A job: one submission, immutable in what it asks, counted in what became of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::confidence::Confidence;
use super::task::{Stage, Task};

/// What was asked, as stored with the job. The catalog of a schema job is stored beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    pub task: Task,
    /// Serves every stage of the job; `None` means each stage's own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The answer's JSON Schema, of a custom or chat job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// What to extract, in words, of a custom job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    #[serde(default)]
    pub generation: Generation,
    /// Facts and results of a lower confidence are marked for review; `None`: the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review_below: Option<Confidence>,
}

impl JobSpec {
    pub fn review_below(&self) -> Confidence {
        self.review_below.unwrap_or(Confidence::DEFAULT_REVIEW_BELOW)
    }

    pub fn model_of(&self, stage: Stage) -> &str {
        self.model.as_deref().unwrap_or_else(|| stage.default_model())
    }

    /// Models of all stages, in order, without repeats.
    pub fn models(&self) -> Vec<&str> {
        let mut models: Vec<&str> = Vec::new();
        for stage in self.task.stages() {
            let model = self.model_of(*stage);
            if !models.contains(&model) {
                models.push(model);
            }
        }
        models
    }
}

/// How tokens are chosen. The default is greedy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// Upper bound of the answer's tokens; `None` lets the task decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// A free string is closed when it has this many bytes; `None` lets the task decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_string_bytes: Option<u32>,
    /// 0 or absent: greedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// Priority class. Within a class, jobs share fairly; a higher class goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    Bulk = 0,
    #[default]
    Normal = 1,
    /// Strict precedence, therefore small: see the option that caps its items.
    Interactive = 2,
}

impl Class {
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Bulk => "bulk",
            Class::Normal => "normal",
            Class::Interactive => "interactive",
        }
    }
}

/// Share of a job among the jobs of its class, in percent of an ordinary one's: of two that wait for the same
/// model, one of 200 is served twice as fast as one of 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(i16);

impl Weight {
    pub const RANGE: std::ops::RangeInclusive<i16> = 1..=1000;

    /// `None` outside [`Weight::RANGE`].
    pub fn new(percent: i16) -> Option<Self> {
        Self::RANGE.contains(&percent).then_some(Self(percent))
    }

    pub fn percent(self) -> i16 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(100)
    }
}

/// Where a job stands. `queued → running → completed`, or `cancelled` or `failed` from either of the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Nothing has been claimed yet.
    Queued,
    /// At least one item was claimed; items remain.
    Running,
    /// Every item of every stage has ended.
    Completed,
    /// A client ended it; items that had not ended are `cancelled`.
    Cancelled,
    /// The next stage could not be made from the last one's results.
    Failed,
}

impl JobState {
    pub const ALL: [JobState; 5] =
        [JobState::Queued, JobState::Running, JobState::Completed, JobState::Cancelled, JobState::Failed];

    pub fn is_final(self) -> bool {
        !matches!(self, JobState::Queued | JobState::Running)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Completed => "completed",
            JobState::Cancelled => "cancelled",
            JobState::Failed => "failed",
        }
    }
}

/// Items by what became of them. `total` is the sum of the others, at every commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub total: i64,
    pub waiting: i64,
    pub running: i64,
    pub succeeded: i64,
    pub failed: i64,
    pub cancelled: i64,
    pub expired: i64,
}

impl Counts {
    pub fn ended(&self) -> i64 {
        self.succeeded + self.failed + self.cancelled + self.expired
    }

    pub fn adds_up(&self) -> bool {
        self.total == self.ended() + self.waiting + self.running
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.total += other.total;
        self.waiting += other.waiting;
        self.running += other.running;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.expired += other.expired;
    }
}
