//! A file's lines into a job. Lines for one model lie together, so that each chunk has one, and lines that cannot
//! be run come last, ended: the file is read once for each of these, which is seldom more than once.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Clerk;
use super::lines::{Lines, Text};
use crate::domain::batch::BatchError;
use crate::domain::chat::Refusal;
use crate::domain::code::Code;
use crate::domain::item::ItemDraft;
use crate::domain::job::{Class, Generation, JobSpec};
use crate::domain::task::Task;
use crate::engine::grammar;
use crate::extract::item::{Ask, Item, LineItem};
use crate::store::StoreError;
use crate::store::batch::ToValidate;
use crate::store::submit::{NewJob, Submission};
use crate::telemetry::metric::{self, Metric};
use crate::wire::openai;
use crate::wire::openai::line::Line;
use crate::wire::openai::request::Rules;

/// Errors that a failed batch names; further lines are like them.
const MAX_ERRORS: usize = 100;
/// Verdicts on schemas that are kept: most files have one, in every line.
const MAX_VERDICTS: usize = 64;
/// Lines after which others get their turn.
const LINES_AT_ONCE: u64 = 64;

/// Why a batch as a whole is refused.
struct Refused(Vec<BatchError>);

impl Refused {
    fn because(code: &str, message: String) -> Self {
        Self(vec![BatchError { code: code.into(), line: None, message, param: None }])
    }
}

/// What the first reading found.
#[derive(Default)]
struct Survey {
    n_lines: u64,
    /// Models in the order of their first lines.
    models: Vec<String>,
    /// Lines that cannot be run.
    refused: HashSet<u64>,
    /// Digests of the custom_ids so far.
    custom_ids: HashSet<[u8; 16]>,
    errors: Vec<BatchError>,
}

/// Makes a job of a batch's lines, or ends the batch. Leaves it as it is if another process is at it.
pub(super) async fn validate(clerk: &Clerk, due: &ToValidate) -> Result<(), StoreError> {
    let store = &clerk.store;
    if store.file(&due.tenant, due.input_file).await?.is_none() {
        let message = format!("there is no file {}", due.input_file);
        return store.fail_batch(due.id, &Refused::because("file_not_found", message).0).await;
    }
    let Some(mut submission) = store.validation_begin(job_of(due)).await? else { return Ok(()) };
    match push_lines(clerk, due, &mut submission).await? {
        Err(Refused(errors)) => {
            drop(submission);
            tracing::info!(batch = %due.id, "none of the batch's lines can be run");
            store.fail_batch(due.id, &errors).await
        }
        Ok(survey) => {
            if submission.commit_batch().await? {
                let task = Task::Chat.as_str();
                metric::count(Metric::JobsSubmitted, &[("task", task)], 1);
                metric::count(Metric::ItemsSubmitted, &[("task", task)], survey.n_lines);
                let (lines, refused) = (survey.n_lines, survey.refused.len());
                tracing::info!(batch = %due.id, lines, refused, models = survey.models.len(), "batch accepted");
            }
            Ok(())
        }
    }
}

fn job_of(due: &ToValidate) -> NewJob {
    NewJob {
        id: due.id.job(),
        tenant: due.tenant.clone(),
        spec: JobSpec {
            task: Task::Chat,
            // each line names its own
            model: None,
            schema: None,
            instructions: None,
            generation: Generation::default(),
            review_below: None,
        },
        catalog: None,
        class: Class::Normal,
        weight: Default::default(),
        idempotency_key: None,
        request_hash: None,
        expires_at: Some(due.expires_at),
    }
}

async fn push_lines(
    clerk: &Clerk,
    due: &ToValidate,
    submission: &mut Submission,
) -> Result<Result<Survey, Refused>, StoreError> {
    let mut judge = Judge::new(clerk);
    let mut survey = Survey::default();
    let open = || Lines::new(clerk.store.clone(), due.input_file, clerk.settings.limits.max_line_bytes);
    let mut lines = open();
    while let Some((number, text)) = lines.next().await? {
        survey.n_lines += 1;
        if survey.n_lines > clerk.settings.limits.max_inputs {
            let limit = clerk.settings.limits.max_inputs;
            let message = format!("the file has more requests than limits.max_inputs ({limit})");
            return Ok(Err(Refused::because("too_many_requests", message)));
        }
        let line = survey.look(number, judge.line(text));
        if line.request.as_ref().is_ok_and(|request| survey.models[0] == request.model) {
            submission.push(draft(number, line)).await?;
        }
        if survey.n_lines.is_multiple_of(LINES_AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
    let Some((first, others)) = survey.models.split_first() else {
        return Ok(Err(match survey.n_lines {
            0 => Refused::because("empty_file", "the file has no requests".into()),
            _ => Refused(survey.errors),
        }));
    };
    submission.served_by(first);
    for model in others {
        let mut lines = open();
        while let Some((number, text)) = lines.next().await? {
            if survey.refused.contains(&number) {
                continue;
            }
            let line = judge.line(text);
            if line.request.as_ref().is_ok_and(|request| request.model == *model) {
                submission.push(draft(number, line)).await?;
            }
        }
        submission.served_by(model);
    }
    if !survey.refused.is_empty() {
        push_refused(&mut judge, &survey, open(), submission).await?;
    }
    Ok(Ok(survey))
}

/// Lines that cannot be run need no model: they have failed before the first one runs.
async fn push_refused(
    judge: &mut Judge<'_>,
    survey: &Survey,
    mut lines: Lines,
    submission: &mut Submission,
) -> Result<(), StoreError> {
    while let Some((number, text)) = lines.next().await? {
        if !survey.refused.contains(&number) {
            continue;
        }
        let mut line = judge.line(text);
        let refusal = match line.request {
            Err(refusal) => numbered(number, refusal),
            // nothing is wrong with it by itself
            Ok(_) => numbered(number, duplicate(line.custom_id.as_deref().unwrap_or_default())),
        };
        line.request = Err(refusal.clone());
        submission.push_failed(draft(number, line), refusal.code, refusal.message).await?;
    }
    Ok(())
}

fn duplicate(custom_id: &str) -> Refusal {
    Refusal::of("custom_id", format!("custom_id '{custom_id}' is that of an earlier line"))
}

fn numbered(number: u64, mut refusal: Refusal) -> Refusal {
    refusal.message = format!("line {number}: {}", refusal.message);
    refusal
}

fn draft(number: u64, line: Line) -> ItemDraft {
    let ask = match line.request {
        Ok(request) => Ask::Request(Box::new(request)),
        Err(refusal) => Ask::Refused(refusal),
    };
    Item::Line(LineItem { line: number, custom_id: line.custom_id, ask }).into_draft()
}

impl Survey {
    /// Takes note of a line, and refuses it if it has the name of an earlier one.
    fn look(&mut self, number: u64, mut line: Line) -> Line {
        if let Some(id) = &line.custom_id {
            let digest = Sha256::digest(id);
            let digest = digest[..16].try_into().expect("a digest has 32 bytes");
            if !self.custom_ids.insert(digest) {
                line.request = Err(duplicate(id));
            }
        }
        match &line.request {
            Ok(request) if self.models.contains(&request.model) => {}
            Ok(request) => self.models.push(request.model.clone()),
            Err(refusal) => {
                self.refused.insert(number);
                if self.errors.len() < MAX_ERRORS {
                    let Refusal { code, message, param } = numbered(number, refusal.clone());
                    let code = openai::word(code).into();
                    self.errors.push(BatchError { code, line: Some(number), message, param });
                }
            }
        }
        line
    }
}

/// Checks lines one by one; remembers what it said of schemas.
struct Judge<'a> {
    clerk: &'a Clerk,
    verdicts: std::sync::Mutex<HashMap<[u8; 32], Result<(), Refusal>>>,
}

impl<'a> Judge<'a> {
    fn new(clerk: &'a Clerk) -> Self {
        Self { clerk, verdicts: std::sync::Mutex::default() }
    }

    fn line(&mut self, text: Text<'_>) -> Line {
        let limits = &self.clerk.settings.limits;
        let bytes = match text {
            Text::Whole(bytes) => bytes,
            Text::TooLong => {
                let message = format!("it exceeds limits.max_line_bytes ({})", limits.max_line_bytes);
                return Line::refused(None, Refusal::new(Code::TooLarge, message));
            }
        };
        let rules = Rules {
            models: &self.clerk.models,
            max_schema_bytes: limits.max_schema_bytes,
            max_json_depth: limits.max_json_depth,
            default_completion_tokens: limits.default_completion_tokens,
            check_schema: &|schema| self.schema(schema),
        };
        openai::line::read(bytes, &rules)
    }

    fn schema(&self, schema: &Value) -> Result<(), Refusal> {
        let key: [u8; 32] = Sha256::digest(schema.to_string()).into();
        let mut verdicts = self.verdicts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(verdict) = verdicts.get(&key) {
            return verdict.clone();
        }
        let verdict = grammar::check_schema(schema).map_err(|error| Refusal {
            code: error.code(),
            message: error.to_string(),
            param: Some(error.path().to_string()),
        });
        if verdicts.len() >= MAX_VERDICTS {
            verdicts.clear();
        }
        verdicts.insert(key, verdict.clone());
        verdict
    }
}
