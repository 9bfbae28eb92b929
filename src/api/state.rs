//! What handlers share.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::keyring::Keyring;
use super::problem::ApiError;
use crate::clock::Clock;
use crate::config::settings::Settings;
use crate::domain::code::Code;
use crate::models::manager::Manager;
use crate::shutdown::Shutdown;
use crate::store::Store;
use crate::telemetry::metric::Metrics;
use crate::worker::forecast::Outlook;

/// Why a client's JSON Schema is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaIssue {
    pub code: Code,
    /// JSON Pointer into the schema.
    pub path: String,
    pub message: String,
}

/// Says whether a schema can be enforced. Handed in, because this layer does not know the engine.
pub type SchemaCheck = Arc<dyn Fn(&Value) -> Result<(), SchemaIssue> + Send + Sync>;

/// Everything a handler may reach. Cheap to clone.
#[derive(Clone)]
pub struct State {
    pub store: Store,
    pub models: Manager,
    pub settings: Arc<Settings>,
    pub metrics: Metrics,
    pub shutdown: Shutdown,
    pub clock: Clock,
    /// Of the running binary.
    pub version: &'static str,
    pub check_schema: SchemaCheck,
    /// Tells when jobs will end.
    pub outlook: Outlook,
    pub(super) keys: Keyring,
    streams: Arc<Semaphore>,
    submissions: Arc<Semaphore>,
}

/// The parts a [`State`] is made of.
pub struct Parts {
    pub store: Store,
    pub models: Manager,
    pub settings: Arc<Settings>,
    pub metrics: Metrics,
    pub shutdown: Shutdown,
    pub clock: Clock,
    pub check_schema: SchemaCheck,
}

impl State {
    pub fn new(parts: Parts) -> Self {
        let Parts { store, models, settings, metrics, shutdown, clock, check_schema } = parts;
        let streams = Arc::new(Semaphore::new(settings.http.max_streams));
        let submissions = Arc::new(Semaphore::new(settings.http.max_open_submissions));
        let outlook = Outlook::new(store.clone(), models.clone(), settings.clone());
        let keys = Keyring::new(store.clone(), Duration::from_millis(settings.http.key_cache_ms));
        let version = env!("CARGO_PKG_VERSION");
        Self {
            store,
            models,
            settings,
            metrics,
            shutdown,
            clock,
            version,
            check_schema,
            outlook,
            keys,
            streams,
            submissions,
        }
    }

    /// A place among the open streams, held until it is dropped.
    pub(super) fn open_stream(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            let limit = self.settings.http.max_streams;
            ApiError::new(Code::Overloaded, format!("http.max_streams ({limit}) streams are open"))
        })
    }

    /// A place among the open submissions; waits for one as long as a request may take.
    pub(super) async fn open_submission(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        if self.shutdown.is_requested() {
            return Err(ApiError::new(Code::ShuttingDown, "no new jobs are taken"));
        }
        let waiting = self.submissions.clone().acquire_owned();
        match tokio::time::timeout(self.request_timeout(), waiting).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => {
                let limit = self.settings.http.max_open_submissions;
                Err(ApiError::new(
                    Code::Overloaded,
                    format!("http.max_open_submissions ({limit}) submissions are being read"),
                ))
            }
        }
    }

    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.settings.http.request_timeout_ms)
    }
}
