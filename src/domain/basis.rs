//! What a job's answers rest on beside its catalog and options: who answers, and how the question is put.

use serde::{Deserialize, Serialize};

use super::job::{Generation, JobSpec};
use super::task::Stage;

/// One stage's share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageBasis {
    pub stage: Stage,
    /// The model that serves it, by name.
    pub model: String,
    /// Its checkpoint as configured, a hub's revision included.
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// Digest of what all prompts of the stage begin with: another adit may ask otherwise.
    pub prompt: String,
}

/// By stage, in the task's order. Stored with the job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Basis(pub Vec<StageBasis>);

/// Where two jobs were asked differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// JSON Pointer into a submission.
    pub field: String,
    /// What it was and what it is, in words.
    pub detail: String,
}

/// A job's question without its catalog.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub spec: &'a JobSpec,
    /// `None`: an adit that did not keep it made the job.
    pub basis: Option<&'a Basis>,
}

impl Asked<'_> {
    /// The first respect in which `self` is asked differently from `earlier`; `None` if answers of the one are
    /// answers of the other.
    pub fn mismatch(&self, earlier: &Asked) -> Option<Mismatch> {
        let differs = |field: &str, before: &str, now: &str| {
            let detail = format!("{field} was {before} and is {now}");
            Some(Mismatch { field: format!("/{}", field.replace('.', "/")), detail })
        };
        if self.spec.task != earlier.spec.task {
            return differs("task", earlier.spec.task.as_str(), self.spec.task.as_str());
        }
        for stage in self.spec.task.stages() {
            let (before, now) = (earlier.spec.model_of(*stage), self.spec.model_of(*stage));
            if before != now {
                return differs("model", &format!("{before} for stage {stage}"), now);
            }
        }
        if let Some((name, before, now)) =
            generation_mismatch(&earlier.spec.generation, &self.spec.generation)
        {
            return differs(&format!("generation.{name}"), &before, &now);
        }
        let since = |detail: String| Some(Mismatch { field: "/since".into(), detail });
        let (Some(now), Some(before)) = (self.basis, earlier.basis) else {
            return since("it was made by an adit that did not keep what its answers rest on".into());
        };
        for (now, before) in now.0.iter().zip(&before.0) {
            let (stage, model) = (now.stage, &now.model);
            if now.path != before.path {
                return since(format!("model {model} was {} and is {}", before.path, now.path));
            }
            if now.adapter != before.adapter {
                let name = |adapter: &Option<String>| adapter.clone().unwrap_or_else(|| "none".into());
                let (before, now) = (name(&before.adapter), name(&now.adapter));
                return since(format!("the adapter of model {model} was {before} and is {now}"));
            }
            if now.prompt != before.prompt {
                return since(format!("this adit asks stage {stage} with another prompt"));
            }
        }
        None
    }
}

fn generation_mismatch(before: &Generation, now: &Generation) -> Option<(&'static str, String, String)> {
    fn text<T: std::fmt::Display>(value: Option<T>) -> String {
        value.map_or_else(|| "the default".into(), |value| value.to_string())
    }
    // a new option has to be compared as well
    let Generation { max_tokens, max_string_bytes, temperature, top_p, top_k, min_p, seed } = now;
    let options = [
        ("max_tokens", text(before.max_tokens), text(*max_tokens)),
        ("max_string_bytes", text(before.max_string_bytes), text(*max_string_bytes)),
        ("temperature", text(before.temperature), text(*temperature)),
        ("top_p", text(before.top_p), text(*top_p)),
        ("top_k", text(before.top_k), text(*top_k)),
        ("min_p", text(before.min_p), text(*min_p)),
        ("seed", text(before.seed), text(*seed)),
    ];
    options.into_iter().find(|(_, before, now)| before != now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::task::Task;

    fn spec() -> JobSpec {
        JobSpec {
            task: Task::Concept,
            model: None,
            schema: None,
            instructions: None,
            generation: Generation::default(),
            review_below: None,
        }
    }

    fn basis() -> Basis {
        Basis(vec![StageBasis {
            stage: Stage::Concept,
            model: "concept".into(),
            path: "/models/a".into(),
            adapter: None,
            prompt: "p".into(),
        }])
    }

    #[test]
    fn the_first_difference_is_named() {
        let check = |change: fn(&mut JobSpec, &mut Basis), expected: Option<(&str, &str)>| {
            let (mut spec_now, mut basis_now) = (spec(), basis());
            change(&mut spec_now, &mut basis_now);
            let (before, kept) = (spec(), basis());
            let earlier = Asked { spec: &before, basis: Some(&kept) };
            let found = Asked { spec: &spec_now, basis: Some(&basis_now) }.mismatch(&earlier);
            let found = found.as_ref().map(|found| (found.field.as_str(), found.detail.as_str()));
            assert_eq!(found, expected);
        };
        check(|_, _| {}, None);
        check(|spec, _| spec.task = Task::DataModel, Some(("/task", "task was concept and is data_model")));
        check(
            |spec, _| spec.model = Some("big".into()),
            Some(("/model", "model was concept for stage concept and is big")),
        );
        // the name of the default is the default
        check(|spec, _| spec.model = Some("concept".into()), None);
        check(
            |spec, _| spec.generation.temperature = Some(0.5),
            Some(("/generation/temperature", "generation.temperature was the default and is 0.5")),
        );
        check(
            |_, basis| basis.0[0].path += "@v2",
            Some(("/since", "model concept was /models/a and is /models/a@v2")),
        );
        check(
            |_, basis| basis.0[0].adapter = Some("/lora".into()),
            Some(("/since", "the adapter of model concept was none and is /lora")),
        );
        check(
            |_, basis| basis.0[0].prompt += "!",
            Some(("/since", "this adit asks stage concept with another prompt")),
        );
    }

    #[test]
    fn a_job_of_unknown_basis_is_comparable_to_none() {
        let (spec, basis) = (spec(), basis());
        let earlier = Asked { spec: &spec, basis: None };
        assert!(Asked { spec: &spec, basis: Some(&basis) }.mismatch(&earlier).is_some());
    }
}
