//! Composition root: builds everything, and knows the order of starting and stopping.
//!
//! Starting: models begin to load, Postgres, schema, queue, workers, HTTP. Stopping: no new requests and
//! claims, what runs ends or is given back, models are unloaded, the database closes last. A second signal
//! skips the waiting: leases and fences make that safe.

mod signals;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::api;
use crate::clock::Clock;
use crate::config::ConfigError;
use crate::config::settings::Settings;
use crate::domain::id::WorkerId;
use crate::domain::model::MemoryPlan;
use crate::engine::grammar;
use crate::models::manager::Manager;
use crate::queue::Queue;
use crate::shutdown::Shutdown;
use crate::store::embedded::{EmbeddedError, PrivatePostgres};
use crate::store::{Address, Store};
use crate::telemetry::metric;
use crate::worker;

/// How often this process tells the others how its models are.
const REPLICA_EVERY: Duration = Duration::from_secs(5);
/// Replicas that were silent for this long are forgotten.
const REPLICA_MAX_AGE_MS: u64 = 60_000;
/// How often the private cluster's server is looked at.
const PRIVATE_EVERY: Duration = Duration::from_secs(1);
/// A database of one's own is waited for this long at the start.
const DATABASE_WAIT: Duration = Duration::from_secs(60);

/// The database, and the private cluster under it if there is one.
pub struct Database {
    pub store: Store,
    private: Option<Arc<Mutex<PrivatePostgres>>>,
}

impl Database {
    /// Connects to the configured Postgres, or starts the private one, and brings the schema up to date.
    pub async fn open(settings: &Settings) -> Result<Self> {
        let database = Self::connect(settings).await?;
        match database.migrate().await {
            Ok(_) => Ok(database),
            Err(error) => {
                database.close().await;
                Err(error)
            }
        }
    }

    /// The same without touching the schema. A database that is still starting is waited for.
    pub async fn connect(settings: &Settings) -> Result<Self> {
        Self::connect_within(settings, DATABASE_WAIT).await
    }

    /// The same, waiting at most `patience` for a database that does not answer.
    pub async fn connect_within(settings: &Settings, patience: Duration) -> Result<Self> {
        let (address, private) = match &settings.database.url {
            Some(url) => (Address::parse(url).context("DATABASE_URL")?, None),
            None => {
                let (dir, database) = (settings.data_dir.clone(), settings.database.clone());
                let private =
                    tokio::task::spawn_blocking(move || PrivatePostgres::start(&dir, &database)).await??;
                (private.address(), Some(Arc::new(Mutex::new(private))))
            }
        };
        let store = connect(&address, settings, patience).await?;
        Ok(Self { store, private })
    }

    /// For a command beside a server: opens the database, or joins the private one that a server of this data
    /// directory runs, whose schema is the server's affair.
    pub async fn join(settings: &Settings) -> Result<Self> {
        match Self::open(settings).await {
            Err(error) if matches!(error.downcast_ref(), Some(EmbeddedError::InUse { .. })) => {
                let (dir, database) = (settings.data_dir.clone(), settings.database.clone());
                let address =
                    tokio::task::spawn_blocking(move || PrivatePostgres::address_of_running(&dir, &database))
                        .await??;
                let store = connect(&address, settings, Duration::ZERO).await?;
                Ok(Self { store, private: None })
            }
            opened => opened,
        }
    }

    /// Brings the schema up to date and tells how many migrations that took.
    pub async fn migrate(&self) -> Result<usize> {
        let run = async {
            let pending = self.store.pending_migrations().await?;
            self.store.migrate().await.map(|()| pending)
        };
        run.await.context("bringing the database's schema up to date")
    }

    pub async fn close(self) {
        self.store.close().await;
        if let Some(private) = self.private {
            let stop = move || private.lock().unwrap_or_else(PoisonError::into_inner).stop();
            let _ = tokio::task::spawn_blocking(stop).await;
        }
    }

    /// Keeps the private cluster's server running: nobody else would start it again.
    fn watch(&self, shutdown: &Shutdown) {
        let Some(private) = self.private.clone() else { return };
        let stop = shutdown.clone();
        shutdown.spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(PRIVATE_EVERY) => {}
                    () = stop.requested() => return,
                }
                let private = private.clone();
                let look = move || private.lock().unwrap_or_else(PoisonError::into_inner).revive();
                match tokio::task::spawn_blocking(look).await {
                    Ok(Ok(false)) => {}
                    Ok(Ok(true)) => tracing::warn!("the private PostgreSQL had ended and was started again"),
                    Ok(Err(error)) => {
                        tracing::error!(%error, "the private PostgreSQL cannot be started again")
                    }
                    Err(error) => tracing::error!(%error, "the look at the private PostgreSQL failed"),
                }
            }
        });
    }
}

/// A database that is still starting is waited for; a refused address or password is not.
async fn connect(address: &Address, settings: &Settings, patience: Duration) -> Result<Store> {
    let begun = std::time::Instant::now();
    let within = Duration::from_millis(settings.database.acquire_timeout_ms);
    loop {
        let connected = match Store::probe(address, within).await {
            Ok(()) => Store::connect(address, &settings.database, settings.queue.chunk_items).await,
            Err(error) => Err(error),
        };
        match connected {
            Ok(store) => return Ok(store),
            Err(error) if error.is_transient() && begun.elapsed() < patience => {
                tracing::warn!(%error, "waiting for the database");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(error).context("connecting to the database"),
        }
    }
}

/// A running adit.
pub struct Server {
    address: SocketAddr,
    settings: Arc<Settings>,
    shutdown: Shutdown,
    database: Database,
    models: Manager,
    worker: WorkerId,
    http: JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Starts everything and returns once jobs can be accepted; models go on loading.
    pub async fn start(settings: Settings) -> Result<Self> {
        let settings = Arc::new(settings);
        let shutdown = Shutdown::new();
        let clock = Clock::default();
        let metrics = metric::install();
        let listener = TcpListener::bind(settings.http.listen)
            .await
            .with_context(|| format!("listening on {}", settings.http.listen))?;
        let address = listener.local_addr()?;
        let models = Manager::start(settings.models.clone(), &settings, shutdown.clone(), clock.clone())?;
        let database = match open_for(&settings).await {
            Ok(database) => database,
            Err(error) => {
                shutdown.request();
                models.unload_all_models().await;
                return Err(error);
            }
        };
        database.watch(&shutdown);
        let store = database.store.clone();
        let worker_id = WorkerId::new();
        let (queue, stages) =
            Queue::start(store.clone(), settings.queue.clone(), worker_id, shutdown.clone());
        worker::start(&queue, stages, &store, &models, &settings, &shutdown);
        shutdown.spawn(tell_others(store.clone(), models.clone(), worker_id, shutdown.clone()));
        let state = api::State::new(api::Parts {
            store,
            models: models.clone(),
            settings: settings.clone(),
            metrics,
            shutdown: shutdown.clone(),
            clock,
            check_schema: Arc::new(check_schema),
        });
        state.outlook.start(&shutdown);
        let http = shutdown.spawn(api::serve(listener, state));
        tracing::info!(%address, models = settings.models.len(), "adit listens");
        Ok(Self { address, settings, shutdown, database, models, worker: worker_id, http })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resolves with the first signal to stop.
    pub async fn interrupted(&self) {
        signals::stop().await;
    }

    /// Serves until a signal comes or the listener fails, then stops.
    pub async fn run(mut self) -> Result<()> {
        let failure = tokio::select! {
            () = signals::stop() => None,
            ended = &mut self.http => Some(ended),
        };
        self.stop().await;
        match failure {
            Some(ended) => ended?.context("the HTTP listener ended"),
            None => Ok(()),
        }
    }

    /// Orderly end; a further signal hurries it.
    pub async fn stop(self) {
        tracing::info!("stopping: what runs is finished or given back; a second signal stops at once");
        self.shutdown.request();
        let grace = Duration::from_millis(self.settings.http.shutdown_grace_ms);
        let orderly = async {
            // bundles give back what they have not begun, and finish what they have, while models drain
            self.models.unload_all_models().await;
            self.shutdown.finish(grace).await
        };
        let ended = tokio::select! {
            ended = orderly => ended,
            () = signals::stop() => false,
            () = tokio::time::sleep(grace + grace) => false,
        };
        if !ended {
            tracing::warn!("not everything had ended; its leases will run out and it is done again");
            self.shutdown.request_now();
        }
        let _ = self.database.store.forget_replicas(self.worker, REPLICA_MAX_AGE_MS).await;
        self.database.close().await;
    }
}

/// The database, in which there is a key if one is needed: a server that nobody can use must not look like one
/// that works, and one that everybody can use must have been asked for.
async fn open_for(settings: &Settings) -> Result<Database> {
    let database = Database::open(settings).await?;
    if !settings.http.needs_keys() {
        if !settings.http.listen.ip().to_canonical().is_loopback() {
            tracing::warn!(listen = %settings.http.listen, "no API key is asked for: whoever reaches the port may do everything");
        }
        return Ok(database);
    }
    let refusal = match database.store.has_valid_key().await {
        Ok(true) => return Ok(database),
        Ok(false) => ConfigError::Value {
            key: "http.auth".into(),
            cause: format!(
                "listening on {} needs API keys, and the database has no valid one; make one with `adit keys create \
                 --name NAME --scopes submit,read,admin`, listen on 127.0.0.1, or let everybody in with \
                 --insecure-no-auth (ADIT_AUTH=off)",
                settings.http.listen
            ),
        }
        .into(),
        Err(error) => error.into(),
    };
    database.close().await;
    Err(refusal)
}

/// Tells other processes how this one's models are, and forgets those that fell silent.
async fn tell_others(store: Store, models: Manager, worker: WorkerId, shutdown: Shutdown) {
    while !shutdown.is_requested() {
        for (name, status) in models.get_all_statuses() {
            if let Err(error) = store.put_replica(worker, &name, &status).await {
                tracing::debug!(%error, "this process's models could not be announced");
                break;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(REPLICA_EVERY) => {}
            () = shutdown.requested() => {}
        }
    }
}

/// The memory each model would need here, from its files' headers. Loads nothing.
pub fn plans(settings: &Settings) -> Result<Vec<(String, Result<MemoryPlan>)>> {
    let mut models = settings.models.clone();
    models.iter_mut().for_each(|model| model.load_at_start = false);
    let shutdown = Shutdown::new();
    let manager = Manager::start(models, settings, shutdown.clone(), Clock::default())?;
    let plans = manager.names().into_iter().map(|name| {
        let plan = manager.plan(&name).map_err(anyhow::Error::from);
        (name, plan)
    });
    let plans = plans.collect();
    shutdown.request_now();
    Ok(plans)
}

/// The API does not know the engine; this is what it may ask of it.
fn check_schema(schema: &serde_json::Value) -> Result<(), api::SchemaIssue> {
    grammar::check_schema(schema).map_err(|error| api::SchemaIssue {
        code: error.code(),
        path: error.path().to_string(),
        message: error.to_string(),
    })
}
