//! The models by name: everyone asks here whether one can serve, and gets it.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::base::{Base, Bases, Held, Phase};
use super::budget::Device;
use super::device::Place;
use super::error::ModelError;
use super::inspect;
use super::lifecycle::{self, Command, Lifecycle, Shared};
use super::loader::{self, Order};
use super::served::Served;
use crate::clock::Clock;
use crate::config::settings::{self, Settings};
use crate::domain::model::{LoadFailure, MemoryPlan, ModelStatus};
use crate::shutdown::Shutdown;

/// Commands that may wait for one model's task.
const MAX_COMMANDS: usize = 32;

#[derive(Clone)]
pub struct Manager {
    inner: Arc<Inner>,
}

struct Inner {
    /// In the order of the configuration.
    entries: Vec<Entry>,
    bases: Bases,
}

struct Entry {
    order: Order,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

/// Bytes a model holds, as allocated. The sum over all models is what the process holds for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// Weights, KV pool, tables and scratch; 0 where another model is charged for the shared base.
    pub base_bytes: u64,
    pub adapter_bytes: u64,
    /// The model that is charged for the base, if it is another one.
    pub charged_to: Option<String>,
}

/// All about one model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    pub name: String,
    pub path: String,
    pub adapter: Option<String>,
    pub status: ModelStatus,
    /// Absent if the headers cannot be read yet.
    pub plan: Option<MemoryPlan>,
    /// The other configured models that use the same base.
    pub shares_base_with: Vec<String>,
    /// What it holds now; absent unless its base is loaded and it is among those that use it.
    pub memory: Option<MemoryUse>,
    /// The newest failure and its time, though the model may have recovered since.
    pub last_error: Option<(DateTime<Utc>, LoadFailure)>,
    pub architecture: Option<String>,
    pub context_tokens: Option<usize>,
}

impl Manager {
    /// Begins every load that is wanted at the start, in the background, and returns at once. Must be called
    /// inside a tokio runtime. When the process stops, call [`Manager::unload_all_models`] before waiting
    /// for the tasks of `shutdown`.
    pub fn start(
        models: Vec<settings::Model>,
        settings: &Settings,
        shutdown: Shutdown,
        clock: Clock,
    ) -> Result<Self, ModelError> {
        Self::start_reading(models, settings, shutdown, clock, Arc::new(loader::load))
    }

    /// As [`Manager::start`], with bases that are read by `read`: for tests that plant faults in it.
    pub fn start_reading(
        models: Vec<settings::Model>,
        settings: &Settings,
        shutdown: Shutdown,
        clock: Clock,
        read: loader::Read,
    ) -> Result<Self, ModelError> {
        check(&models)?;
        let settings = Arc::new(settings.clone());
        let turns = Arc::new(Semaphore::new(settings.loading.max_parallel.max(1)));
        let bases = Bases::default();
        let mut entries = Vec::with_capacity(models.len());
        let all: Arc<[settings::Model]> = models.clone().into();
        for model in models {
            let load_at_start = model.load_at_start;
            let order = Order {
                model,
                all: all.clone(),
                settings: settings.clone(),
                clock: clock.clone(),
                turns: turns.clone(),
                read: read.clone(),
            };
            let shared = Arc::new(Shared {
                status: watch::Sender::new(ModelStatus::NotLoaded),
                served: std::sync::Mutex::new(None),
                last_error: std::sync::Mutex::new(None),
            });
            let (commands, inbox) = mpsc::channel(MAX_COMMANDS);
            let life = Lifecycle {
                order: order.clone(),
                bases: bases.clone(),
                shared: shared.clone(),
                commands: inbox,
                shutdown: shutdown.clone(),
                attempt: 0,
            };
            shutdown.spawn(life.run(load_at_start));
            entries.push(Entry { order, shared, commands });
        }
        Ok(Self { inner: Arc::new(Inner { entries, bases }) })
    }

    pub fn names(&self) -> Vec<String> {
        self.inner.entries.iter().map(|entry| entry.name().to_string()).collect()
    }

    pub fn get_status(&self, name: &str) -> Result<ModelStatus, ModelError> {
        Ok(self.entry(name)?.status())
    }

    /// Whether work may be claimed for it; false for a name that is not configured.
    pub fn is_ready(&self, name: &str) -> bool {
        self.entry(name).is_ok_and(|entry| entry.shared.status.borrow().admits_work())
    }

    /// The model, if it can serve; the error names the state it is in.
    pub fn get_model(&self, name: &str) -> Result<Arc<Served>, ModelError> {
        let entry = self.entry(name)?;
        let served = entry.shared.served.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // set shortly before the state says Ready, and taken away before it says anything else
        served
            .filter(|_| entry.shared.status.borrow().admits_work())
            .ok_or_else(|| ModelError::NotReady { model: name.into(), status: Box::new(entry.status()) })
    }

    /// Returns when the model is ready. A load that has failed, or fails meanwhile, returns at once.
    pub async fn wait_for_model(&self, name: &str, timeout: Duration) -> Result<(), ModelError> {
        let entry = self.entry(name)?;
        let mut status = entry.shared.status.subscribe();
        let settled =
            status.wait_for(|status| status.admits_work() || matches!(status, ModelStatus::Error { .. }));
        match tokio::time::timeout(timeout, settled).await {
            Err(_) => Err(ModelError::WaitTimeout {
                model: name.into(),
                waited_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
                status: Box::new(entry.status()),
            }),
            Ok(Err(_)) => Err(ModelError::Stopping),
            Ok(Ok(status)) => match &*status {
                ModelStatus::Error { failure, .. } => {
                    Err(ModelError::LoadFailed { model: name.into(), failure: Box::new(failure.clone()) })
                }
                _ => Ok(()),
            },
        }
    }

    /// In the order of the configuration.
    pub fn get_all_statuses(&self) -> Vec<(String, ModelStatus)> {
        self.inner.entries.iter().map(|entry| (entry.name().to_string(), entry.status())).collect()
    }

    pub fn are_all_ready(&self) -> bool {
        self.inner.entries.iter().all(|entry| entry.shared.status.borrow().admits_work())
    }

    /// One deadline for all; the first failure ends the wait.
    pub async fn wait_for_all_models(&self, timeout: Duration) -> Result<(), ModelError> {
        let waits = self.inner.entries.iter().map(|entry| self.wait_for_model(entry.name(), timeout));
        futures::future::try_join_all(waits).await.map(|_| ())
    }

    /// Begins a load, or does nothing if the model is loading or ready. One that cannot fit is refused with
    /// its plan, and nothing changes.
    pub async fn load(&self, name: &str) -> Result<(), ModelError> {
        self.ask(name, Command::Load).await
    }

    /// Lets running requests finish within the settings' grace, and returns when the memory is free.
    pub async fn unload(&self, name: &str) -> Result<(), ModelError> {
        self.ask(name, Command::Unload).await
    }

    /// Unloads and begins to load again, from the files as they are then.
    pub async fn reload(&self, name: &str) -> Result<(), ModelError> {
        self.ask(name, Command::Reload).await
    }

    /// Unloads everything, side by side, and ends the models' tasks: the last call of a stopping process.
    pub async fn unload_all_models(&self) {
        let ends = self.inner.entries.iter().map(|entry| self.ask(entry.name(), Command::End));
        futures::future::join_all(ends).await;
    }

    pub fn watch(&self, name: &str) -> Result<watch::Receiver<ModelStatus>, ModelError> {
        Ok(self.entry(name)?.shared.status.subscribe())
    }

    /// Bytes the model uses or would use, from file headers. Reads files; quick, but not for async threads
    /// in a loop.
    pub fn plan(&self, name: &str) -> Result<MemoryPlan, ModelError> {
        let entry = self.entry(name)?;
        inspect::plan(&entry.order, &self.inner.bases)?.ok_or_else(|| ModelError::Hub {
            repo: entry.order.model.path.clone(),
            cause: "is not downloaded yet".into(),
            is_passing: true,
        })
    }

    /// Reads file headers, as [`Manager::plan`] does.
    pub fn info(&self, name: &str) -> Result<ModelInfo, ModelError> {
        let entry = self.entry(name)?;
        let model = &entry.order.model;
        let own = entry.base_key();
        let others =
            self.inner.entries.iter().filter(|other| other.name() != name && other.base_key() == own);
        let held = self.inner.bases.held(&own);
        let base = held.as_ref().and_then(|held| match &held.phase {
            Phase::Loaded(base) => Some(base),
            _ => None,
        });
        let memory = base.zip(held.as_ref()).and_then(|(base, held)| MemoryUse::of(name, base, held));
        Ok(ModelInfo {
            name: name.into(),
            path: model.path.clone(),
            adapter: model.adapter.clone(),
            status: entry.status(),
            plan: inspect::plan(&entry.order, &self.inner.bases).ok().flatten(),
            shares_base_with: others.map(|other| other.name().to_string()).collect(),
            memory,
            last_error: entry.shared.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            architecture: base.map(|base| base.config.arch.as_str().to_string()),
            context_tokens: entry
                .shared
                .served
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
                .map(|served| served.context_tokens()),
        })
    }

    /// The device of the first model, at this moment.
    pub fn device(&self) -> Device {
        self.inner.bases.device_now(self.inner.place())
    }

    /// Bytes that plans have booked there for all that is loaded or being loaded; a shared base counts once.
    pub fn booked_bytes(&self) -> u64 {
        self.inner.bases.booked_bytes(self.inner.place())
    }

    /// Sequences of a model that may run at once.
    pub fn max_sequences(&self, name: &str) -> Result<usize, ModelError> {
        let order = &self.entry(name)?.order;
        let engine = &order.settings.engine;
        let is_card = Place::of(&order.model, engine).is_ok_and(Place::is_card);
        Ok(engine.resolved(is_card).max_sequences)
    }

    /// How often a base was read from files since the start: three models on one base make one.
    pub fn base_loads(&self) -> u64 {
        self.inner.bases.loads()
    }

    fn entry(&self, name: &str) -> Result<&Entry, ModelError> {
        self.inner
            .entries
            .iter()
            .find(|entry| entry.name() == name)
            .ok_or_else(|| ModelError::Unknown { model: name.into(), configured: self.names().join(", ") })
    }

    async fn ask(
        &self,
        name: &str,
        command: impl FnOnce(lifecycle::Reply) -> Command,
    ) -> Result<(), ModelError> {
        let (reply, answer) = oneshot::channel();
        self.entry(name)?.commands.send(command(reply)).await.map_err(|_| ModelError::Stopping)?;
        answer.await.unwrap_or(Err(ModelError::Stopping))
    }
}

impl Inner {
    /// That of the first model; models may name others.
    fn place(&self) -> Place {
        let first =
            self.entries.first().map(|entry| Place::of(&entry.order.model, &entry.order.settings.engine));
        first.and_then(Result::ok).unwrap_or(Place::Cpu)
    }
}

impl Entry {
    fn name(&self) -> &str {
        &self.order.model.name
    }

    /// What it shares with models of the same base; a place that does not exist is known by its name.
    fn base_key(&self) -> String {
        let model = settings::Model { tensor_parallel_size: 1, ..self.order.model.clone() };
        inspect::base_key(&model, &self.order.settings.engine)
            .unwrap_or_else(|_| self.order.model.path.clone())
    }

    fn status(&self) -> ModelStatus {
        self.shared.status.borrow().clone()
    }
}

impl MemoryUse {
    /// A holder's part of a base: the first one is charged for what they share.
    fn of(name: &str, base: &Base, held: &Held) -> Option<Self> {
        let own = held.holders.iter().find(|holder| holder.name == name)?;
        let charged = &held.holders[0].name;
        Some(Self {
            base_bytes: if charged == name { base.memory_bytes } else { 0 },
            adapter_bytes: if own.is_settled { own.adapter_bytes } else { 0 },
            charged_to: (charged != name).then(|| charged.clone()),
        })
    }
}

fn check(models: &[settings::Model]) -> Result<(), ModelError> {
    let mut names = HashSet::new();
    for model in models {
        let refuse = |what: &str| Err(ModelError::Config(format!("model `{}`: {what}", model.name)));
        if model.name.is_empty() {
            return refuse("the name is empty");
        }
        if !names.insert(&model.name) {
            return refuse("the name is used twice");
        }
        if !(model.gpu_memory_utilization > 0.0 && model.gpu_memory_utilization <= 1.0) {
            return refuse("gpu_memory_utilization is not above 0 and at most 1");
        }
        if model.tensor_parallel_size == 0 {
            return refuse("tensor_parallel_size is 0");
        }
    }
    Ok(())
}
