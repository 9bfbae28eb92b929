//! Batches between HTTP and the queue: a file's lines become a job ([`validate`]), an ended job's results
//! become two files ([`contents`]), which are measured once they are whole.
//!
//! Everything that is due is found in the database, so that it does not matter which process took a request,
//! or how it ended. Invariants:
//! - Every line of a file that became a job is one item; a line that cannot be run is an item that
//!   has failed from the start.
//! - Every item that has ended is in exactly one of the two files.

pub mod contents;
mod lines;
mod render;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use crate::config::settings::Settings;
use crate::domain::batch::{BatchError, FileRole};
use crate::domain::code::Code;
use crate::shutdown::Shutdown;
use crate::store::batch::{ToClose, ToValidate};
use crate::store::{Store, StoreError};
use contents::Contents;

/// How often files past their time are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What the two tasks share.
#[derive(Clone)]
struct Clerk {
    store: Store,
    /// Names of the configured models.
    models: Arc<[String]>,
    settings: Arc<Settings>,
    shutdown: Shutdown,
}

/// Checks new batches and ends finished ones until the process stops.
pub fn start(store: &Store, models: Vec<String>, settings: &Settings, shutdown: &Shutdown) {
    let clerk = Clerk {
        store: store.clone(),
        models: models.into(),
        settings: Arc::new(settings.clone()),
        shutdown: shutdown.clone(),
    };
    // checking a large file takes long, and ends of batches must not wait for it
    shutdown.spawn(clerk.clone().validate_until_stopped());
    shutdown.spawn(clerk.close_until_stopped());
}

impl Clerk {
    async fn validate_until_stopped(self) {
        while self.rest().await {
            if let Err(error) = self.validate_due().await {
                tracing::debug!(%error, "batches could not be checked");
            }
        }
    }

    async fn close_until_stopped(self) {
        let mut swept = std::time::Instant::now();
        while self.rest().await {
            if let Err(error) = self.close_due().await {
                tracing::debug!(%error, "batches could not be ended");
            }
            if swept.elapsed() >= SWEEP_EVERY {
                swept = std::time::Instant::now();
                if let Err(error) = self.store.expire_files().await {
                    tracing::debug!(%error, "files past their time could not be removed");
                }
            }
        }
    }

    /// Sleeps until the next look; false: the process stops.
    async fn rest(&self) -> bool {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(self.settings.queue.poll_ms)) => true,
            () = self.shutdown.requested() => false,
        }
    }

    async fn validate_due(&self) -> Result<(), StoreError> {
        for due in self.store.batches_to_validate().await? {
            if due.cancel_asked {
                continue;
            }
            let (clerk, batch) = (self.clone(), due.clone());
            // a task of its own: foreign schemas are compiled there, and not even a panic may end the checking
            let checked = self.shutdown.spawn(async move { validate::validate(&clerk, &batch).await });
            let checked = tokio::select! {
                checked = checked => checked,
                // what was written of it is rolled back; it is checked anew after the start
                () = self.shutdown.requested_now() => return Ok(()),
            };
            match checked {
                Ok(Ok(())) => {}
                Ok(Err(error)) if error.is_transient() => return Err(error),
                Ok(Err(error)) => self.give_up(&due, &error.to_string()).await?,
                Err(panic) => self.give_up(&due, &panic.to_string()).await?,
            }
        }
        Ok(())
    }

    /// A fault of ours: the batch fails rather than fail for ever.
    async fn give_up(&self, due: &ToValidate, cause: &str) -> Result<(), StoreError> {
        tracing::error!(batch = %due.id, cause, "a batch could not be checked");
        let message = Code::Internal.about().to_string();
        let error = BatchError { code: Code::Internal.as_str().into(), line: None, message, param: None };
        self.store.fail_batch(due.id, &[error]).await
    }

    async fn close_due(&self) -> Result<(), StoreError> {
        for due in self.store.batches_to_validate().await?.into_iter().filter(|due| due.cancel_asked) {
            self.store.drop_batch(due.id).await?;
        }
        for due in self.store.batches_to_close().await? {
            let output = self.measure(due, FileRole::Output).await?;
            let errors = self.measure(due, FileRole::Errors).await?;
            self.store.close_batch(due, output, errors).await?;
            tracing::info!(batch = %due.id, output_bytes = output, error_bytes = errors, "batch ended");
        }
        Ok(())
    }

    async fn measure(&self, due: ToClose, role: FileRole) -> Result<i64, StoreError> {
        let mut contents = Contents::new(self.store.clone(), due.id, role);
        let mut bytes = 0;
        while let Some(line) = contents.next().await? {
            bytes += line.len() as i64;
        }
        Ok(bytes)
    }
}
