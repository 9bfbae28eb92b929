//! One base from its files to a running engine. Blocking; runs on a load's own thread.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::base::{Base, Bases, Report};
use super::device::Loaded;
use super::error::ModelError;
use super::progress::Meter;
use super::source::Source;
use super::{budget, hub, inspect, texts};
use crate::clock::Clock;
use crate::config::settings::{self, Settings};
use crate::domain::model::{LoadProgress, LoadStage};
use crate::engine;
use crate::nn;
use crate::nn::model::LoadOptions;
use crate::nn::weights::checkpoint::Checkpoint;

/// How a base gets from its files to a running engine: [`load`], or what a test plants in its place.
pub type Read = Arc<dyn Fn(&Order, &Bases, &Report) -> Result<Base, ModelError> + Send + Sync>;

/// What to load.
#[derive(Clone)]
pub struct Order {
    pub model: settings::Model,
    /// All that are configured, this one included.
    pub all: Arc<[settings::Model]>,
    pub settings: Arc<Settings>,
    pub clock: Clock,
    /// Loads that read at the same time take a permit each.
    pub turns: Arc<tokio::sync::Semaphore>,
    pub read: Read,
}

/// Loads the base of an order: fetch, plan, read, start the engine.
pub fn load(order: &Order, bases: &Bases, report: &Report) -> Result<Base, ModelError> {
    let path = fetch(order, report)?;
    // after the download, which may stall: it must not keep others from reading
    let _turn = turn(order, report)?;
    let checkpoint = Checkpoint::open(&path)?;
    let place = report.place();
    let (footprint, wish) = (inspect::footprint(&checkpoint, order, place), inspect::wish(order, place));
    let plan = bases.book(report, &order.model.name, |device| budget::plan(&footprint, device, &wish))?;
    let engine = &order.settings.engine.resolved(place.is_card());
    let options = LoadOptions {
        threads: engine.threads,
        block_tokens: engine.block_tokens,
        kv_tokens: usize::try_from(plan.kv_tokens).unwrap_or(usize::MAX),
        kv_type: inspect::kv_type(engine),
        max_rows: engine.max_step_tokens,
        context_tokens: 0,
    };
    let mut meter = Meter::new(LoadStage::Read, checkpoint.load_bytes(), Instant::now());
    report.progress(meter.reading(Instant::now()));
    // the tokenizer and what grammars need of it take about as long as a small model's weights: beside them
    let read_texts = || -> Result<_, ModelError> {
        let texts = texts::read(&checkpoint, &path, order.clock.clone())?;
        let options = engine::grammar::Options::new(engine);
        let compiler = engine::grammar::Compiler::new(texts.tokenizer.env(), options);
        Ok((Arc::new(texts), compiler))
    };
    let (texts, model) = std::thread::scope(|scope| {
        let texts = scope.spawn(read_texts);
        let model = place.load(&checkpoint, &options, &mut |bytes| {
            report.go_on();
            meter.add(bytes);
            if let Some(progress) = meter.due(Instant::now()) {
                report.progress(progress);
            }
        });
        (texts.join(), model)
    });
    let (texts, compiler) =
        texts.unwrap_or_else(|_| Err(ModelError::Panicked("its tokenizer; see the log".into())))?;
    let model = model?;
    if report.is_given_up() {
        return Err(ModelError::Cancelled);
    }
    report.progress(Meter::new(LoadStage::WarmUp, 0, Instant::now()).reading(Instant::now()));
    let Loaded { executor, config, memory_bytes } = model;
    let stop = texts.tokenizer.stops().into();
    let options = engine::handle::Options {
        name: order.model.name.clone(),
        mask_threads: place.mask_threads(),
        ..engine::handle::Options::new(engine)
    };
    let handle = engine::handle::spawn(executor, options);
    Ok(Base { engine: handle, compiler, texts, config, stop, memory_bytes })
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
                report.go_on();
                if let Some(progress) = meter.due(Instant::now()) {
                    report.progress(progress);
                }
            };
            hub::fetch(&repo, &revision, &hub::Options::new(&order.settings), &mut on_progress)
        }
    }
}

/// Brings a model's adapter onto this machine and returns its directory.
pub fn fetch_adapter(
    order: &Order,
    on_progress: &mut dyn FnMut(LoadProgress),
) -> Result<Option<PathBuf>, ModelError> {
    let Some(adapter) = &order.model.adapter else { return Ok(None) };
    match Source::parse(adapter) {
        Ok(Source::Local(path)) => Ok(Some(path)),
        Ok(Source::Hub { repo, revision }) => {
            let mut publish = |meter: &mut Meter| {
                if let Some(progress) = meter.due(Instant::now()) {
                    on_progress(progress);
                }
            };
            hub::fetch(&repo, &revision, &hub::Options::new(&order.settings), &mut publish).map(Some)
        }
        // an adapter that is not there is named by the file that is looked for
        Err(ModelError::PathMissing { path }) => {
            Err(nn::Error::FileMissing { file: path.join("adapter_config.json") }.into())
        }
        Err(cause) => Err(cause),
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
