//! From what arrived to what was checked: the options of a submission.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::problem::ApiError;
use super::state::SchemaIssue;
use crate::config::settings::Limits;
use crate::domain::code::Code;
use crate::domain::confidence::Confidence;
use crate::domain::job::{Class, JobSpec, Weight};
use crate::domain::task::Task;
use crate::wire::submit::{Generation, JobRequest, StreamQuery};

/// Longest time to live of a job.
const MAX_EXPIRES_S: u64 = 366 * 24 * 3600;

/// What options are checked against.
pub struct Rules<'a> {
    pub limits: &'a Limits,
    /// Names of the configured models.
    pub models: &'a [String],
    pub check_schema: &'a dyn Fn(&Value) -> Result<(), SchemaIssue>,
    pub now: DateTime<Utc>,
}

/// Options that can be acted on: the task fits its fields, models exist, numbers are in range.
#[derive(Debug, PartialEq)]
pub struct Options {
    pub spec: JobSpec,
    pub class: Class,
    pub weight: Weight,
    pub expires_at: Option<DateTime<Utc>>,
}

impl Options {
    /// Of a JSON submission; its inputs are looked at elsewhere.
    pub fn of_request(request: &JobRequest, rules: &Rules) -> Result<Self, ApiError> {
        let JobRequest { task, model, schema, instructions, generation, class, weight, expires_in_s, .. } =
            request;
        check_fields(*task, schema.as_ref(), instructions.as_deref(), rules)?;
        check_generation(generation)?;
        let review_below =
            request.review_below.map(|below| probability("review_below", below)).transpose()?;
        if review_below.is_some() && !task.reads_catalog() {
            let detail = format!("task {task} has no facts to review: read its results with below=…");
            return Err(ApiError::new(Code::InvalidRequest, detail).pointer("/review_below"));
        }
        let spec = JobSpec {
            task: *task,
            model: model.clone(),
            schema: schema.clone(),
            instructions: instructions.clone(),
            generation: generation.clone().into(),
            review_below,
        };
        check_models(&spec, rules)?;
        let weight = weight_of(*weight)?;
        Ok(Self { spec, class: *class, weight, expires_at: expiry(*expires_in_s, rules.now)? })
    }

    /// The items a job of this class may have.
    pub fn max_items(&self, limits: &Limits) -> u64 {
        match self.class {
            Class::Interactive => limits.max_inputs.min(limits.max_interactive_items),
            Class::Bulk | Class::Normal => limits.max_inputs,
        }
    }

    pub fn check_count(&self, items: u64, limits: &Limits) -> Result<(), ApiError> {
        let max = self.max_items(limits);
        if items <= max {
            return Ok(());
        }
        let name = if max < limits.max_inputs { "limits.max_interactive_items" } else { "limits.max_inputs" };
        Err(ApiError::new(Code::TooLarge, format!("more inputs than {name} ({max})")))
    }
}

/// The options of a stream, spelled as a request without inputs.
pub fn request_of_query(query: StreamQuery) -> Result<JobRequest, ApiError> {
    let schema = query.schema.map(|text| {
        serde_json::from_str(&text)
            .map_err(|error| ApiError::new(Code::InvalidRequest, format!("query string: schema: {error}")))
    });
    Ok(JobRequest {
        task: query.task,
        model: query.model,
        schema: schema.transpose()?,
        instructions: query.instructions,
        generation: Generation {
            max_tokens: query.max_tokens,
            max_string_bytes: query.max_string_bytes,
            temperature: query.temperature,
            top_p: query.top_p,
            top_k: query.top_k,
            min_p: query.min_p,
            seed: query.seed,
        },
        class: query.class.unwrap_or_default(),
        weight: query.weight,
        expires_in_s: query.expires_in_s,
        review_below: None,
        inputs: None,
        source: None,
    })
}

/// A number from 0 to 1, or an error that names the field.
pub fn probability(field: &str, number: f64) -> Result<Confidence, ApiError> {
    Confidence::new(number).ok_or_else(|| {
        let detail = format!("{field} is {number}; it is a number from 0 to 1");
        ApiError::new(Code::InvalidRequest, detail).pointer(format!("/{field}"))
    })
}

fn check_fields(
    task: Task,
    schema: Option<&Value>,
    instructions: Option<&str>,
    rules: &Rules,
) -> Result<(), ApiError> {
    let refuse =
        |pointer: &str, detail: String| Err(ApiError::new(Code::InvalidRequest, detail).pointer(pointer));
    match (task, schema) {
        (Task::Custom, None) => return refuse("/schema", "task custom needs a schema".into()),
        (task, Some(_)) if task.reads_catalog() => {
            return refuse("/schema", format!("task {task} has its own schema and takes none"));
        }
        _ => {}
    }
    if instructions.is_some() && task != Task::Custom {
        return refuse("/instructions", format!("task {task} takes no instructions"));
    }
    let limit = rules.limits.max_schema_bytes;
    if instructions.is_some_and(|text| text.len() > limit) {
        let detail = format!("instructions exceed limits.max_schema_bytes ({limit})");
        return Err(ApiError::new(Code::TooLarge, detail).pointer("/instructions"));
    }
    let Some(schema) = schema else { return Ok(()) };
    if schema.to_string().len() > limit {
        let detail = format!("the schema exceeds limits.max_schema_bytes ({limit})");
        return Err(ApiError::new(Code::TooLarge, detail).pointer("/schema"));
    }
    (rules.check_schema)(schema).map_err(ApiError::from)
}

fn check_models(spec: &JobSpec, rules: &Rules) -> Result<(), ApiError> {
    match spec.models().into_iter().find(|model| !rules.models.iter().any(|known| known == model)) {
        None => Ok(()),
        Some(model) => {
            let known = rules.models.join(", ");
            Err(ApiError::new(Code::UnknownModel, format!("no model '{model}' is configured, only: {known}"))
                .pointer("/model"))
        }
    }
}

fn check_generation(generation: &Generation) -> Result<(), ApiError> {
    let Generation { max_tokens, max_string_bytes, temperature, top_p, top_k, min_p, seed: _ } = generation;
    let refuse = |field: &str, range: &str| {
        Err(ApiError::new(Code::InvalidRequest, format!("{field} must be {range}"))
            .pointer(format!("/generation/{field}")))
    };
    if *max_tokens == Some(0) {
        return refuse("max_tokens", "at least 1");
    }
    if *max_string_bytes == Some(0) {
        return refuse("max_string_bytes", "at least 1");
    }
    if *top_k == Some(0) {
        return refuse("top_k", "at least 1");
    }
    if temperature.is_some_and(|t| !(0.0..=2.0).contains(&t)) {
        return refuse("temperature", "from 0 to 2");
    }
    if top_p.is_some_and(|p| !(p > 0.0 && p <= 1.0)) {
        return refuse("top_p", "above 0, at most 1");
    }
    if min_p.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
        return refuse("min_p", "from 0 to 1");
    }
    Ok(())
}

fn weight_of(percent: Option<i16>) -> Result<Weight, ApiError> {
    let Some(percent) = percent else { return Ok(Weight::default()) };
    Weight::new(percent).ok_or_else(|| {
        let (min, max) = (Weight::RANGE.start(), Weight::RANGE.end());
        ApiError::new(Code::InvalidRequest, format!("weight must be from {min} to {max}")).pointer("/weight")
    })
}

fn expiry(expires_in_s: Option<u64>, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, ApiError> {
    match expires_in_s {
        None => Ok(None),
        Some(seconds @ 1..=MAX_EXPIRES_S) => Ok(Some(now + TimeDelta::seconds(seconds as i64))),
        Some(_) => Err(ApiError::new(
            Code::InvalidRequest,
            format!("expires_in_s must be from 1 to {MAX_EXPIRES_S}"),
        )
        .pointer("/expires_in_s")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Options of `request`, or code and pointer of the refusal.
    fn check(request: Value) -> Result<Options, (Code, Option<String>)> {
        let limits = Limits { max_schema_bytes: 200, ..Limits::default() };
        let models = ["concept", "relationship", "attribute", "big"].map(String::from);
        let check_schema = |schema: &Value| match schema.get("not") {
            None => Ok(()),
            Some(_) => Err(SchemaIssue {
                code: Code::InvalidSchema,
                path: "/not".into(),
                message: "cannot be enforced".into(),
            }),
        };
        let now = DateTime::from_timestamp_millis(1_000).unwrap();
        let rules = Rules { limits: &limits, models: &models, check_schema: &check_schema, now };
        let request: JobRequest = serde_json::from_value(request).unwrap();
        Options::of_request(&request, &rules)
            .map_err(|error| (error.problem().code, error.problem().pointer.clone()))
    }

    fn refused(request: Value, code: Code, pointer: &str) {
        assert_eq!(check(request.clone()).unwrap_err(), (code, Some(pointer.to_string())), "{request}");
    }

    #[test]
    fn what_fits_passes() {
        assert!(check(json!({"task": "data_model"})).is_ok());
        assert!(check(json!({"task": "custom", "schema": {}, "instructions": "x", "model": "big"})).is_ok());
        assert!(check(json!({"task": "chat"})).is_ok());
        let options = check(json!({"task": "concept", "expires_in_s": 3})).unwrap();
        assert_eq!(options.expires_at.unwrap().timestamp_millis(), 4_000);
    }

    #[test]
    fn what_does_not_fit_is_refused_at_its_place() {
        refused(json!({"task": "custom"}), Code::InvalidRequest, "/schema");
        refused(json!({"task": "concept", "schema": {}}), Code::InvalidRequest, "/schema");
        refused(json!({"task": "chat", "instructions": "x"}), Code::InvalidRequest, "/instructions");
        refused(json!({"task": "concept", "model": "none"}), Code::UnknownModel, "/model");
        refused(json!({"task": "custom", "schema": {"not": {}}}), Code::InvalidSchema, "/schema/not");
        refused(json!({"task": "custom", "schema": {"title": "x".repeat(200)}}), Code::TooLarge, "/schema");
        refused(json!({"task": "concept", "weight": 0}), Code::InvalidRequest, "/weight");
        refused(json!({"task": "concept", "expires_in_s": 0}), Code::InvalidRequest, "/expires_in_s");
        for (field, value) in [
            ("max_tokens", json!(0)),
            ("max_string_bytes", json!(0)),
            ("top_k", json!(0)),
            ("temperature", json!(2.5)),
            ("top_p", json!(0)),
            ("min_p", json!(-1)),
        ] {
            let request = json!({"task": "concept", "generation": {field: value}});
            refused(request, Code::InvalidRequest, &format!("/generation/{field}"));
        }
    }
}
