//! From a row of the store to a job as clients see it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::api::state::State;
use crate::api::validate::Options;
use crate::domain::id::JobId;
use crate::domain::job::JobState;
use crate::domain::model::{ModelState, ModelStatus};
use crate::domain::omission::Omissions;
use crate::domain::task::Stage;
use crate::store::job::{JobRow, Recent};
use crate::wire::job::{Counts, Job, JobError, StageProgress, Throughput, Usage, WaitReason, WaitingFor};

/// What a view needs beside the row.
pub struct Facts {
    pub now: DateTime<Utc>,
    pub statuses: BTreeMap<String, ModelStatus>,
    /// Items that wait, by model; absent when the database could not say.
    pub queue: Option<BTreeMap<String, i64>>,
}

impl Facts {
    pub async fn gather(state: &State) -> Self {
        Self {
            now: state.clock.now(),
            statuses: state.models.get_all_statuses().into_iter().collect(),
            queue: state.store.waiting_by_model().await.ok(),
        }
    }
}

pub fn job(row: JobRow, facts: &Facts) -> Job {
    let stages: Vec<StageProgress> =
        row.spec.task.stages().iter().flat_map(|stage| progress(&row, *stage)).collect();
    let mut models: Vec<String> = Vec::new();
    for stage in &stages {
        if !models.contains(&stage.model) {
            models.push(stage.model.clone());
        }
    }
    let waiting_for = waiting_for(&stages, facts);
    Job {
        id: row.id.0,
        task: row.spec.task,
        state: row.state,
        class: row.class,
        weight: row.weight.percent(),
        models,
        created_at: row.created_at,
        started_at: row.started_at,
        finished_at: row.finished_at,
        expires_at: row.expires_at,
        retried_at: row.retried_at,
        counts: row.counts.into(),
        usage: row.usage.into(),
        throughput: throughput(&row, facts.now, can_run(&stages, facts)),
        stages,
        waiting_for,
        error: row.failure.map(|(code, message)| JobError { code, message }),
        left_out_total: row.left_out.total,
        left_out: row.left_out.listed.into_iter().map(Into::into).collect(),
    }
}

/// A stage by model, usually one; a stage that has not begun by the model that will serve it.
fn progress(row: &JobRow, stage: Stage) -> Vec<StageProgress> {
    let begun: Vec<StageProgress> = row
        .stages
        .iter()
        .filter(|begun| begun.stage == stage)
        .map(|begun| StageProgress {
            stage,
            model: begun.model.clone(),
            begun: true,
            counts: begun.counts.into(),
        })
        .collect();
    if !begun.is_empty() {
        return begun;
    }
    let model = row.spec.model_of(stage).to_string();
    vec![StageProgress { stage, model, begun: false, counts: Counts::default() }]
}

/// A job that is committed but could not be read back.
pub fn unread(id: JobId, options: &Options, left_out: Omissions, now: DateTime<Utc>) -> Job {
    let stage = |stage: &Stage| StageProgress {
        stage: *stage,
        model: options.spec.model_of(*stage).to_string(),
        begun: false,
        counts: Counts::default(),
    };
    Job {
        id: id.0,
        task: options.spec.task,
        state: JobState::Queued,
        class: options.class,
        weight: options.weight.percent(),
        models: options.spec.models().into_iter().map(String::from).collect(),
        created_at: now,
        started_at: None,
        finished_at: None,
        expires_at: options.expires_at,
        retried_at: None,
        counts: Counts::default(),
        stages: options.spec.task.stages().iter().map(stage).collect(),
        usage: Usage::default(),
        throughput: None,
        waiting_for: Vec::new(),
        error: None,
        left_out_total: left_out.total,
        left_out: left_out.listed.into_iter().map(Into::into).collect(),
    }
}

/// Whether any open item's model serves now.
fn can_run(stages: &[StageProgress], facts: &Facts) -> bool {
    stages
        .iter()
        .filter(|stage| stage.counts.waiting + stage.counts.running > 0)
        .any(|stage| facts.statuses.get(&stage.model).is_some_and(ModelStatus::admits_work))
}

fn throughput(row: &JobRow, now: DateTime<Utc>, can_run: bool) -> Option<Throughput> {
    let ended = row.counts.succeeded + row.counts.failed;
    if ended == 0 {
        return None;
    }
    let over = if row.state.is_final() {
        Recent {
            seconds: (row.finished_at.unwrap_or(now) - row.started_at?).as_seconds_f64(),
            items: ended as f64,
            prompt_tokens: row.usage.prompt_tokens as f64,
            output_tokens: row.usage.output_tokens as f64,
        }
    } else {
        row.recent.unwrap_or(Recent { seconds: 1.0, items: 0.0, prompt_tokens: 0.0, output_tokens: 0.0 })
    };
    if over.seconds <= 0.0 {
        return None;
    }
    let items_per_s = over.items / over.seconds;
    let open = row.counts.waiting + row.counts.running;
    let has_end = !row.state.is_final() && open > 0 && can_run && items_per_s > 0.0;
    Some(Throughput {
        items_per_s,
        prompt_tokens_per_s: over.prompt_tokens / over.seconds,
        output_tokens_per_s: over.output_tokens / over.seconds,
        eta_s: has_end.then(|| open as f64 / items_per_s),
    })
}

/// One entry per model that items wait for, in the order of stages.
fn waiting_for(stages: &[StageProgress], facts: &Facts) -> Vec<WaitingFor> {
    let mut entries: Vec<WaitingFor> = Vec::new();
    for stage in stages.iter().filter(|stage| stage.counts.waiting > 0) {
        match entries.iter_mut().find(|entry| entry.model == stage.model) {
            Some(entry) => entry.items += stage.counts.waiting,
            None => entries.push(waiting_entry(&stage.model, stage.counts.waiting, facts)),
        }
    }
    entries
}

fn waiting_entry(model: &str, items: i64, facts: &Facts) -> WaitingFor {
    let queue_items = facts.queue.as_ref().map(|queue| queue.get(model).copied().unwrap_or(0));
    let status = facts.statuses.get(model);
    let (reason, detail) = why(model, status, queue_items);
    let model_state = status.map_or(ModelState::NotLoaded, ModelStatus::state);
    WaitingFor { model: model.into(), items, queue_items, model_state, reason, detail }
}

fn why(model: &str, status: Option<&ModelStatus>, queue_items: Option<i64>) -> (WaitReason, String) {
    match status {
        None => (WaitReason::ModelUnknown, format!("no model '{model}' is configured any more")),
        Some(ModelStatus::NotLoaded) => (
            WaitReason::ModelNotLoaded,
            format!("model '{model}' is not loaded: POST /v1/models/{model}/load"),
        ),
        Some(ModelStatus::Loading { progress, .. }) => {
            let done = match progress.bytes_total {
                0 => String::new(),
                total => format!(", {:.0} %", 100.0 * progress.bytes_done as f64 / total as f64),
            };
            let eta = progress.eta_s.map(|s| format!(", {s:.0} s left")).unwrap_or_default();
            (WaitReason::ModelLoading, format!("model '{model}' is loading{done}{eta}"))
        }
        Some(ModelStatus::Error { failure, .. }) => {
            let next = match failure.next_retry_at {
                Some(at) => format!("; the next try is at {}", at.format("%H:%M:%S UTC")),
                None => "; it is not tried again by itself".into(),
            };
            (WaitReason::ModelError, format!("model '{model}' failed to load: {}{next}", failure.message))
        }
        Some(ModelStatus::Ready { draining: true, .. }) => {
            (WaitReason::ModelDraining, format!("model '{model}' is being unloaded"))
        }
        Some(ModelStatus::Ready { .. }) => {
            let queue = queue_items.map(|n| format!("; {n} items wait for it")).unwrap_or_default();
            (WaitReason::Queued, format!("model '{model}' is working{queue}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::{Class, JobSpec};
    use crate::domain::model::{LoadFailure, LoadProgress, LoadStage};
    use crate::domain::task::Task;
    use crate::store::job::StageRow;
    use crate::{domain, wire};

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(ms).unwrap()
    }

    fn row(waiting: i64, succeeded: i64) -> JobRow {
        let counts =
            domain::job::Counts { total: waiting + succeeded, waiting, succeeded, ..Default::default() };
        let usage = domain::usage::Usage { prompt_tokens: 100, output_tokens: 50, ..Default::default() };
        let spec = JobSpec {
            task: Task::DataModel,
            model: None,
            schema: None,
            instructions: None,
            generation: Default::default(),
            review_below: None,
        };
        JobRow {
            id: JobId::new(),
            tenant: "default".into(),
            spec,
            class: Class::Normal,
            weight: Default::default(),
            state: JobState::Running,
            stage: Stage::Concept,
            counts,
            usage,
            stages: vec![StageRow { stage: Stage::Concept, model: "concept".into(), counts, usage }],
            failure: None,
            created_at: at(0),
            started_at: Some(at(1_000)),
            finished_at: None,
            expires_at: None,
            retried_at: None,
            recent: (succeeded > 0).then_some(Recent {
                seconds: 10.0,
                items: 20.0,
                prompt_tokens: 100.0,
                output_tokens: 50.0,
            }),
            left_out: Omissions::default(),
        }
    }

    fn facts(status: Option<ModelStatus>) -> Facts {
        let statuses = status.map(|status| ("concept".to_string(), status)).into_iter().collect();
        Facts { now: at(11_000), statuses, queue: Some([("concept".to_string(), 70)].into()) }
    }

    fn ready() -> ModelStatus {
        ModelStatus::Ready { since: at(0), load_s: 1.0, draining: false }
    }

    #[test]
    fn rates_and_the_end_follow_from_what_was_done() {
        let view = job(row(30, 20), &facts(Some(ready())));
        let throughput = view.throughput.unwrap();
        assert_eq!((throughput.items_per_s, throughput.eta_s), (2.0, Some(15.0)));
        assert_eq!(throughput.output_tokens_per_s, 5.0);
        assert_eq!(job(row(30, 0), &facts(Some(ready()))).throughput, None);
        let stopped = job(row(30, 20), &facts(Some(ModelStatus::NotLoaded)));
        assert_eq!(stopped.throughput.unwrap().eta_s, None);
        // nothing ended lately: no rate, and no end that could be told
        let stuck = JobRow { recent: None, ..row(30, 20) };
        let throughput = job(stuck, &facts(Some(ready()))).throughput.unwrap();
        assert_eq!((throughput.items_per_s, throughput.eta_s), (0.0, None));
        // a job that has ended tells of its whole run
        let (state, finished_at) = (JobState::Completed, Some(at(6_000)));
        let ended = JobRow { state, finished_at, recent: None, ..row(0, 20) };
        assert_eq!(job(ended, &facts(Some(ready()))).throughput.unwrap().items_per_s, 4.0);
    }

    #[test]
    fn stages_that_have_not_begun_are_listed() {
        let view = job(row(30, 20), &facts(Some(ready())));
        let begun: Vec<bool> = view.stages.iter().map(|stage| stage.begun).collect();
        assert_eq!(begun, [true, false, false]);
        assert!(view.counts.adds_up());
    }

    #[test]
    fn every_state_of_a_model_explains_the_wait() {
        let failure = LoadFailure {
            code: "file_missing".into(),
            message: "no weights".into(),
            hint: String::new(),
            attempt: 1,
            next_retry_at: None,
        };
        let progress = LoadProgress {
            stage: LoadStage::Read,
            bytes_done: 62,
            bytes_total: 100,
            bytes_per_s: None,
            eta_s: Some(9.0),
        };
        let draining = ModelStatus::Ready { since: at(0), load_s: 1.0, draining: true };
        for (status, reason, says) in [
            (None, WaitReason::ModelUnknown, "configured"),
            (Some(ModelStatus::NotLoaded), WaitReason::ModelNotLoaded, "/v1/models/concept/load"),
            (Some(ModelStatus::Loading { progress, since: at(0) }), WaitReason::ModelLoading, "62 %"),
            (Some(ModelStatus::Error { failure, since: at(0) }), WaitReason::ModelError, "no weights"),
            (Some(draining), WaitReason::ModelDraining, "unloaded"),
            (Some(ready()), WaitReason::Queued, "70 items"),
        ] {
            let view: wire::job::Job = job(row(30, 20), &facts(status));
            let entry = &view.waiting_for[0];
            assert_eq!((entry.reason, entry.items, entry.queue_items), (reason, 30, Some(70)));
            assert!(entry.detail.contains(says), "{}", entry.detail);
        }
        assert!(job(row(0, 20), &facts(None)).waiting_for.is_empty());
    }
}
