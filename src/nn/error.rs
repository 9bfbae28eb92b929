//! What can be wrong with a checkpoint, an adapter or a batch.

use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} does not exist", file.display())]
    FileMissing { file: PathBuf },
    #[error("{} is damaged: {cause}", file.display())]
    FileCorrupt { file: PathBuf, cause: String },
    #[error("{} has no tensor {tensor}", file.display())]
    TensorMissing { file: PathBuf, tensor: String },
    #[error("tensor {tensor} of {} has shape {found:?}, expected {expected:?}", file.display())]
    ShapeMismatch { file: PathBuf, tensor: String, expected: Vec<usize>, found: Vec<usize> },
    /// A sound file that asks for something this engine does not compute.
    #[error("{}: {what} is not supported", file.display())]
    Unsupported { file: PathBuf, what: String },
    /// An adapter that wants to change what the base does not have.
    #[error("adapter {}: target {target}: {cause}", file.display())]
    AdapterTarget { file: PathBuf, target: String, cause: String },
    #[error("no memory for {bytes} bytes of {what}")]
    OutOfMemory { what: &'static str, bytes: u64 },
    #[error("reading {}: {source}", file.display())]
    Io { file: PathBuf, source: std::io::Error },
    /// The card, or what drives it.
    #[error("{what}: {cause}")]
    Device { what: String, cause: String },
    /// Load options that contradict each other or the checkpoint.
    #[error("option {option}: {cause}")]
    Option { option: &'static str, cause: String },
    /// A batch that breaks the contract of [`super::batch`]: a bug of the caller.
    #[error("batch: {0}")]
    Batch(String),
}

impl Error {
    /// Stable word for statuses, logs and clients.
    pub fn code(&self) -> &'static str {
        match self {
            Self::FileMissing { .. } => "model_file_missing",
            Self::FileCorrupt { .. } => "model_file_corrupt",
            Self::TensorMissing { .. } => "tensor_missing",
            Self::ShapeMismatch { .. } => "shape_mismatch",
            Self::Unsupported { .. } => "model_unsupported",
            Self::AdapterTarget { .. } => "adapter_target",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::Io { .. } => "model_io",
            Self::Device { .. } => "device_failed",
            Self::Option { .. } => "model_option",
            Self::Batch(_) => "bad_batch",
        }
    }

    /// Names the file; a missing file is its own variant.
    pub(crate) fn io(file: &Path, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::NotFound {
            Self::FileMissing { file: file.into() }
        } else {
            Self::Io { file: file.into(), source }
        }
    }

    pub(crate) fn corrupt(file: &Path, cause: impl std::fmt::Display) -> Self {
        Self::FileCorrupt { file: file.into(), cause: cause.to_string() }
    }

    pub(crate) fn unsupported(file: &Path, what: impl Into<String>) -> Self {
        Self::Unsupported { file: file.into(), what: what.into() }
    }
}
