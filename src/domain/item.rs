//! One prompt of a job: what goes in, and the one way in which it ends.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::code::Code;
use super::confidence::ItemConfidence;
use super::id::Seq;
use super::task::Stage;
use super::usage::Usage;

/// An item before it has a place in a job. `input` is what `extract` needs to make the prompt; the store
/// keeps it as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemDraft {
    pub stage: Stage,
    pub input: Value,
}

/// How an item ended. An item ends once.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Succeeded { output: Value },
    Failed { code: Code, message: String },
    Cancelled,
    Expired,
}

/// The public word for an outcome, as stored and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    Succeeded,
    Failed,
    Cancelled,
    Expired,
}

impl OutcomeKind {
    pub fn as_str(self) -> &'static str {
        match self {
            OutcomeKind::Succeeded => "succeeded",
            OutcomeKind::Failed => "failed",
            OutcomeKind::Cancelled => "cancelled",
            OutcomeKind::Expired => "expired",
        }
    }
}

impl Outcome {
    pub fn kind(&self) -> OutcomeKind {
        match self {
            Outcome::Succeeded { .. } => OutcomeKind::Succeeded,
            Outcome::Failed { .. } => OutcomeKind::Failed,
            Outcome::Cancelled => OutcomeKind::Cancelled,
            Outcome::Expired => OutcomeKind::Expired,
        }
    }
}

/// A result on its way to the store.
#[derive(Clone, Debug)]
pub struct NewResult {
    pub seq: Seq,
    pub outcome: Outcome,
    pub usage: Usage,
    /// Wall time from hand-over to the engine to the last token.
    pub latency_ms: u32,
    /// Of a succeeded item whose grammar left the model a choice.
    pub confidence: Option<ItemConfidence>,
}
