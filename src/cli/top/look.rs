//! One look at the server, and what two looks say together.

use std::time::Instant;

use serde::Serialize;

use crate::client::{Client, ClientError};
use crate::domain::job::JobState;
use crate::wire::job::{Job, JobsQuery};
use crate::wire::model::{Engine, Model};

/// Jobs shown of each state.
const MAX_JOBS: u32 = 50;

#[derive(Clone, Debug, Serialize)]
pub struct Look {
    pub models: Vec<Model>,
    /// Running ones, then queued ones.
    pub jobs: Vec<Job>,
    #[serde(skip)]
    pub at: Instant,
}

impl Look {
    pub async fn take(client: &Client) -> Result<Self, ClientError> {
        let of = |state| JobsQuery { state: Some(state), limit: Some(MAX_JOBS), ..JobsQuery::default() };
        let (running, queued) = (of(JobState::Running), of(JobState::Queued));
        let (models, running, queued) =
            futures::try_join!(client.models(), client.jobs(&running), client.jobs(&queued))?;
        let jobs = running.jobs.into_iter().chain(queued.jobs).collect();
        Ok(Self { models: models.data, jobs, at: Instant::now() })
    }
}

/// The newest look, with the rates since the one before it.
pub struct View {
    pub look: Look,
    pub engines: Vec<EngineView>,
    /// Why the newest try to look failed.
    pub complaint: Option<String>,
}

/// An engine, by the models that share it.
pub struct EngineView {
    pub models: String,
    pub engine: Engine,
    /// Absent at the first look.
    pub rates: Option<Rates>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    pub prompt_tokens_per_s: f64,
    pub output_tokens_per_s: f64,
    pub steps_per_s: f64,
    /// Tokens in a step, on average.
    pub rows_per_step: f64,
    /// Shares of the tokens that were handled; absent where there were none.
    pub prefix_hit: Option<f64>,
    pub forced: Option<f64>,
}

impl View {
    pub fn new(look: Look) -> Self {
        Self { engines: engines(&look, None), look, complaint: None }
    }

    pub fn follow(&mut self, look: Look) {
        let seconds = look.at.duration_since(self.look.at).as_secs_f64();
        let before = std::mem::take(&mut self.engines);
        self.engines = engines(&look, Some((&before, seconds)));
        self.look = look;
        self.complaint = None;
    }
}

fn engines(look: &Look, before: Option<(&[EngineView], f64)>) -> Vec<EngineView> {
    let mut found = Vec::new();
    let mut shown: Vec<&str> = Vec::new();
    for model in &look.models {
        let Some(engine) = &model.engine else { continue };
        if shown.contains(&model.id.as_str()) {
            continue;
        }
        let mut names = vec![model.id.as_str()];
        names.extend(model.shares_base_with.iter().map(String::as_str));
        shown.extend(&names);
        let names = names.join(", ");
        let rates = before.and_then(|(engines, seconds)| {
            let old = &engines.iter().find(|old| old.models == names)?.engine;
            Rates::between(old, engine, seconds)
        });
        found.push(EngineView { models: names, engine: engine.clone(), rates });
    }
    found
}

impl Rates {
    /// Nothing if the engine was loaded anew in between, so that its counters began again.
    fn between(old: &Engine, new: &Engine, seconds: f64) -> Option<Self> {
        if new.steps < old.steps || seconds <= 0.0 {
            return None;
        }
        let since = |of: fn(&Engine) -> u64| of(new).saturating_sub(of(old)) as f64;
        let share = |part: f64, all: f64| (all > 0.0).then(|| part / all);
        let (steps, prompt) = (since(|engine| engine.steps), since(|engine| engine.prompt_tokens));
        let output = since(|engine| engine.output_tokens);
        Some(Self {
            prompt_tokens_per_s: prompt / seconds,
            output_tokens_per_s: output / seconds,
            steps_per_s: steps / seconds,
            rows_per_step: share(since(|engine| engine.rows), steps).unwrap_or_default(),
            prefix_hit: share(since(|engine| engine.prefix_hit_tokens), prompt),
            forced: share(since(|engine| engine.forced_tokens), output),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences() {
        let old = Engine { steps: 10, rows: 100, prompt_tokens: 50, ..Engine::default() };
        let new = Engine {
            steps: 14,
            rows: 180,
            prompt_tokens: 250,
            prefix_hit_tokens: 150,
            output_tokens: 40,
            ..Engine::default()
        };
        let rates = Rates::between(&old, &new, 2.0).unwrap();
        assert_eq!((rates.prompt_tokens_per_s, rates.output_tokens_per_s), (100.0, 20.0));
        assert_eq!((rates.steps_per_s, rates.rows_per_step), (2.0, 20.0));
        assert_eq!((rates.prefix_hit, rates.forced), (Some(0.75), Some(0.0)));
        assert_eq!(Rates::between(&new, &old, 2.0), None, "loaded anew");
    }
}
