//! The view of all open work and the forecasts made from it: read at most once a second, however many ask.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::arrivals::Arrivals;
use super::engines::{self, Engines};
use super::record::Record;
use super::scene::{Scene, play};
use super::sketch::Sketch;
use super::told::{self, Forecast, Left};
use super::work::{self, Like, Prompts, Tokens};
use super::world::{Claims, Cost, Job, Part, World};
use crate::config::settings::Settings;
use crate::domain::id::JobId;
use crate::domain::job::{Class, JobState, Weight};
use crate::domain::task::Stage;
use crate::models::manager::Manager;
use crate::shutdown::Shutdown;
use crate::store::experience::{Experience, Pace};
use crate::store::outlook::OpenPart;
use crate::store::{Store, StoreError};

/// A view is good for so long, or for this many times what it took to make.
const FRESH: Duration = Duration::from_millis(900);
const SHARE: u32 = 10;
/// A job that is not in a view older than this is looked for anew.
const FRESH_FOR_NEW: Duration = Duration::from_millis(100);
/// How often engines are read.
const READ_EVERY: Duration = Duration::from_millis(500);
/// What is stored about ended items is read again after this.
const STORED_FRESH: Duration = Duration::from_secs(5);
/// Jobs that are sketched in one look; the others have their turn at the next ones.
const MAX_SKETCHES: usize = 32;
/// Of items that run, no more than this share is held to be done: what is not written may take longer than expected.
const MAX_DONE: f64 = 0.85;

/// Tells when jobs will end. Cheap to clone.
#[derive(Clone)]
pub struct Outlook {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    models: Manager,
    settings: Arc<Settings>,
    seen: Mutex<Option<Arc<View>>>,
    /// One look at a time; who waits for it uses what it saw.
    memory: tokio::sync::Mutex<Memory>,
}

struct Memory {
    engines: Engines,
    sketches: HashMap<JobId, Sketch>,
    experience: HashMap<(String, Stage), (Instant, Vec<(String, Experience)>)>,
    paces: HashMap<String, (Instant, Option<Pace>)>,
    record: Record,
    /// By base: what came to it. Jobs that were there at the first look did not come.
    arrivals: HashMap<String, Arrivals>,
    seen: Option<HashSet<JobId>>,
    flights: HashMap<(JobId, Stage, String), Flight>,
}

/// How far items are that run: nobody tells, but the rate at which they are worked on is known.
#[derive(Clone, Copy, Default)]
struct Flight {
    at_s: f64,
    ended: f64,
    /// Work done on items that run, in whole items.
    done: f64,
    /// Items per second.
    rate: f64,
}

impl Flight {
    /// Items that ended take what had been done on them with them.
    fn goes_on(self, at_s: f64, ended: f64, running: f64) -> Self {
        let done = self.done + self.rate * (at_s - self.at_s) - (ended - self.ended).max(0.0);
        Self { at_s, ended, done: done.clamp(0.0, MAX_DONE * running), rate: 0.0 }
    }
}

/// Forecasts of all open jobs as of one moment.
pub struct View {
    at: Instant,
    took: Duration,
    forecasts: HashMap<JobId, Forecast>,
}

impl View {
    /// `None`: the job was not open.
    pub fn of(&self, job: JobId) -> Option<Forecast> {
        Some(self.forecasts.get(&job)?.after(self.at.elapsed().as_secs_f64()))
    }

    fn is_fresh(&self) -> bool {
        self.at.elapsed() < FRESH.max(self.took * SHARE)
    }
}

/// A stage of a job that has not been submitted.
#[derive(Clone, Debug)]
pub struct Asking {
    pub stage: Stage,
    pub model: String,
    pub items: f64,
    pub prompts: Option<Prompts>,
}

/// What such a job would take.
#[derive(Clone, Debug, Default)]
pub struct Prospect {
    pub forecast: Forecast,
    /// Seconds from now to the end of each stage.
    pub ends: Vec<Option<f64>>,
    /// Tokens of an item of each stage.
    pub tokens: Vec<Option<Tokens>>,
}

impl Outlook {
    pub fn new(store: Store, models: Manager, settings: Arc<Settings>) -> Self {
        let memory = Memory {
            engines: Engines::new(),
            sketches: HashMap::new(),
            experience: HashMap::new(),
            paces: HashMap::new(),
            record: Record::default(),
            arrivals: HashMap::new(),
            seen: None,
            flights: HashMap::new(),
        };
        let memory = tokio::sync::Mutex::new(memory);
        Self { inner: Arc::new(Inner { store, models, settings, seen: Mutex::default(), memory }) }
    }

    /// Measures engines, and proves forecasts, until the process stops. Without it forecasts rest on what is stored.
    pub fn start(&self, shutdown: &Shutdown) {
        let (outlook, stop) = (self.clone(), shutdown.clone());
        shutdown.spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(READ_EVERY) => {}
                    () = stop.requested() => return,
                }
                let Inner { models, settings, memory, .. } = &*outlook.inner;
                memory.lock().await.engines.read(models, settings);
                if let Err(error) = outlook.view(None).await {
                    tracing::debug!(%error, "no look at open work");
                }
            }
        });
    }

    /// The newest view; `new`: a job that should be in it.
    pub async fn view(&self, new: Option<JobId>) -> Result<Arc<View>, StoreError> {
        let usable = |view: &Arc<View>| {
            let lacks = new.is_some_and(|job| !view.forecasts.contains_key(&job));
            view.is_fresh() && !(lacks && view.at.elapsed() > FRESH_FOR_NEW.max(view.took * SHARE))
        };
        if let Some(view) = self.seen().filter(usable) {
            return Ok(view);
        }
        let mut memory = self.inner.memory.lock().await;
        if let Some(view) = self.seen().filter(usable) {
            return Ok(view);
        }
        let began = Instant::now();
        let forecasts = self.inner.look(&mut memory).await?;
        let view = Arc::new(View { at: Instant::now(), took: began.elapsed(), forecasts });
        *self.inner.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(view.clone());
        Ok(view)
    }

    fn seen(&self) -> Option<Arc<View>> {
        self.inner.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The digest stands for what is asked, see [`Store::digest`].
    pub async fn prospect(
        &self,
        digest: &str,
        asking: &[Asking],
        class: Class,
        weight: Weight,
    ) -> Result<Prospect, StoreError> {
        self.inner.prospect(digest, asking, class, weight).await
    }
}

impl Inner {
    async fn look(&self, memory: &mut Memory) -> Result<HashMap<JobId, Forecast>, StoreError> {
        let open = self.store.open_work().await?;
        let jobs = by_job(open);
        self.sketch(memory, &jobs).await?;
        let mut scene = self.scene(memory).await?;
        let mut done = Vec::with_capacity(jobs.len());
        for parts in &jobs {
            done.push(self.add(memory, &mut scene, parts).await?);
        }
        self.prove(memory, &jobs).await?;
        if jobs.is_empty() {
            memory.flights.clear();
            memory.seen.get_or_insert_default().clear();
            return Ok(HashMap::new());
        }
        self.expect(memory, &mut scene, &jobs);
        let (scene, played) = play(scene).await;
        for (parts, rates) in jobs.iter().zip(&played.rates) {
            for (part, rate) in parts.iter().zip(rates) {
                let key = (part.job, part.stage, part.model.clone());
                if let Some(flight) = memory.flights.get_mut(&key) {
                    flight.rate = *rate;
                }
            }
        }
        let mut forecasts = HashMap::with_capacity(jobs.len());
        for (at, share) in done.into_iter().enumerate() {
            let id = scene.world.jobs[at].id;
            let raw = played.ends[at].last().copied().flatten();
            let forecast = self.told(memory, &scene, at, raw, share);
            match raw {
                Some(seconds) => memory.record.told(id, share, memory.engines.seconds(), seconds),
                // a model went away: what was told before will not be proved by when it comes back
                None => memory.record.forget(id),
            }
            forecasts.insert(id, forecast);
        }
        Ok(forecasts)
    }

    /// Engines and models as they are, with no jobs yet.
    async fn scene(&self, memory: &mut Memory) -> Result<Scene, StoreError> {
        let Self { models, settings, .. } = self;
        let mut bases = Vec::new();
        let lanes = memory.engines.lanes(models, settings, &mut bases);
        let mut world_lanes = Vec::new();
        let mut names = Vec::new();
        let mut habits = Vec::new();
        for (name, seen) in &lanes {
            world_lanes.push(seen.lane);
            names.push(name.clone());
            habits.push(memory.engines.habits(&seen.base, settings));
        }
        let (mut of_engines, mut is_measured) = (Vec::new(), Vec::new());
        for base in &bases {
            let measured = memory.engines.measured(base);
            let cost = match measured {
                Some(cost) => Some(cost),
                None => self.stored_cost(memory, base).await?,
            };
            of_engines.push(memory.engines.engine(base, cost, settings));
            is_measured.push(measured.is_some());
        }
        let queue = &settings.queue;
        let claims = Claims {
            chunk_items: f64::from(queue.chunk_items),
            min_items: f64::from(queue.min_bundle_items),
            max_items: f64::from(queue.max_bundle_items),
            target_s: queue.bundle_target_s,
            in_hand: f64::from(queue.bundles_in_hand),
        };
        let world = World { engines: of_engines, lanes: world_lanes, jobs: Vec::new(), claims };
        Ok(Scene { world, lanes, names, habits, is_measured, streams: Vec::new() })
    }

    /// What chunks of earlier processes say, of whichever model on the base has any.
    async fn stored_cost(&self, memory: &mut Memory, base: &str) -> Result<Option<Cost>, StoreError> {
        for model in self.settings.models.iter().filter(|model| model.path == base) {
            let known = memory.paces.get(&model.name).filter(|(at, _)| at.elapsed() < STORED_FRESH);
            let pace = match known {
                Some((_, pace)) => *pace,
                None => {
                    let pace = self.store.pace(&model.name).await?;
                    memory.paces.insert(model.name.clone(), (Instant::now(), pace));
                    pace
                }
            };
            if let Some(pace) = pace {
                return Ok(Some(engines::of_pace(pace)));
            }
        }
        Ok(None)
    }

    async fn like(
        &self,
        memory: &mut Memory,
        model: &str,
        stage: Stage,
        digest: Option<&str>,
    ) -> Result<Like, StoreError> {
        let key = (model.to_string(), stage);
        if memory.experience.get(&key).is_none_or(|(at, _)| at.elapsed() >= STORED_FRESH) {
            let read = self.store.experience(model, stage).await?;
            memory.experience.insert(key.clone(), (Instant::now(), read));
        }
        let mut like = Like::default();
        for (asked, experience) in &memory.experience[&key].1 {
            like.all += *experience;
            if Some(asked.as_str()) == digest {
                like.same += *experience;
            }
        }
        Ok(like)
    }

    async fn sketch(&self, memory: &mut Memory, jobs: &[Vec<OpenPart>]) -> Result<(), StoreError> {
        let open: HashSet<JobId> = jobs.iter().map(|parts| parts[0].job).collect();
        memory.sketches.retain(|id, _| open.contains(id));
        let new = jobs.iter().filter(|parts| !memory.sketches.contains_key(&parts[0].job));
        let new: Vec<(JobId, i64)> =
            new.take(MAX_SKETCHES).map(|parts| (parts[0].job, total(parts))).collect();
        for (job, total) in new {
            if let Some(sketch) = Sketch::draw(&self.store, job, total).await? {
                memory.sketches.insert(job, sketch);
            }
        }
        for sketch in memory.sketches.values_mut() {
            sketch.count(&self.models).await;
        }
        Ok(())
    }

    /// Adds an open job to the world; returns the share of its work that is done.
    async fn add(
        &self,
        memory: &mut Memory,
        scene: &mut Scene,
        parts: &[OpenPart],
    ) -> Result<f64, StoreError> {
        let first = &parts[0];
        let digest = memory.sketches.get(&first.job).map(|sketch| sketch.digest.clone());
        let (mut now, mut ended, mut open) = (Vec::new(), 0.0, 0.0);
        for part in parts {
            let like = self.like(memory, &part.model, part.stage, digest.as_deref()).await?;
            let prompts = memory.sketches.get(&part.job).and_then(|sketch| sketch.prompts(part.stage));
            let tokens = work::expected(part.stage, &part.ended, &like, prompts);
            ended += part.ended.items;
            open += (part.waiting + part.running) as f64;
            let lane = scene.lane(&part.model);
            let key = (part.job, part.stage, part.model.clone());
            let (at_s, running) = (memory.engines.seconds(), part.running as f64);
            let begins = Flight { at_s, ended: part.ended.items, ..Flight::default() };
            let flight = memory.flights.entry(key).or_insert(begins);
            let rate = flight.rate;
            *flight = flight.goes_on(at_s, part.ended.items, running);
            let done = flight.done;
            flight.rate = rate;
            now.push(Part {
                lane,
                waiting: part.waiting as f64,
                running: running - done,
                claims: part.claims.iter().map(|(claim, items)| (*claim, *items as f64)).collect(),
                item: tokens.map(|tokens| tokens.item(&scene.habits[lane])),
                vtime: part.next.map(|(vtime, _)| vtime),
                chunk: part.next.map_or(0.0, |(_, items)| items as f64),
            });
        }
        let mut stages = vec![now];
        let mut at = first.at;
        while let Some(next) = first.task.stage_after(at) {
            at = next;
            let Some(sketch) = memory.sketches.get(&first.job) else { continue };
            let Some((items, model)) = sketch.stage(next) else { continue };
            let model = model.to_string();
            let prompts = sketch.prompts(next).copied();
            let like = self.like(memory, &model, next, digest.as_deref()).await?;
            let tokens = work::expected(next, &Experience::default(), &like, prompts.as_ref());
            let lane = scene.lane(&model);
            open += items;
            stages.push(vec![Part {
                lane,
                waiting: items,
                running: 0.0,
                claims: Vec::new(),
                item: tokens.map(|tokens| tokens.item(&scene.habits[lane])),
                vtime: None,
                chunk: 0.0,
            }]);
        }
        scene.world.jobs.push(Job {
            id: first.job,
            class: first.class as u8,
            weight: f64::from(first.weight.percent()),
            arrives_s: 0.0,
            stages,
        });
        Ok(ended / (ended + open).max(1.0))
    }

    /// Notes which jobs have come since the last look, and adds those that may come next.
    fn expect(&self, memory: &mut Memory, scene: &mut Scene, jobs: &[Vec<OpenPart>]) {
        let now = memory.engines.seconds();
        for (at, parts) in jobs.iter().enumerate() {
            let is_new = memory.seen.as_ref().is_some_and(|seen| !seen.contains(&parts[0].job));
            for (engine, work_s) in scene.work_s(at).into_iter().filter(|_| is_new) {
                let Some(base) = scene.base(engine) else { continue };
                memory.arrivals.entry(base).or_insert_with(|| Arrivals::since(0.0)).come(now, work_s);
            }
        }
        let open: HashSet<JobId> = jobs.iter().map(|parts| parts[0].job).collect();
        memory.flights.retain(|(job, ..), _| open.contains(job));
        memory.seen = Some(open);
        self.foresee(memory, scene);
    }

    fn foresee(&self, memory: &Memory, scene: &mut Scene) {
        let now = memory.engines.seconds();
        for engine in 0..scene.world.engines.len() {
            let arrivals = scene.base(engine).and_then(|base| memory.arrivals.get(&base));
            if let Some(stream) = arrivals.and_then(|arrivals| arrivals.stream(now)) {
                scene.expect(engine, stream);
            }
        }
    }

    /// Forecasts of jobs that have ended meanwhile go to the record.
    async fn prove(&self, memory: &mut Memory, jobs: &[Vec<OpenPart>]) -> Result<(), StoreError> {
        let mut gone = memory.record.open();
        let open: HashSet<JobId> = jobs.iter().map(|parts| parts[0].job).collect();
        gone.retain(|job| !open.contains(job));
        if gone.is_empty() {
            return Ok(());
        }
        let departed = self.store.departed(&gone).await?;
        let now = memory.engines.seconds();
        for one in departed.iter().filter(|one| one.state == JobState::Completed) {
            memory.record.ended(one.job, now - one.seconds_ago);
        }
        gone.into_iter().for_each(|job| memory.record.forget(job));
        Ok(())
    }

    async fn prospect(
        &self,
        digest: &str,
        asking: &[Asking],
        class: Class,
        weight: Weight,
    ) -> Result<Prospect, StoreError> {
        let mut memory = self.memory.lock().await;
        let memory = &mut *memory;
        let jobs = by_job(self.store.open_work().await?);
        self.sketch(memory, &jobs).await?;
        let mut scene = self.scene(memory).await?;
        for parts in &jobs {
            self.add(memory, &mut scene, parts).await?;
        }
        let mut all = Vec::new();
        let mut stages = Vec::new();
        for stage in asking {
            let like = self.like(memory, &stage.model, stage.stage, Some(digest)).await?;
            let tokens = work::expected(stage.stage, &Experience::default(), &like, stage.prompts.as_ref());
            let lane = scene.lane(&stage.model);
            stages.push(vec![Part {
                lane,
                waiting: stage.items,
                running: 0.0,
                claims: Vec::new(),
                item: tokens.map(|tokens| tokens.item(&scene.habits[lane])),
                vtime: None,
                chunk: 0.0,
            }]);
            all.push(tokens);
        }
        let id = JobId::new();
        let weight = f64::from(weight.percent());
        let at = scene.world.jobs.len();
        scene.world.jobs.push(Job { id, class: class as u8, weight, arrives_s: 0.0, stages });
        self.foresee(memory, &mut scene);
        let (scene, mut played) = play(scene).await;
        let ends = std::mem::take(&mut played.ends[at]);
        let forecast = self.told(memory, &scene, at, ends.last().copied().flatten(), 0.0);
        Ok(Prospect { forecast, ends, tokens: all })
    }

    /// A job's forecast in seconds and words.
    fn told(&self, memory: &Memory, scene: &Scene, at: usize, raw: Option<f64>, share: f64) -> Forecast {
        let bounds = memory.record.bounds(share);
        let unknown = scene.unknown(at);
        let left = raw.filter(|_| unknown.is_empty()).map(|seconds| Left::new(seconds, &bounds));
        let mut basis = scene.basis(at);
        if left.is_some() {
            basis.push(told::of_bounds(&bounds));
        }
        Forecast { left, basis, unknown }
    }
}

/// In the order in which the first part of each job came.
fn by_job(parts: Vec<OpenPart>) -> Vec<Vec<OpenPart>> {
    let mut jobs: Vec<Vec<OpenPart>> = Vec::new();
    let mut places: HashMap<JobId, usize> = HashMap::new();
    for part in parts {
        let at = *places.entry(part.job).or_insert_with(|| {
            jobs.push(Vec::new());
            jobs.len() - 1
        });
        jobs[at].push(part);
    }
    jobs
}

/// Items that a job has now.
fn total(parts: &[OpenPart]) -> i64 {
    parts.iter().map(|part| part.waiting + part.running + part.ended.items as i64).sum()
}
