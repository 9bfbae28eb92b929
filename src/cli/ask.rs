//! How items are asked: what the flags say, as the API wants it.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::args::{AskArguments, ClassArgument};
use super::exit::{Exit, Stop};
use crate::domain::job::Class;
use crate::domain::task::Task;
use crate::wire::submit::{Generation, JobRequest, Source, StreamQuery};

/// A submission in one document.
pub fn request(task: Task, ask: &AskArguments, source: Source) -> Result<JobRequest> {
    Ok(JobRequest {
        task,
        model: ask.model.clone(),
        schema: ask.schema.as_deref().map(read_schema).transpose()?,
        instructions: ask.instructions.clone(),
        generation: Generation {
            max_tokens: ask.max_tokens,
            temperature: ask.temperature,
            seed: ask.seed,
            ..Generation::default()
        },
        class: class(ask),
        weight: ask.weight,
        expires_in_s: ask.expires_in,
        review_below: None,
        inputs: None,
        source: Some(source),
    })
}

/// The options of a submission whose lines are streamed.
pub fn query(task: Task, ask: &AskArguments, lenient: bool) -> Result<StreamQuery> {
    Ok(StreamQuery {
        task,
        model: ask.model.clone(),
        schema: ask.schema.as_deref().map(read_schema).transpose()?.map(|schema| schema.to_string()),
        instructions: ask.instructions.clone(),
        lenient: lenient.then_some(true),
        class: Some(class(ask)),
        weight: ask.weight,
        expires_in_s: ask.expires_in,
        max_tokens: ask.max_tokens,
        max_string_bytes: None,
        temperature: ask.temperature,
        top_p: None,
        top_k: None,
        min_p: None,
        seed: ask.seed,
    })
}

fn class(ask: &AskArguments) -> Class {
    match ask.class {
        Some(ClassArgument::Bulk) => Class::Bulk,
        Some(ClassArgument::Interactive) => Class::Interactive,
        Some(ClassArgument::Normal) | None => Class::Normal,
    }
}

fn read_schema(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| Stop::new(Exit::Usage, format!("{}: {e}", path.display())).into())
}
