//! The manager under random commands, faults and waits, side by side. The seed of a failing run is printed;
//! `ADIT_TEST_SEED` runs it again.
//!
//! Thousands of commands run against bases that are planted (a deterministic executor, readings that fail,
//! panic or hang as told), fewer against real checkpoints. That every single change of state is a legal one
//! is asserted where states are set, in debug builds: an illegal one kills its model's task, which
//! shows here as a command that is refused.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use adit::clock::Clock;
use adit::config::settings::{Model, Settings};
use adit::domain::model::{MemoryPlan, ModelState, ModelStatus};
use adit::engine;
use adit::engine::executor::fake::{FakeExecutor, FakeOptions};
use adit::engine::executor::{Executor, ExecutorError};
use adit::engine::grammar;
use adit::models::base::{Base, Bases, Report};
use adit::models::error::ModelError;
use adit::models::loader::{self, Order};
use adit::models::manager::Manager;
use adit::models::served::Served;
use adit::models::texts::{self, Texts};
use adit::nn::arch::ModelConfig;
use adit::nn::batch::Batch;
use adit::nn::weights::adapter::Adapter;
use adit::nn::weights::checkpoint::Checkpoint;
use adit::shutdown::Shutdown;
use futures::future::{BoxFuture, join_all};

use crate::support::tiny::{self, Arch};

const LONG: Duration = Duration::from_secs(60);
const WEIGHTS_BYTES: u64 = 1_000_003;
const KV_BYTES: u64 = 70_001;

/// splitmix64, Steele, Lea, Flood 2014.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// Says which run it was, should it end in a panic.
struct Told {
    what: &'static str,
    seed: u64,
    step: usize,
    commands: Vec<Command>,
}

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let last = &self.commands[self.commands.len().saturating_sub(12)..];
            eprintln!(
                "{}: failed with seed {} in step {}; last commands: {last:?}",
                self.what, self.seed, self.step
            );
        }
    }
}

/// How the next readings of a base go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Sound = 0,
    /// May pass: it is tried again.
    Interrupted,
    Refused,
    Panics,
}

/// One base's place in the test.
#[derive(Default)]
struct Plant {
    reading: AtomicU8,
    is_held: AtomicBool,
    /// Executors that exist now, and the most there ever were.
    alive: AtomicI64,
    most: AtomicI64,
    reads: AtomicI64,
    adapters: AtomicI64,
}

/// Counts a base while it is in memory.
struct Alive(Arc<Plant>);

impl Alive {
    fn new(plant: Arc<Plant>) -> Self {
        let alive = plant.alive.fetch_add(1, Ordering::SeqCst) + 1;
        plant.most.fetch_max(alive, Ordering::SeqCst);
        Self(plant)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.adapters.store(0, Ordering::SeqCst);
        self.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A deterministic executor that is counted, with its adapters.
struct Counted {
    inner: FakeExecutor,
    alive: Alive,
}

impl Executor for Counted {
    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }
    fn block_tokens(&self) -> usize {
        self.inner.block_tokens()
    }
    fn n_blocks(&self) -> usize {
        self.inner.n_blocks()
    }
    fn context_tokens(&self) -> usize {
        self.inner.context_tokens()
    }
    fn max_rows(&self) -> usize {
        self.inner.max_rows()
    }
    fn forward(&mut self, batch: &Batch) -> Result<&[f32], ExecutorError> {
        self.inner.forward(batch)
    }
    fn add_adapter(&mut self, adapter: Arc<Adapter>) -> Result<u32, ExecutorError> {
        self.alive.0.adapters.fetch_add(1, Ordering::SeqCst);
        self.inner.add_adapter(adapter)
    }
    fn remove_adapter(&mut self, slot: u32) {
        self.alive.0.adapters.fetch_sub(1, Ordering::SeqCst);
        self.inner.remove_adapter(slot);
    }
}

/// Bases that are planted rather than computed.
struct Planted {
    plants: HashMap<String, Arc<Plant>>,
    texts: Arc<Texts>,
    compiler: grammar::Compiler,
    config: ModelConfig,
    stop: Arc<[u32]>,
}

impl Planted {
    fn read(&self, order: &Order, bases: &Bases, report: &Report) -> Result<Base, ModelError> {
        let plant = self.plants[&order.model.path].clone();
        plant.reads.fetch_add(1, Ordering::SeqCst);
        while plant.is_held.load(Ordering::SeqCst) {
            if report.is_given_up() {
                return Err(ModelError::Cancelled);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let reading = plant.reading.load(Ordering::SeqCst);
        if reading == Reading::Interrupted as u8 {
            let source = std::io::Error::from(std::io::ErrorKind::Interrupted);
            return Err(ModelError::Io { path: order.model.path.clone().into(), source });
        }
        if reading == Reading::Refused as u8 {
            return Err(ModelError::Unsupported("this base".into()));
        }
        if reading == Reading::Panics as u8 {
            // past the hook, which would print
            std::panic::resume_unwind(Box::new("planted"));
        }
        let adapter_bytes =
            order.model.adapter.as_ref().map_or(0, |dir| Adapter::inspect(dir.as_ref()).unwrap());
        let plan = bases.book(report, &order.model.name, |device| MemoryPlan {
            weights_bytes: WEIGHTS_BYTES,
            kv_bytes: KV_BYTES,
            adapter_bytes,
            budget_bytes: device.total_bytes,
            ..MemoryPlan::default()
        })?;
        let alive = Alive::new(plant);
        let options =
            FakeOptions { vocab_size: tiny::VOCAB, block_tokens: 16, n_blocks: 64, ..FakeOptions::default() };
        let executor = Counted { inner: FakeExecutor::new(options), alive };
        Ok(Base {
            engine: engine::handle::spawn(Box::new(executor), engine::handle::Options::default()),
            compiler: self.compiler.clone(),
            texts: self.texts.clone(),
            config: self.config.clone(),
            stop: self.stop.clone(),
            memory_bytes: plan.weights_bytes + plan.kv_bytes,
        })
    }
}

#[derive(Clone, Debug)]
enum Command {
    Load(usize),
    Unload(usize),
    Reload(usize),
    /// A short wait for readiness, whatever comes of it.
    Wait(usize),
    /// Uses the model and keeps it.
    Take(usize),
    LetGo,
    /// The engine dies under the model.
    Kill(usize),
    Plant(usize, Reading),
    Hold(usize),
    Free(usize),
    Settle,
}

fn next_command(random: &mut Random, n_models: usize, n_bases: usize) -> Command {
    let (model, base) = (random.below(n_models), random.below(n_bases));
    match random.below(100) {
        0..30 => Command::Load(model),
        30..50 => Command::Unload(model),
        50..58 => Command::Reload(model),
        58..64 => Command::Wait(model),
        64..69 => Command::Take(model),
        69..72 => Command::LetGo,
        72..73 => Command::Kill(model),
        73..77 => {
            Command::Plant(base, [Reading::Interrupted, Reading::Refused, Reading::Panics][random.below(3)])
        }
        77..84 => Command::Plant(base, Reading::Sound),
        84..88 => Command::Hold(base),
        88..94 => Command::Free(base),
        _ => Command::Settle,
    }
}

/// A manager with what the test knows of it.
struct World {
    manager: Manager,
    models: Vec<Model>,
    /// Paths of the bases, in the order in which commands number them.
    bases: Vec<String>,
    /// Bytes that each base books, without adapters.
    base_bytes: HashMap<String, u64>,
    /// Bytes that may be booked at any moment, where memory is short.
    limit_bytes: Option<u64>,
    refusals: AtomicI64,
    /// Of planted bases.
    plants: HashMap<String, Arc<Plant>>,
    taken: Mutex<Vec<Arc<Served>>>,
    _dir: tempfile::TempDir,
}

fn settings(dir: &std::path::Path) -> Settings {
    let mut settings = Settings { data_dir: dir.join("data"), ..Settings::default() };
    settings.engine.threads = 1;
    settings.engine.kv_tokens = 1024;
    settings.engine.max_step_tokens = 64;
    settings.loading.reserve_bytes = 1 << 20;
    settings.loading.retry_first_ms = 1;
    settings.loading.retry_max_ms = 4;
    settings.loading.max_attempts = 3;
    settings.loading.drain_ms = 20;
    settings
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Planted,
    Real,
    /// Real, with room for two of three bases and one of two adapters.
    Tight,
}

/// Six models on three bases: two with adapters beside a plain one, one with an adapter alone, one plain.
fn world(kind: Kind) -> World {
    let is_planted = kind == Kind::Planted;
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let bases: Vec<String> =
        (0..3).map(|seed| text(tiny::tiny_model(place(&format!("base{seed}")), Arch::Llama, seed))).collect();
    let adapter = |seed: u64| {
        Some(text(tiny::tiny_adapter(place(&format!("adapter{seed}")), seed, &["q_proj", "v_proj"])))
    };
    let model = |name: &str, base: usize, adapter: Option<String>| Model {
        adapter,
        load_at_start: false,
        ..Model::new(name, &bases[base])
    };
    let mut models = vec![
        model("a", 0, None),
        model("a1", 0, adapter(1)),
        model("a2", 0, adapter(2)),
        model("b1", 1, adapter(3)),
        model("b", 1, None),
        model("c", 2, None),
    ];
    let settings = settings(dir.path());
    let mut plants = HashMap::new();
    let read: loader::Read = if is_planted {
        plants = bases.iter().map(|base| (base.clone(), Arc::new(Plant::default()))).collect();
        let path = PathBuf::from(&bases[0]);
        let checkpoint = Checkpoint::open(&path).unwrap();
        let texts = Arc::new(texts::read(&checkpoint, &path, Clock::default()).unwrap());
        let planted = Planted {
            plants: plants.clone(),
            compiler: grammar::Compiler::new(texts.tokenizer.env(), grammar::Options::new(&settings.engine)),
            stop: texts.tokenizer.stops().into(),
            config: checkpoint.config().clone(),
            texts,
        };
        Arc::new(move |order: &Order, bases: &Bases, report: &Report| planted.read(order, bases, report))
    } else {
        Arc::new(loader::load)
    };
    let limit_bytes = (kind == Kind::Tight).then(|| tighten(&mut models, &settings));
    let manager =
        Manager::start_reading(models.clone(), &settings, Shutdown::new(), Clock::default(), read).unwrap();
    let bytes = |model: &Model| {
        let plan = manager.plan(&model.name).unwrap();
        let own = plan.needed_bytes() - plan.reserve_bytes - plan.adapter_bytes;
        (model.path.clone(), if is_planted { WEIGHTS_BYTES + KV_BYTES } else { own })
    };
    let base_bytes = models.iter().map(bytes).collect();
    World {
        manager,
        models,
        bases,
        base_bytes,
        limit_bytes,
        refusals: AtomicI64::new(0),
        plants,
        taken: Mutex::default(),
        _dir: dir,
    }
}

/// Gives the models so small a share of the device that they do not all fit, and returns it without the
/// reserve.
fn tighten(models: &mut [Model], settings: &Settings) -> u64 {
    let manager = Manager::start(models.to_vec(), settings, Shutdown::new(), Clock::default()).unwrap();
    let needed = |at: usize| manager.plan(&models[at].name).unwrap().needed_bytes();
    let adapter_bytes = needed(1) - needed(0);
    let base_bytes = needed(0) - settings.loading.reserve_bytes;
    let limit_bytes = 2 * base_bytes + adapter_bytes * 3 / 2;
    let total_bytes = adit::models::device::cpu_memory().total_bytes;
    let share = (limit_bytes + settings.loading.reserve_bytes) as f64 / total_bytes as f64;
    models.iter_mut().for_each(|model| model.gpu_memory_utilization = share);
    limit_bytes
}

impl World {
    async fn run(&self, command: Command) {
        let name = |at: usize| self.models[at].name.as_str();
        match command {
            Command::Load(at) => self.is_admitted(self.manager.load(name(at)).await),
            Command::Unload(at) => self.manager.unload(name(at)).await.unwrap(),
            Command::Reload(at) => self.is_admitted(self.manager.reload(name(at)).await),
            Command::Wait(at) => {
                let waited = self.manager.wait_for_model(name(at), Duration::from_millis(5)).await;
                let is_told = matches!(
                    waited,
                    Ok(()) | Err(ModelError::WaitTimeout { .. } | ModelError::LoadFailed { .. })
                );
                assert!(is_told, "{waited:?}");
            }
            Command::Take(at) => match self.manager.get_model(name(at)) {
                Ok(served) => self.taken.lock().unwrap().push(served),
                Err(refused) => assert!(matches!(refused, ModelError::NotReady { .. }), "{refused}"),
            },
            Command::LetGo => self.taken.lock().unwrap().clear(),
            Command::Kill(at) => {
                if let Ok(served) = self.manager.get_model(name(at)) {
                    served.engine().close().await;
                }
            }
            Command::Plant(base, reading) => self.plant(&self.bases[base], reading),
            Command::Hold(base) => {
                if let Some(plant) = self.plants.get(&self.bases[base]) {
                    plant.is_held.store(true, Ordering::SeqCst);
                }
            }
            Command::Free(base) => self.free(base),
            Command::Settle => {}
        }
    }

    /// Only short memory may refuse a load.
    fn is_admitted(&self, answer: Result<(), ModelError>) {
        match answer {
            Ok(()) => {}
            Err(ModelError::InsufficientMemory { plan }) => {
                assert!(self.limit_bytes.is_some() && !plan.fits(), "{plan:?}");
                self.refusals.fetch_add(1, Ordering::SeqCst);
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Planted bases are told how their readings go; of real ones the weights are taken away and put back.
    fn plant(&self, base: &str, reading: Reading) {
        if let Some(plant) = self.plants.get(base) {
            return plant.reading.store(reading as u8, Ordering::SeqCst);
        }
        let (weights, aside) = (format!("{base}/model.safetensors"), format!("{base}/aside"));
        let (from, to) = if reading == Reading::Sound { (aside, weights) } else { (weights, aside) };
        let _ = std::fs::rename(from, to);
    }

    fn free(&self, base: usize) {
        if let Some(plant) = self.plants.get(&self.bases[base]) {
            plant.is_held.store(false, Ordering::SeqCst);
        }
    }

    /// What holds at any moment.
    fn check_always(&self) {
        for plant in self.plants.values() {
            assert!(plant.most.load(Ordering::SeqCst) <= 1, "a base was in memory twice");
        }
        let most: u64 =
            self.base_bytes.values().sum::<u64>() + self.models.iter().map(adapter_bytes).sum::<u64>();
        let most = self.limit_bytes.unwrap_or(most);
        let booked = self.manager.booked_bytes();
        assert!(booked <= most, "{booked} bytes are booked, of at most {most}");
    }

    fn is_settled(&self) -> bool {
        self.manager.get_all_statuses().iter().all(|(_, status)| match status {
            ModelStatus::NotLoaded | ModelStatus::Ready { draining: false, .. } => true,
            ModelStatus::Error { failure, .. } => failure.next_retry_at.is_none(),
            ModelStatus::Loading { .. } | ModelStatus::Ready { .. } => false,
        })
    }

    /// Lets everything come to rest, and compares the books with what is loaded.
    async fn settle(&self) {
        (0..self.bases.len()).for_each(|base| self.free(base));
        let begun = Instant::now();
        loop {
            let verdict = if self.is_settled() { self.audit() } else { Err("it does not settle".into()) };
            match verdict {
                Ok(()) => return,
                Err(what) => {
                    assert!(begun.elapsed() < LONG, "{what}: {:?}", self.manager.get_all_statuses());
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// An engine may have died a moment ago, so a difference is judged by whoever calls again.
    fn audit(&self) -> Result<(), String> {
        let ready: Vec<&Model> =
            self.models.iter().filter(|model| self.manager.is_ready(&model.name)).collect();
        let on = |base: &str| ready.iter().filter(|model| model.path == base).count();
        let loaded = || self.bases.iter().filter(|base| on(base) > 0);
        let expected = loaded().map(|base| self.base_bytes[base]).sum::<u64>()
            + ready.iter().map(|model| adapter_bytes(model)).sum::<u64>();
        let booked = self.manager.booked_bytes();
        if booked != expected {
            return Err(format!("{booked} bytes are booked, {expected} are loaded"));
        }
        let infos: Vec<_> = self.models.iter().map(|model| self.manager.info(&model.name).unwrap()).collect();
        for base in &self.bases {
            let held = infos.iter().filter(|info| info.path == *base).filter_map(|info| info.memory.as_ref());
            let held: Vec<_> = held.collect();
            let charged = held.iter().filter(|memory| memory.charged_to.is_none()).count();
            if (held.len(), charged) != (on(base), usize::from(on(base) > 0)) {
                return Err(format!("{base}: {} of {} models are charged, {held:?}", charged, on(base)));
            }
            if let Some(plant) = self.plants.get(base) {
                let adapted =
                    ready.iter().filter(|model| model.path == *base && model.adapter.is_some()).count();
                let alive = plant.alive.load(Ordering::SeqCst);
                let adapters = plant.adapters.load(Ordering::SeqCst);
                if (alive, adapters) != (i64::from(on(base) > 0), adapted as i64) {
                    return Err(format!(
                        "{base}: {alive} in memory with {adapters} adapters for {} models",
                        on(base)
                    ));
                }
            }
        }
        for model in &ready {
            self.manager.get_model(&model.name).map_err(|error| error.to_string())?;
        }
        let reads: i64 = self.plants.values().map(|plant| plant.reads.load(Ordering::SeqCst)).sum();
        if !self.plants.is_empty() && reads != self.manager.base_loads() as i64 {
            return Err(format!("{reads} readings, {} counted", self.manager.base_loads()));
        }
        Ok(())
    }

    async fn end(&self) {
        self.manager.unload_all_models().await;
        self.taken.lock().unwrap().clear();
        assert_eq!(self.manager.booked_bytes(), 0);
        for (name, status) in self.manager.get_all_statuses() {
            assert_eq!(status, ModelStatus::NotLoaded, "{name}");
            assert_eq!(self.manager.info(&name).unwrap().memory, None);
            assert!(matches!(self.manager.load(&name).await, Err(ModelError::Stopping)));
        }
        for plant in self.plants.values() {
            assert_eq!((plant.alive.load(Ordering::SeqCst), plant.adapters.load(Ordering::SeqCst)), (0, 0));
        }
    }
}

fn adapter_bytes(model: &Model) -> u64 {
    model.adapter.as_ref().map_or(0, |dir| Adapter::inspect(dir.as_ref()).unwrap())
}

async fn check(what: &'static str, seed: u64, steps: usize, kind: Kind) {
    let world = world(kind);
    let mut random = Random(seed);
    let mut told = Told { what, seed, step: 0, commands: Vec::new() };
    let mut seen = std::collections::HashSet::new();
    for step in 0..steps {
        told.step = step;
        let commands: Vec<Command> = (0..1 + random.below(3))
            .map(|_| next_command(&mut random, world.models.len(), world.bases.len()))
            .collect();
        told.commands.extend(commands.iter().cloned());
        let settles = commands.iter().any(|command| matches!(command, Command::Settle));
        let runs: Vec<BoxFuture<'_, ()>> =
            commands.into_iter().map(|command| Box::pin(world.run(command)) as BoxFuture<'_, ()>).collect();
        tokio::time::timeout(LONG, join_all(runs)).await.expect("a command never ended");
        world.check_always();
        seen.extend(world.manager.get_all_statuses().into_iter().map(|(_, status)| status.state()));
        if settles {
            world.settle().await;
        }
    }
    world.settle().await;
    world.end().await;
    assert_eq!(world.refusals.load(Ordering::SeqCst) > 0, kind == Kind::Tight, "refused loads");
    let all = [ModelState::NotLoaded, ModelState::Loading, ModelState::Ready, ModelState::Error];
    assert!(all.iter().all(|state| seen.contains(state)), "a run that saw only {seen:?} shows little");
}

/// Those of every run, or the one that a failed run has named.
#[allow(clippy::disallowed_methods)] // a test's own switch is no setting
fn seeds(usual: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    match std::env::var("ADIT_TEST_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => usual.collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_bases_under_thousands_of_commands() {
    for seed in seeds(1..=4) {
        check("planted bases", seed, 400, Kind::Planted).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_checkpoints_under_some_hundred_commands() {
    for seed in seeds(5..=5) {
        check("real checkpoints", seed, 100, Kind::Real).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_checkpoints_in_too_little_memory() {
    for seed in seeds(6..=6) {
        check("too little memory", seed, 80, Kind::Tight).await;
    }
}
