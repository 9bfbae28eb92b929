//! What can go wrong between adit and Postgres, by what a caller can do about it.

use crate::domain::code::Code;
use crate::domain::id::JobId;
use crate::domain::job::JobState;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Postgres cannot be reached, or is starting or stopping. Nothing is known to be written; trying again may help.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    #[error("no job {0}")]
    NotFound(JobId),
    /// The key was used before, with another request.
    #[error("the idempotency key belongs to job {job}, which was asked for differently")]
    IdempotencyConflict { job: JobId },
    #[error("job {job} is {}; {wanted}", state.as_str())]
    InvalidState { job: JobId, state: JobState, wanted: &'static str },
    #[error("job {0} has no items")]
    Empty(JobId),
    #[error("a job has at most {limit} items")]
    TooMany { limit: i64 },
    /// It may be asked for again once some of what waits has ended.
    #[error(
        "{queued} tokens of this key wait; {asked} more would exceed its max_queued_tokens ({max}), as estimated from bytes"
    )]
    QuotaExceeded { queued: i64, asked: i64, max: i64 },
    #[error(
        "{asked} tokens, as estimated from bytes, exceed the key's max_queued_tokens ({max}) by themselves"
    )]
    TooManyTokens { asked: i64, max: i64 },
    /// Rows and code disagree; a fault in adit or a hand in the tables.
    #[error("{table}.{column} of row {row} cannot be read: {cause}")]
    Corrupt { table: &'static str, column: &'static str, row: String, cause: String },
    /// Migrated by a later adit, whose tables this one does not know.
    #[error(
        "the database's schema is newer than this adit: it has migration {version}; run the adit that made it, or a later one"
    )]
    SchemaNewer { version: i64 },
    #[error("the schema could not be migrated: {0}")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// Postgres refused a statement. A fault in adit.
    #[error("the database refused a statement: {0}")]
    Refused(#[source] sqlx::Error),
}

impl StoreError {
    pub fn code(&self) -> Code {
        match self {
            StoreError::Unavailable(_) => Code::DatabaseUnavailable,
            StoreError::NotFound(_) => Code::NotFound,
            StoreError::IdempotencyConflict { .. } => Code::IdempotencyConflict,
            StoreError::InvalidState { .. } => Code::InvalidState,
            StoreError::Empty(_) => Code::InvalidRequest,
            StoreError::TooMany { .. } | StoreError::TooManyTokens { .. } => Code::TooLarge,
            StoreError::QuotaExceeded { .. } => Code::QuotaExceeded,
            StoreError::Corrupt { .. }
            | StoreError::SchemaNewer { .. }
            | StoreError::Migrate(_)
            | StoreError::Refused(_) => Code::Internal,
        }
    }

    /// Whether the same call may succeed later without a change.
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Unavailable(_))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if is_unavailable(&error) { StoreError::Unavailable(error) } else { StoreError::Refused(error) }
    }
}

/// Connection faults, and the answers of a server that is starting, stopping or short of something; also
/// serialisation failures and deadlocks, after which the same transaction may pass.
fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed
        | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(answer) => answer.code().is_some_and(|code| {
            // 08 connection, 53 resources, 57P0x shutdown and recovery, 58 system, 40001/40P01 try again
            ["08", "53", "57P", "58"].iter().any(|class| code.starts_with(class))
                || code == "40001"
                || code == "40P01"
                || code == "25006" // a standby that is not promoted yet
                || code == "3D000" // the private cluster's database while it is being made
        }),
        _ => false,
    }
}
