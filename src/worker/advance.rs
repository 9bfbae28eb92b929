//! From one stage of a job to the next.

use crate::domain::code::Code;
use crate::domain::id::JobId;
use crate::domain::item::ItemDraft;
use crate::domain::task::Stage;
use crate::extract::pipeline::{self, Finished};

use super::context::JobContext;

/// What follows a stage all of whose items have ended.
#[derive(Debug, PartialEq)]
pub enum Next {
    Stage { stage: Stage, items: Vec<ItemDraft> },
    Complete,
    Fail { code: Code, message: String },
}

/// Decides what follows `finished`; `results` are all items of the job that have ended.
pub fn next(context: &JobContext, finished: Stage, results: &[Finished]) -> Next {
    let Some(catalog) = &context.catalog else { return Next::Complete };
    match pipeline::next_stage(&context.spec, catalog, finished, results) {
        Ok(Some((stage, items))) => Next::Stage { stage, items },
        Ok(None) => Next::Complete,
        Err(error) => Next::Fail { code: error.code(), message: error.to_string() },
    }
}

/// For logs: a job and the stage it has reached.
pub fn describe(job: JobId, next: &Next) -> String {
    match next {
        Next::Stage { stage, items } => format!("job {job}: stage {stage} with {} items", items.len()),
        Next::Complete => format!("job {job}: complete"),
        Next::Fail { code, .. } => format!("job {job}: failed with {code}"),
    }
}
