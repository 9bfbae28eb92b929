//! The view of all open work and the forecasts made from it: read at most once a second, however many ask.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::arrivals::Arrivals;
use super::drag::{Drag, Flight};
use super::engines::Engines;
use super::record::Record;
use super::scene::{Scene, play};
use super::sketch::Sketch;
use super::told::{self, Forecast, Left};
use super::work::{self, Prompts, Tokens};
use super::world::{Job, Part};
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

/// Tells when jobs will end. Cheap to clone.
#[derive(Clone)]
pub struct Outlook {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub store: Store,
    pub models: Manager,
    pub settings: Arc<Settings>,
    pub seen: Mutex<Option<Arc<View>>>,
    /// One look at a time; who waits for it uses what it saw.
    pub memory: tokio::sync::Mutex<Memory>,
}

/// What a model has answered of a stage, by what was asked.
type ByDigest = Vec<(String, Experience)>;

pub(super) struct Memory {
    pub engines: Engines,
    pub sketches: HashMap<JobId, Sketch>,
    pub experience: HashMap<(String, Stage), (Instant, ByDigest)>,
    pub paces: HashMap<String, (Instant, Option<Pace>)>,
    pub record: Record,
    /// By base: what came to it. Jobs that were there at the first look did not come.
    pub arrivals: HashMap<String, Arrivals>,
    pub seen: Option<HashSet<JobId>>,
    pub flights: HashMap<(JobId, Stage, String), Flight>,
    /// By base.
    pub drags: HashMap<String, Drag>,
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
            drags: HashMap::new(),
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
        self.prove(memory, &scene, &jobs).await?;
        if jobs.is_empty() {
            memory.flights.clear();
            memory.seen.get_or_insert_default().clear();
            return Ok(HashMap::new());
        }
        self.expect(memory, &mut scene, &jobs);
        let (scene, played) = play(scene).await;
        memory.set_off(&scene, &jobs, &played);
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

    /// Notes which jobs have come since the last look, and adds those that may come next.
    fn expect(&self, memory: &mut Memory, scene: &mut Scene, jobs: &[Vec<OpenPart>]) {
        let now = memory.engines.seconds();
        for (at, parts) in jobs.iter().enumerate() {
            let is_new = memory.seen.as_ref().is_some_and(|seen| !seen.contains(&parts[0].job));
            if !is_new {
                continue;
            }
            for (engine, work_s) in scene.work_s(at) {
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
    async fn prove(
        &self,
        memory: &mut Memory,
        scene: &Scene,
        jobs: &[Vec<OpenPart>],
    ) -> Result<(), StoreError> {
        let mut gone = memory.record.open();
        gone.extend(memory.flights.keys().map(|(job, ..)| *job));
        gone.sort_unstable();
        gone.dedup();
        let open: HashSet<JobId> = jobs.iter().map(|parts| parts[0].job).collect();
        gone.retain(|job| !open.contains(job));
        if gone.is_empty() {
            return Ok(());
        }
        let departed = self.store.departed(&gone).await?;
        let now = memory.engines.seconds();
        for one in departed.iter().filter(|one| one.state == JobState::Completed) {
            memory.record.ended(one.job, now - one.seconds_ago);
            memory.land(scene, one.job, now - one.seconds_ago);
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
        // who asks once wants it as it is now
        memory.experience.clear();
        memory.paces.clear();
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
