//! A batch: a file of chat completions that runs as one job, under OpenAI's names for its states.

use serde::{Deserialize, Serialize};

use super::job::JobState;

/// Where a batch stands. `validating → in_progress → finalizing → completed` or `expired`; `failed` from the
/// first, `cancelling → cancelled` from the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchState {
    /// Its lines are being read.
    Validating,
    /// None of its lines can be run.
    Failed,
    InProgress,
    /// Every line has ended; the files are being measured.
    Finalizing,
    Completed,
    /// Lines were left when the window closed.
    Expired,
    Cancelling,
    Cancelled,
}

impl BatchState {
    pub const ALL: [BatchState; 8] = [
        BatchState::Validating,
        BatchState::Failed,
        BatchState::InProgress,
        BatchState::Finalizing,
        BatchState::Completed,
        BatchState::Expired,
        BatchState::Cancelling,
        BatchState::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            BatchState::Validating => "validating",
            BatchState::Failed => "failed",
            BatchState::InProgress => "in_progress",
            BatchState::Finalizing => "finalizing",
            BatchState::Completed => "completed",
            BatchState::Expired => "expired",
            BatchState::Cancelling => "cancelling",
            BatchState::Cancelled => "cancelled",
        }
    }

    /// Whether nothing of the batch will change any more by itself.
    pub fn is_final(self) -> bool {
        use BatchState::{Cancelled, Completed, Expired, Failed};
        matches!(self, Failed | Completed | Expired | Cancelled)
    }
}

/// What is kept of a batch; its state follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its lines were refused as a whole.
    pub is_refused: bool,
    pub cancel_asked: bool,
    /// Its files are measured, or it never became a job and will not.
    pub is_ended: bool,
    /// The job its lines became, with whether items of it expired.
    pub job: Option<(JobState, bool)>,
}

impl Standing {
    pub fn state(self) -> BatchState {
        match self.job {
            None if self.is_refused => BatchState::Failed,
            None if self.is_ended => BatchState::Cancelled,
            None if self.cancel_asked => BatchState::Cancelling,
            None => BatchState::Validating,
            Some((JobState::Queued | JobState::Running, _)) => BatchState::InProgress,
            Some((JobState::Failed, _)) => BatchState::Failed,
            Some((JobState::Cancelled, _)) if self.is_ended => BatchState::Cancelled,
            Some((JobState::Cancelled, _)) => BatchState::Cancelling,
            Some((JobState::Completed, _)) if !self.is_ended => BatchState::Finalizing,
            Some((JobState::Completed, true)) => BatchState::Expired,
            Some((JobState::Completed, false)) => BatchState::Completed,
        }
    }
}

/// Why a batch failed as a whole, by line where a line is to blame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchError {
    pub code: String,
    #[serde(default)]
    pub line: Option<u64>,
    pub message: String,
    #[serde(default)]
    pub param: Option<String>,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileRole {
    /// Requests that a client uploaded.
    Input,
    /// Of a batch: the lines that were answered.
    Output,
    /// Of a batch: the lines that were not.
    Errors,
}

impl FileRole {
    pub const ALL: [FileRole; 3] = [FileRole::Input, FileRole::Output, FileRole::Errors];

    pub fn as_str(self) -> &'static str {
        match self {
            FileRole::Input => "input",
            FileRole::Output => "output",
            FileRole::Errors => "errors",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_reached_from_what_is_kept() {
        let open = Standing { is_refused: false, cancel_asked: false, is_ended: false, job: None };
        let of = |job: JobState, expired: bool, is_ended: bool| {
            Standing { job: Some((job, expired)), is_ended, ..open }.state()
        };
        let seen = [
            open.state(),
            Standing { is_refused: true, is_ended: true, ..open }.state(),
            of(JobState::Queued, false, false),
            of(JobState::Completed, true, false),
            of(JobState::Completed, false, true),
            of(JobState::Completed, true, true),
            Standing { cancel_asked: true, ..open }.state(),
            Standing { cancel_asked: true, is_ended: true, ..open }.state(),
        ];
        assert_eq!(seen, BatchState::ALL);
        assert_eq!(of(JobState::Running, true, false), BatchState::InProgress);
        assert_eq!(of(JobState::Cancelled, false, false), BatchState::Cancelling);
        assert_eq!(of(JobState::Cancelled, false, true), BatchState::Cancelled);
    }
}
