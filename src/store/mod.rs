//! All SQL. One Postgres holds all truth; a row becomes a domain value here and nowhere else.
//!
//! A tenant sees what is its own: jobs and all below them through [`tenant`], which is asked before anything else is;
//! files, batches and keys by a condition of their own statements.
//!
//! Never knows HTTP, models or tokens. What holds at every commit, whatever the caller does:
//!
//! - every item belongs to exactly one chunk of its job, and `succeeded + failed + cancelled + expired +
//!   waiting + running = total`, the sums taken over chunks, never by counting rows;
//! - a write under a claim names its fence and changes nothing once another claim has replaced it;
//! - items and results are inserted, never updated.
//!
//! Locks are taken in one order, so that no two statements wait for each other in a circle: first the job,
//! then its chunks by id. Statements that touch chunks first (claim, renew) skip what is locked.
//! Leases and due times are compared by Postgres's clock alone; the processes' clocks may differ.

pub mod advance;
pub mod batch;
pub mod cancel;
pub mod carry;
pub mod claim;
pub mod embedded;
mod error;
pub mod experience;
pub mod failure;
pub mod file;
pub mod finish;
pub mod history;
pub mod introspect;
pub mod job;
pub mod key;
pub mod outlook;
pub mod quota;
pub mod replica;
pub mod rerun;
pub mod rescue;
pub mod result;
pub mod retry;
pub mod submit;
pub mod tenant;
mod words;

use std::str::FromStr;
use std::time::Duration;

use sqlx::Connection;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions};

pub use error::StoreError;

use crate::config::settings::Database;

static MIGRATIONS: Migrator = sqlx::migrate!();

fn newest_migration() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// A database that takes longer to say one word is away.
const PING_WITHIN: Duration = Duration::from_secs(2);

/// Cloneable handle on the database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    chunk_items: i32,
}

/// Where the database is: the user's own, or the private cluster's socket.
#[derive(Clone, Debug)]
pub struct Address(PgConnectOptions);

impl Address {
    /// From a `postgres://` address.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        Ok(Self(PgConnectOptions::from_str(url)?))
    }

    pub(crate) fn of_socket(folder: &std::path::Path, user: &str, database: &str) -> Self {
        Self(PgConnectOptions::new_without_pgpass().socket(folder).username(user).database(database))
    }

    /// The same server, another database.
    pub fn with_database(&self, database: &str) -> Self {
        Self(self.0.clone().database(database))
    }
}

impl Store {
    /// A pool over `address`. Waits for the first connection, at most the settings' acquire timeout.
    /// `chunk_items` is the size of the chunks that submissions are cut into.
    pub async fn connect(
        address: &Address,
        settings: &Database,
        chunk_items: u32,
    ) -> Result<Self, StoreError> {
        // a process that is frozen within a transaction must not hold its locks for longer than its leases
        let idle = ("idle_in_transaction_session_timeout", settings.idle_in_transaction_ms.to_string());
        let pool = PgPoolOptions::new()
            .max_connections(settings.max_connections)
            .acquire_timeout(Duration::from_millis(settings.acquire_timeout_ms))
            .connect_with(address.0.clone().application_name("adit").options([idle]))
            .await?;
        Ok(Self { pool, chunk_items: i32::try_from(chunk_items.max(1)).unwrap_or(i32::MAX) })
    }

    /// One connection, tried once and closed again. A pool would go on trying and then only say that time is up.
    pub async fn probe(address: &Address, within: Duration) -> Result<(), StoreError> {
        let connecting = PgConnection::connect_with(&address.0);
        let connection = tokio::time::timeout(within, connecting).await.map_err(|_| {
            StoreError::Unavailable(std::io::Error::from(std::io::ErrorKind::TimedOut).into())
        })??;
        let _ = connection.close().await;
        Ok(())
    }

    /// Brings the schema up to this binary's. Safe to call from several processes at once.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        MIGRATIONS.run(&self.pool).await.map_err(|error| match error {
            MigrateError::Execute(cause) => StoreError::from(cause),
            MigrateError::VersionMissing(version) if version > newest_migration() => {
                StoreError::SchemaNewer { version }
            }
            other => StoreError::Migrate(other),
        })
    }

    /// Migrations of this binary that the database does not have yet. Changes nothing.
    pub async fn pending_migrations(&self) -> Result<usize, StoreError> {
        // the table is sqlx's own, and not there before the first migration
        let is_there: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
            .fetch_one(&self.pool)
            .await?;
        let run: Vec<i64> = if is_there {
            sqlx::query_scalar("select version from _sqlx_migrations where success")
                .fetch_all(&self.pool)
                .await?
        } else {
            Vec::new()
        };
        if let Some(version) = run.iter().copied().filter(|version| *version > newest_migration()).max() {
            return Err(StoreError::SchemaNewer { version });
        }
        Ok(MIGRATIONS.iter().filter(|migration| !run.contains(&migration.version)).count())
    }

    /// Whether a statement passes now. For readiness probes, which do not wait long for an answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let asked = sqlx::query!("select 1 as one").fetch_one(&self.pool);
        match tokio::time::timeout(PING_WITHIN, asked).await {
            Ok(answer) => answer.map(drop).map_err(StoreError::from),
            Err(_) => Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }

    /// Notifications on `channels`, over a connection of their own.
    pub async fn listen(&self, channels: &[&str]) -> Result<PgListener, StoreError> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen_all(channels.iter().copied()).await?;
        Ok(listener)
    }

    /// For tests and benches that look at the tables themselves.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Payload: the model that has new work. Shortens a worker's sleep; polling is the guarantee.
pub const CHANNEL_WORK: &str = "adit_work";
/// Payload: a job that was cancelled.
pub const CHANNEL_CANCEL: &str = "adit_cancel";
