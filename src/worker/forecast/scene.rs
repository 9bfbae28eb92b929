//! The world of a simulation with the names of what is in it, and the words for what came of it.

use std::collections::BTreeMap;

use super::arrivals::{HORIZON_S, Stream};
use super::capacity::{concurrency, full_rate, usual_item};
use super::engines::Seen;
use super::simulate::{Played, simulate};
use super::told::plural;
use super::work::Habits;
use super::world::{Engine, Job, Lane, Part, World};
use crate::domain::id::JobId;

/// More jobs than this are not made up.
const MAX_EXPECTED: f64 = 100.0;

/// Everything that a simulation and the words about it are made from.
pub(super) struct Scene {
    pub world: World,
    pub lanes: BTreeMap<String, Seen>,
    /// In the order of the world's lanes.
    pub names: Vec<String>,
    pub habits: Vec<Habits>,
    /// By engine: whether its cost was measured here, or comes from what is stored.
    pub is_measured: Vec<bool>,
    /// What is expected to come to which engine.
    pub streams: Vec<(usize, Stream)>,
}

impl Scene {
    /// A model that is not configured has a lane on which nothing ever runs.
    pub fn lane(&mut self, model: &str) -> usize {
        if let Some(at) = self.names.iter().position(|name| name == model) {
            return at;
        }
        let engine = self.world.engines.len();
        let dead = Engine { cost: None, max_sequences: 1.0, kv_tokens: 1.0, max_step_rows: 1.0 };
        self.world.engines.push(dead);
        self.is_measured.push(false);
        let lane = Lane { engine, ready_in_s: None };
        self.world.lanes.push(lane);
        self.names.push(model.into());
        self.habits.push(Habits { rows_per_token: 1.0, steps_per_token: 1.0, max_step_rows: 1.0 });
        let never = Some(format!("no model '{model}' is configured any more"));
        self.lanes.insert(model.into(), Seen { lane, base: String::new(), never });
        self.world.lanes.len() - 1
    }

    /// The base that an engine runs.
    pub fn base(&self, engine: usize) -> Option<String> {
        let on_it = |seen: &&Seen| seen.lane.engine == engine && !seen.base.is_empty();
        self.lanes.values().find(on_it).map(|seen| seen.base.clone())
    }

    /// Seconds that each engine would be busy with a job alone.
    pub fn work_s(&self, at: usize) -> BTreeMap<usize, f64> {
        let mut work = BTreeMap::new();
        for part in self.parts(at) {
            let engine = self.world.lanes[part.lane].engine;
            let rate = part.item.and_then(|item| full_rate(&self.world.engines[engine], &item));
            if let Some(rate) = rate {
                *work.entry(engine).or_default() += part.open() / rate;
            }
        }
        work
    }

    /// Adds jobs that are expected to come, after all that are there.
    pub fn expect(&mut self, engine: usize, stream: Stream) {
        let Some(lane) = self.world.lanes.iter().position(|lane| lane.engine == engine) else { return };
        let Some(item) = usual_item(&self.world, engine) else { return };
        let Some(rate) = full_rate(&self.world.engines[engine], &item) else { return };
        let items = (stream.work_s * rate).max(1.0);
        let n = (HORIZON_S / stream.every_s).min(MAX_EXPECTED);
        for k in 1..=n as usize {
            let part = Part {
                lane,
                waiting: items,
                running: 0.0,
                claims: Vec::new(),
                item: Some(item),
                vtime: None,
                chunk: 0.0,
            };
            let arrives_s = k as f64 * stream.every_s;
            let stages = vec![vec![part]];
            self.world.jobs.push(Job { id: JobId::new(), class: 1, weight: 100.0, arrives_s, stages });
        }
        self.streams.push((engine, stream));
    }

    fn parts(&self, at: usize) -> impl Iterator<Item = &Part> {
        self.world.jobs[at].stages.iter().flatten().filter(|part| part.open() > 0.0)
    }

    /// Why no end can be told; empty if one can.
    pub fn unknown(&self, at: usize) -> Vec<String> {
        let mut whys: Vec<String> = Vec::new();
        let mut say = |why: String| {
            if !whys.contains(&why) {
                whys.push(why);
            }
        };
        for part in self.parts(at) {
            let name = &self.names[part.lane];
            if let Some(why) = self.lanes.get(name).and_then(|seen| seen.never.clone()) {
                say(why);
            }
            if part.item.is_none() {
                say(format!("model '{name}' has not answered an item of this kind yet"));
            }
            if self.lanes.get(name).is_some_and(|seen| !seen.base.is_empty())
                && self.world.engines[self.world.lanes[part.lane].engine].cost.is_none()
            {
                say(format!("how fast model '{name}' is has not been measured yet"));
            }
        }
        whys
    }

    pub fn basis(&self, at: usize) -> Vec<String> {
        let mut basis = Vec::new();
        let (mut items, mut prompts, mut steps) = (0.0, 0.0, 0.0);
        for part in self.parts(at) {
            items += part.open();
            if let Some(item) = part.item {
                prompts += part.open() * (item.rows - item.steps).max(0.0);
                steps += part.open() * item.steps;
            }
        }
        let later: f64 = self.world.jobs[at].stages.iter().skip(1).flatten().map(Part::open).sum();
        let about =
            if later > 0.0 { format!(", {} of stages to come", later.round()) } else { String::new() };
        basis.push(format!(
            "{} left{about}: about {} read and {} decoded",
            plural(items, "item"),
            plural(prompts, "token"),
            plural(steps, "token")
        ));
        let mut engines: Vec<usize> = Vec::new();
        for part in self.parts(at) {
            let lane = &self.world.lanes[part.lane];
            if let Some(seconds) = lane.ready_in_s.filter(|seconds| *seconds > 0.0) {
                basis.push(format!("model '{}' serves in about {seconds:.0} s", self.names[part.lane]));
            }
            if !engines.contains(&lane.engine) {
                engines.push(lane.engine);
                basis.extend(self.of_engine(lane.engine, part));
            }
        }
        let class = self.world.jobs[at].class;
        let others = self
            .world
            .jobs
            .iter()
            .enumerate()
            .filter(|(other, job)| *other != at && job.arrives_s <= 0.0 && job.class >= class);
        let beside = |job: &Job| -> f64 {
            let parts = job.stages.iter().flatten();
            parts.filter(|part| engines.contains(&self.world.lanes[part.lane].engine)).map(Part::open).sum()
        };
        let others: Vec<f64> = others.map(|(_, job)| beside(job)).filter(|open| *open > 0.0).collect();
        if !others.is_empty() {
            let (n, sum) = (others.len() as f64, others.iter().sum());
            basis.push(format!("{} with {} share its engine", plural(n, "other job"), plural(sum, "item")));
        }
        for (_, stream) in self.streams.iter().filter(|(engine, _)| engines.contains(engine)) {
            let (every, work) = (stream.every_s, stream.work_s);
            basis.push(format!(
                "jobs go on coming for two minutes as they did, one every {every:.0} s with {work:.0} s of work"
            ));
        }
        basis
    }

    fn of_engine(&self, engine: usize, part: &Part) -> Option<String> {
        let of = &self.world.engines[engine];
        let cost = of.cost?;
        if !self.is_measured[engine] {
            return Some(format!("{:.0} tokens/s, as stored chunks took", 1.0 / cost.row_s.max(1e-9)));
        }
        let sequences = part.item.map_or(1.0, |item| concurrency(of, &item)).floor();
        let (read, decoded) = cost.rates(sequences, of.max_step_rows);
        Some(format!(
            "measured: {read:.0} tokens/s read, {decoded:.0} tokens/s decoded {sequences} at a time"
        ))
    }
}

/// Plays a scene forward.
pub(super) async fn play(scene: Scene) -> (Scene, Played) {
    // a long queue is some work: not for a thread that serves requests
    let world = scene.world.clone();
    let n_jobs = world.jobs.len();
    let played = tokio::task::spawn_blocking(move || simulate(&world)).await;
    let nothing = || Played { ends: vec![Vec::new(); n_jobs], rates: vec![Vec::new(); n_jobs] };
    (scene, played.unwrap_or_else(|_| nothing()))
}
