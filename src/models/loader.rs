//! One base from its files to a running engine. Blocking; runs on a load's own thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::base::{Base, Bases, Report};
use super::budget::{self, Footprint, Wish};
use super::error::ModelError;
use super::progress::Meter;
use super::source::Source;
use super::{hub, texts};
use crate::clock::Clock;
use crate::config::settings::{self, Settings};
use crate::domain::model::LoadStage;
use crate::engine;
use crate::engine::executor::cpu::CpuExecutor;
use crate::nn;
use crate::nn::model::{LoadOptions, Model};
use crate::nn::weights::adapter::Adapter;
use crate::nn::weights::checkpoint::Checkpoint;

/// What to load.
#[derive(Clone)]
pub struct Order {
    pub model: settings::Model,
    pub settings: Arc<Settings>,
    pub clock: Clock,
    /// Loads that read at the same time take a permit each.
    pub turns: Arc<tokio::sync::Semaphore>,
}

/// Loads the base of an order: fetch, plan, read, start the engine.
pub fn load(order: &Order, bases: &Bases, report: &Report) -> Result<Base, ModelError> {
    let _turn = turn(order, report)?;
    let path = fetch(order, report)?;
    let checkpoint = Checkpoint::open(&path)?;
    let adapter_bytes = adapter_bytes(&order.model)?;
    let wish = wish(order);
    let plan =
        budget::plan(&footprint(&checkpoint, adapter_bytes, order), &bases.device(Some(report)), &wish);
    if !plan.fits() {
        return Err(ModelError::InsufficientMemory { plan: Box::new(plan) });
    }
    report.commit(&plan);
    // texts first: a checkpoint without a tokenizer fails before its gigabytes are read
    let texts = texts::read(&checkpoint, &path, order.clock.clone())?;
    let engine = &order.settings.engine;
    let options = LoadOptions {
        threads: engine.threads,
        block_tokens: engine.block_tokens,
        kv_tokens: usize::try_from(plan.kv_tokens).unwrap_or(usize::MAX),
        max_rows: engine.max_step_tokens,
        context_tokens: 0,
    };
    let mut meter = Meter::new(LoadStage::Read, checkpoint.load_bytes(), Instant::now());
    report.progress(meter.reading(Instant::now()));
    let model = Model::load(&checkpoint, &options, &mut |bytes| {
        meter.add(bytes);
        if let Some(progress) = meter.due(Instant::now()) {
            report.progress(progress);
        }
    })?;
    if report.is_given_up() {
        return Err(ModelError::Cancelled);
    }
    report.progress(Meter::new(LoadStage::WarmUp, 0, Instant::now()).reading(Instant::now()));
    let config = model.config().clone();
    let memory_bytes = model.memory_bytes();
    let compiler =
        engine::grammar::Compiler::new(texts.tokenizer.env(), engine::grammar::Options::new(engine));
    let stop = texts.tokenizer.stops().into();
    let handle =
        engine::handle::spawn(Box::new(CpuExecutor::new(model)), engine::handle::Options::new(engine));
    Ok(Base { engine: handle, compiler, texts, config, stop, plan, memory_bytes })
}

/// Waits for a place among the loads that run side by side.
fn turn(order: &Order, report: &Report) -> Result<tokio::sync::OwnedSemaphorePermit, ModelError> {
    loop {
        match order.turns.clone().try_acquire_owned() {
            Ok(permit) => return Ok(permit),
            Err(tokio::sync::TryAcquireError::Closed) => return Err(ModelError::Stopping),
            Err(tokio::sync::TryAcquireError::NoPermits) if report.is_given_up() => {
                return Err(ModelError::Cancelled);
            }
            Err(tokio::sync::TryAcquireError::NoPermits) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

fn fetch(order: &Order, report: &Report) -> Result<PathBuf, ModelError> {
    match Source::parse(&order.model.path)? {
        Source::Local(path) => Ok(path),
        Source::Hub { repo, revision } => {
            let mut on_progress = |meter: &mut Meter| {
                if let Some(progress) = meter.due(Instant::now()) {
                    report.progress(progress);
                }
            };
            hub::fetch(&repo, &revision, &hub::Options::new(&order.settings), &mut on_progress)
        }
    }
}

/// The adapter of a model, on its way through the same kinds of places as a base.
pub fn load_adapter(
    order: &Order,
    config: &nn::arch::ModelConfig,
) -> Result<Option<Arc<Adapter>>, ModelError> {
    let Some(dir) = adapter_dir(order)? else { return Ok(None) };
    Ok(Some(Arc::new(Adapter::load(&dir, config)?)))
}

fn adapter_dir(order: &Order) -> Result<Option<PathBuf>, ModelError> {
    let Some(adapter) = &order.model.adapter else { return Ok(None) };
    match Source::parse(adapter) {
        Ok(Source::Local(path)) => Ok(Some(path)),
        Ok(Source::Hub { repo, revision }) => {
            let options = hub::Options::new(&order.settings);
            hub::fetch(&repo, &revision, &options, &mut |_| {}).map(Some)
        }
        // an adapter that is not there is named by the file that is looked for
        Err(ModelError::PathMissing { path }) => {
            Err(nn::Error::FileMissing { file: path.join("adapter_config.json") }.into())
        }
        Err(cause) => Err(cause),
    }
}

/// Bytes of a local adapter, from its header; one that still has to be downloaded counts nothing yet.
pub fn adapter_bytes(model: &settings::Model) -> Result<u64, ModelError> {
    match model.adapter.as_deref().map(Source::parse) {
        Some(Ok(Source::Local(dir))) => Ok(Adapter::inspect(&dir).unwrap_or(0)),
        _ => Ok(0),
    }
}

/// Sizes of the checkpoint at a local path.
pub fn inspect(path: &Path, order: &Order) -> Result<Footprint, ModelError> {
    let checkpoint = Checkpoint::open(path)?;
    Ok(footprint(&checkpoint, adapter_bytes(&order.model)?, order))
}

fn footprint(checkpoint: &Checkpoint, adapter_bytes: u64, order: &Order) -> Footprint {
    Footprint {
        weights_bytes: checkpoint.weight_bytes(),
        adapter_bytes,
        activation_bytes: checkpoint.activation_bytes(order.settings.engine.max_step_tokens),
        kv_bytes_per_token: checkpoint.kv_bytes_per_token(),
        context_tokens: checkpoint.config().max_positions as u64,
    }
}

pub fn wish(order: &Order) -> Wish {
    Wish {
        utilization: order.model.gpu_memory_utilization,
        reserve_bytes: order.settings.loading.reserve_bytes,
        kv_tokens: order.settings.engine.kv_tokens as u64,
        block_tokens: order.settings.engine.block_tokens as u64,
        max_sequences: order.settings.engine.max_sequences as u64,
    }
}

/// Where the checkpoint lies on this machine; `None` if it has to be downloaded first.
pub fn local(order: &Order) -> Result<Option<PathBuf>, ModelError> {
    match Source::parse(&order.model.path)? {
        Source::Local(path) => Ok(Some(path)),
        Source::Hub { repo, revision } => {
            Ok(hub::cached(&repo, &revision, &hub::Options::new(&order.settings)))
        }
    }
}

/// Runs blocking work on a thread of its own; a panic comes back as an error.
pub async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ModelError> + Send + 'static,
) -> Result<T, ModelError> {
    let (sender, result) = tokio::sync::oneshot::channel();
    let run = move || {
        let _ = sender.send(work());
    };
    std::thread::Builder::new()
        .name("model-file".into())
        .spawn(run)
        .map_err(|source| ModelError::Io { path: "a thread".into(), source })?;
    result.await.unwrap_or_else(|_| Err(ModelError::Panicked("see the log".into())))
}
