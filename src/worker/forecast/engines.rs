//! Engines as they are measured while they work, and models on their way.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::cost::{Meter, Reading};
use super::work::Habits;
use super::world::{Cost, Engine, Lane};
use crate::config::settings::{self, Settings};
use crate::domain::model::ModelStatus;
use crate::engine::stats::Stats;
use crate::models::device::Place;
use crate::models::manager::Manager;
use crate::store::experience::Pace;

/// Tokens after which an engine's habits show.
const ENOUGH_TOKENS: f64 = 2_000.0;
/// KV positions where nobody says; as a base on a CPU has by default.
const KV_TOKENS: f64 = 6_144.0;
/// A load that has taken longer than the last one is about to end.
const ABOUT_TO_S: f64 = 1.0;

/// What is remembered of engines and loads. A base is known by its path.
pub(super) struct Engines {
    born: Instant,
    meters: HashMap<String, Meter>,
    stats: HashMap<String, Stats>,
    /// By model: since when it loads, and what its last load took.
    loading: HashMap<String, Instant>,
    past_load_s: HashMap<String, f64>,
}

/// A model for the simulation, with why it does not serve.
pub(super) struct Seen {
    pub lane: Lane,
    pub base: String,
    /// Why it never serves, as things stand.
    pub never: Option<String>,
}

/// The engine's settings with what suits the device where they leave it open.
fn sized(base: &str, settings: &Settings) -> settings::Engine {
    let model = settings.models.iter().find(|model| model.path == base);
    let place = model.and_then(|model| Place::of(model, &settings.engine).ok());
    settings.engine.resolved(place.is_some_and(Place::is_card))
}

impl Engines {
    pub fn new() -> Self {
        Self {
            born: Instant::now(),
            meters: HashMap::new(),
            stats: HashMap::new(),
            loading: HashMap::new(),
            past_load_s: HashMap::new(),
        }
    }

    /// On a clock that does not jump.
    pub fn seconds(&self) -> f64 {
        self.born.elapsed().as_secs_f64()
    }

    /// Reads every engine's counters.
    pub fn read(&mut self, models: &Manager, settings: &Settings) {
        let mut read: Vec<&str> = Vec::new();
        for model in settings.models.iter() {
            let Ok(served) = models.get_model(&model.name) else { continue };
            if read.contains(&model.path.as_str()) {
                continue;
            }
            read.push(&model.path);
            let stats = served.engine().stats();
            let reading = Reading {
                at_s: self.seconds(),
                steps: stats.steps,
                rows: stats.rows,
                step_s: stats.step_ms_sum / 1e3,
                is_busy: stats.running + stats.queued > 0,
            };
            self.meters.entry(model.path.clone()).or_default().read(reading);
            self.stats.insert(model.path.clone(), stats);
        }
    }

    /// What its steps cost, if it has worked in this process.
    pub fn measured(&self, base: &str) -> Option<Cost> {
        self.meters.get(base)?.cost()
    }

    pub fn engine(&self, base: &str, cost: Option<Cost>, settings: &Settings) -> Engine {
        let of = sized(base, settings);
        let stats = self.stats.get(base);
        let configured = if of.kv_tokens > 0 { of.kv_tokens as f64 } else { KV_TOKENS };
        let positions = |stats: &Stats| (stats.kv_blocks_total * of.block_tokens) as f64;
        Engine {
            cost,
            max_sequences: of.max_sequences as f64,
            kv_tokens: stats.map(positions).filter(|positions| *positions > 0.0).unwrap_or(configured),
            max_step_rows: of.max_step_tokens as f64,
        }
    }

    pub fn habits(&self, base: &str, settings: &Settings) -> Habits {
        let mut habits = Habits {
            rows_per_token: 1.0,
            steps_per_token: 1.0,
            max_step_rows: sized(base, settings).max_step_tokens as f64,
        };
        let Some(stats) = self.stats.get(base) else { return habits };
        let computed = (stats.prompt_tokens + stats.output_tokens) as f64 - stats.prefix_hit_tokens as f64;
        let chosen = stats.output_tokens as f64 - stats.forced_tokens as f64;
        if computed > ENOUGH_TOKENS && chosen > 0.0 {
            habits.rows_per_token = (stats.rows as f64 / computed).clamp(0.9, 2.0);
            habits.steps_per_token = (1.0 - stats.accepted_tokens as f64 / chosen).clamp(0.2, 1.0);
        }
        habits
    }

    /// Every configured model in order, with the engine at its place in `bases`, which is filled here.
    pub fn lanes(
        &mut self,
        models: &Manager,
        settings: &Settings,
        bases: &mut Vec<String>,
    ) -> BTreeMap<String, Seen> {
        let statuses: HashMap<String, ModelStatus> = models.get_all_statuses().into_iter().collect();
        let mut lanes = BTreeMap::new();
        for model in settings.models.iter() {
            let engine = bases.iter().position(|base| *base == model.path).unwrap_or_else(|| {
                bases.push(model.path.clone());
                bases.len() - 1
            });
            let status = statuses.get(&model.name).unwrap_or(&ModelStatus::NotLoaded);
            let (ready_in_s, never) = match self.ready_in(&model.name, status) {
                Ok(seconds) => (Some(seconds), None),
                Err(why) => (None, Some(why)),
            };
            let lane = Lane { engine, ready_in_s };
            lanes.insert(model.name.clone(), Seen { lane, base: model.path.clone(), never });
        }
        lanes
    }

    /// Seconds until a model serves, or why nobody can tell.
    fn ready_in(&mut self, model: &str, status: &ModelStatus) -> Result<f64, String> {
        if !matches!(status, ModelStatus::Loading { .. }) {
            self.loading.remove(model);
        }
        match status {
            ModelStatus::Ready { draining: false, load_s, .. } => {
                self.past_load_s.insert(model.into(), *load_s);
                Ok(0.0)
            }
            ModelStatus::Ready { .. } => Err(format!("model '{model}' is being unloaded")),
            ModelStatus::NotLoaded => Err(format!("model '{model}' is not loaded")),
            ModelStatus::Error { failure, .. } => Err(match failure.next_retry_at {
                Some(_) => format!("model '{model}' failed to load; it is tried again"),
                None => format!("model '{model}' failed to load"),
            }),
            ModelStatus::Loading { progress, .. } => {
                let since = *self.loading.entry(model.into()).or_insert_with(Instant::now);
                let past = self.past_load_s.get(model).map(|past| past - since.elapsed().as_secs_f64());
                let left = match (progress.eta_s, past) {
                    (Some(bytes), past) => Some(past.map_or(bytes, |past| past.max(bytes))),
                    (None, past) => past.map(|past| past.max(ABOUT_TO_S)),
                };
                left.ok_or_else(|| {
                    format!("model '{model}' is loading and does not tell how long it will take")
                })
            }
        }
    }
}

/// What is stored does not tell steps from tokens.
pub(super) fn of_pace(pace: Pace) -> Cost {
    Cost { step_s: 0.0, row_s: pace.seconds / pace.rows }
}
