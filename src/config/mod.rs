//! Settings: `adit.toml`, flags, environment and `.env`, in one struct with checked values.
//!
//! Precedence, highest first: flags, environment, `.env`, `adit.toml`, defaults. A value that cannot be
//! used is refused with the key's path. The only place that reads the environment.

pub mod load;
pub mod settings;

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: {cause}", file.display())]
    File { file: PathBuf, cause: String },
    #[error("{key}: {cause}")]
    Value { key: String, cause: String },
}

/// Folders in which the shell looks for programs.
pub fn search_path() -> Vec<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect()
}
