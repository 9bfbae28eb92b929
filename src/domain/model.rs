//! A model's state: can it serve? Four public words, with what exists in each.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The word everyone sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelState {
    NotLoaded,
    Loading,
    Ready,
    Error,
}

impl ModelState {
    pub fn as_str(self) -> &'static str {
        match self {
            ModelState::NotLoaded => "not_loaded",
            ModelState::Loading => "loading",
            ModelState::Ready => "ready",
            ModelState::Error => "error",
        }
    }
}

/// What a load is doing now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadStage {
    /// Waiting for another load of the same base, or for its turn.
    Waiting,
    Download,
    Read,
    Upload,
    Adapter,
    WarmUp,
    SelfTest,
}

/// How far a load has come. Bytes are of files, real ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadProgress {
    pub stage: LoadStage,
    pub bytes_done: u64,
    pub bytes_total: u64,
    /// Bytes per second since the stage began; absent until two readings exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_s: Option<f64>,
}

/// Why a load failed, and what happens next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadFailure {
    /// Stable word: `file_missing`, `file_corrupt`, `tensor_missing`, `shape_mismatch`, `out_of_memory`, …
    pub code: String,
    /// The cause in full: file, tensor, expected and found.
    pub message: String,
    /// What a person can do about it.
    pub hint: String,
    /// Loads tried since the last success or unload, this one included.
    pub attempt: u32,
    /// When it will be tried again; absent if trying again cannot help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_retry_at: Option<DateTime<Utc>>,
}

/// A model's state with what belongs to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ModelStatus {
    NotLoaded,
    Loading {
        #[serde(flatten)]
        progress: LoadProgress,
        since: DateTime<Utc>,
    },
    Ready {
        since: DateTime<Utc>,
        load_s: f64,
        /// An unload was asked for; running items finish, nothing new is claimed.
        draining: bool,
    },
    Error {
        #[serde(flatten)]
        failure: LoadFailure,
        since: DateTime<Utc>,
    },
}

impl ModelStatus {
    pub fn state(&self) -> ModelState {
        match self {
            ModelStatus::NotLoaded => ModelState::NotLoaded,
            ModelStatus::Loading { .. } => ModelState::Loading,
            ModelStatus::Ready { .. } => ModelState::Ready,
            ModelStatus::Error { .. } => ModelState::Error,
        }
    }

    /// Whether a model in this state may go over to `next`: what a load, an unload, a failure and a retry do.
    pub fn may_become(&self, next: &ModelStatus) -> bool {
        use ModelStatus::{Error, Loading, NotLoaded, Ready};
        match self {
            NotLoaded => matches!(next, NotLoaded | Loading { .. }),
            Loading { .. } => !matches!(next, Ready { draining: true, .. }),
            Ready { draining: false, .. } => matches!(next, Ready { draining: true, .. } | Error { .. }),
            Ready { draining: true, .. } => matches!(next, NotLoaded | Loading { .. }),
            Error { .. } => matches!(next, NotLoaded | Loading { .. }),
        }
    }

    /// Whether a worker may claim items for it.
    pub fn admits_work(&self) -> bool {
        matches!(self, ModelStatus::Ready { draining: false, .. })
    }
}

/// Bytes a model needs on its device, computed from file headers before anything is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPlan {
    /// The base's weights as they will lie in memory; 0 when another loaded model shares them.
    pub weights_bytes: u64,
    pub adapter_bytes: u64,
    /// A copy of the base with an adapter merged in, where the settings ask for one.
    #[serde(default)]
    pub merged_bytes: u64,
    /// The KV pool; 0 when shared.
    pub kv_bytes: u64,
    /// Scratch of one step.
    pub activation_bytes: u64,
    /// Kept free.
    pub reserve_bytes: u64,
    /// What the model may use: the device's memory times its utilisation, less what is in use.
    pub budget_bytes: u64,
    /// Token positions the KV pool holds.
    pub kv_tokens: u64,
    /// Name of the base whose weights are shared, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares_base_with: Option<String>,
}

impl MemoryPlan {
    pub fn needed_bytes(&self) -> u64 {
        self.weights_bytes
            + self.adapter_bytes
            + self.merged_bytes
            + self.kv_bytes
            + self.activation_bytes
            + self.reserve_bytes
    }

    pub fn fits(&self) -> bool {
        self.needed_bytes() <= self.budget_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_states_is_judged() {
        let since = DateTime::<Utc>::UNIX_EPOCH;
        let progress = LoadProgress {
            stage: LoadStage::Read,
            bytes_done: 0,
            bytes_total: 0,
            bytes_per_s: None,
            eta_s: None,
        };
        let failure = LoadFailure {
            code: "model_io".into(),
            message: String::new(),
            hint: String::new(),
            attempt: 1,
            next_retry_at: None,
        };
        let states = [
            ModelStatus::NotLoaded,
            ModelStatus::Loading { progress, since },
            ModelStatus::Ready { since, load_s: 1.0, draining: false },
            ModelStatus::Ready { since, load_s: 1.0, draining: true },
            ModelStatus::Error { failure, since },
        ];
        // rows from, columns to: not_loaded, loading, ready, draining, error
        let legal = ["11000", "11101", "00011", "11000", "11000"];
        for (from, row) in states.iter().zip(legal) {
            for (to, expected) in states.iter().zip(row.chars()) {
                assert_eq!(from.may_become(to), expected == '1', "{from:?} to {to:?}");
            }
        }
    }
}
