//! Exit codes, as `adit --help` lists them.

use std::process::ExitCode;
use std::time::Duration;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    /// Wrong flags, files or settings.
    Usage = 2,
    /// The job ended, but not all of its items succeeded.
    NotAllSucceeded = 3,
    NotFound = 4,
    Unreachable = 5,
    TimedOut = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// An error that knows its exit code; any other error exits with [`Exit::Failed`].
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Stop {
    pub exit: Exit,
    pub message: String,
}

impl Stop {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

/// A time that a flag gave.
pub fn seconds(flag: &str, value: f64) -> Result<Duration, Stop> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| Stop::new(Exit::Usage, format!("{flag}: {value} is not a time in seconds")))
}
