//! From the database, the engines and the models' states to a scene, and what is remembered from look to look.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::capacity::full_rate;
use super::drag::Flight;
use super::engines;
use super::outlook::{Inner, Memory};
use super::scene::Scene;
use super::simulate::Played;
use super::sketch::Sketch;
use super::work::{self, Like};
use super::world::{Claims, Cost, Job, Part, World};
use crate::domain::id::JobId;
use crate::domain::task::Stage;
use crate::store::StoreError;
use crate::store::experience::Experience;
use crate::store::outlook::OpenPart;

/// What is stored about ended items is read again after this.
const STORED_FRESH: Duration = Duration::from_secs(5);
/// Jobs that are sketched in one look; the others have their turn at the next ones.
const MAX_SKETCHES: usize = 32;

impl Inner {
    /// Engines and models as they are, with no jobs yet.
    pub async fn scene(&self, memory: &mut Memory) -> Result<Scene, StoreError> {
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
                Some(cost) => {
                    let speed = memory.speed(base);
                    Some(Cost { step_s: cost.step_s / speed, row_s: cost.row_s / speed })
                }
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

    pub async fn like(
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

    pub async fn sketch(&self, memory: &mut Memory, jobs: &[Vec<OpenPart>]) -> Result<(), StoreError> {
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
    pub async fn add(
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
            let running = part.running as f64;
            let done = memory.fly(scene, part);
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
}

impl Memory {
    /// Of what an engine's costs say, the speed that is left.
    pub fn speed(&self, base: &str) -> f64 {
        self.drags.get(base).copied().unwrap_or_default().speed()
    }

    /// How much of a part's items that run is held to be done.
    fn fly(&mut self, scene: &Scene, part: &OpenPart) -> f64 {
        let key = (part.job, part.stage, part.model.clone());
        let (at_s, ended) = (self.engines.seconds(), part.ended.items);
        let flight = self.flights.entry(key).or_insert_with(|| Flight::begins(at_s, ended));
        let left = (part.waiting + part.running) as f64;
        flight.goes_on(at_s, ended, part.running as f64, left);
        let now = *flight;
        if left == 0.0 && flight.came > 0.0 {
            *flight = Flight::begins(at_s, ended);
            self.settle(scene, &part.model, &now);
        }
        now.done
    }

    /// A job has ended, and with it what was left of it.
    pub fn land(&mut self, scene: &Scene, job: JobId, at_s: f64) {
        let of_job: Vec<_> = self.flights.keys().filter(|(of, ..)| *of == job).cloned().collect();
        for key in of_job {
            let Some(mut flight) = self.flights.remove(&key) else { continue };
            let ended = flight.ended + flight.left;
            flight.goes_on(at_s, ended, 0.0, 0.0);
            self.settle(scene, &key.2, &flight);
        }
    }

    fn settle(&mut self, scene: &Scene, model: &str, flight: &Flight) {
        let Some(seen) = scene.lanes.get(model).filter(|_| flight.came > 0.0 && flight.work_s > 0.0) else {
            return;
        };
        let drag = self.drags.entry(seen.base.clone()).or_default();
        drag.add(flight.foreseen * flight.work_s, flight.came * flight.work_s);
    }

    /// From here on, parts go on as the simulation begins.
    pub fn set_off(&mut self, scene: &Scene, jobs: &[Vec<OpenPart>], played: &Played) {
        for (at, parts) in jobs.iter().enumerate() {
            let stage = &scene.world.jobs[at].stages[0];
            for ((part, rate), of_world) in parts.iter().zip(&played.rates[at]).zip(stage) {
                let lane = &scene.world.lanes[of_world.lane];
                let speed = scene.lanes.get(&part.model).map_or(1.0, |seen| self.speed(&seen.base));
                let full = of_world.item.and_then(|item| full_rate(&scene.world.engines[lane.engine], &item));
                let key = (part.job, part.stage, part.model.clone());
                if let Some(flight) = self.flights.get_mut(&key) {
                    (flight.rate, flight.rate_without) = (*rate, rate / speed);
                    flight.work_s = full.map_or(0.0, |full| speed / full);
                }
            }
        }
    }
}

/// Items that a job has now.
fn total(parts: &[OpenPart]) -> i64 {
    parts.iter().map(|part| part.waiting + part.running + part.ended.items as i64).sum()
}
