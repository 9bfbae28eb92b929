//! The world of a simulation with the names of what is in it, and the words for what came of it.

use std::collections::BTreeMap;

use super::engines::Seen;
use super::simulate::{concurrency, simulate};
use super::told::plural;
use super::work::Habits;
use super::world::{Engine, Job, Lane, Part, World};

/// Everything that a simulation and the words about it are made from.
pub(super) struct Scene {
    pub world: World,
    pub lanes: BTreeMap<String, Seen>,
    /// In the order of the world's lanes.
    pub names: Vec<String>,
    pub habits: Vec<Habits>,
    /// By engine: whether its cost was measured here, or comes from what is stored.
    pub is_measured: Vec<bool>,
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
        let about = if later > 0.0 { format!(", {} of stages to come", later.round()) } else { String::new() };
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
        let others = self.world.jobs.iter().enumerate().filter(|(other, job)| *other != at && job.class >= class);
        let beside = |job: &Job| -> f64 {
            let parts = job.stages.iter().flatten();
            parts.filter(|part| engines.contains(&self.world.lanes[part.lane].engine)).map(Part::open).sum()
        };
        let others: Vec<f64> = others.map(|(_, job)| beside(job)).filter(|open| *open > 0.0).collect();
        if !others.is_empty() {
            let (n, sum) = (others.len() as f64, others.iter().sum());
            basis.push(format!("{} with {} share its engine", plural(n, "other job"), plural(sum, "item")));
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
        Some(format!("measured: {read:.0} tokens/s read, {decoded:.0} tokens/s decoded {sequences} at a time"))
    }
}

/// The end of each stage of each of its jobs.
pub(super) async fn play(scene: Scene) -> (Scene, Vec<Vec<Option<f64>>>) {
    // a long queue is some work: not for a thread that serves requests
    let world = scene.world.clone();
    let n_jobs = world.jobs.len();
    let ends = tokio::task::spawn_blocking(move || simulate(&world)).await;
    (scene, ends.unwrap_or_else(|_| vec![Vec::new(); n_jobs]))
}
