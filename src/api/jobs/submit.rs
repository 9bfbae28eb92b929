//! `POST /v1/jobs`: a JSON document, or a stream of lines.

use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, RequestExt};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::source::{self, Inputs};
use super::{since, view};
use crate::api::body::{self, BodyKind, Lines, Params};
use crate::api::caller::Caller;
use crate::api::problem::ApiError;
use crate::api::state::State;
use crate::api::validate::{self, Options, Rules};
use crate::domain::catalog::Catalog;
use crate::domain::code::Code;
use crate::domain::id::JobId;
use crate::domain::item::ItemDraft;
use crate::domain::omission::Omissions;
use crate::extract::pipeline;
use crate::extract::source::{Sieve, SourceError, settle};
use crate::queue::ended;
use crate::store::submit::{NewJob, Submission, Submitted};
use crate::telemetry::metric::{self, Metric};
use crate::wire;
use crate::wire::submit::{JobRequest, StreamQuery};

/// Submit a job.
///
/// As JSON: options and inputs in one document. As `application/x-ndjson`: options in the query string, one
/// input per line; the body may be far larger than memory. Nothing is kept unless the answer is 2xx.
#[utoipa::path(
    post, path = "/v1/jobs", tag = "jobs",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same key with the same content answers the same job; with other content, 409."),
        ("task" = Option<crate::domain::task::Task>, Query, description = "Of a stream: what to extract. Its other options are those of the JSON form, `schema` as JSON text, generation options by their own names."),
    ),
    request_body(content(
        (JobRequest = "application/json"),
        (String = "application/x-ndjson"),
    )),
    responses(
        (status = 202, description = "The job is committed.", body = wire::job::Job, headers(("location" = String, description = "Path of the job."))),
        (status = 200, description = "An earlier submission under the same key made this job.", body = wire::job::Job),
    ),
)]
pub async fn submit(
    Shared(state): Shared<State>,
    caller: Caller,
    mut request: Request,
) -> Result<Response, ApiError> {
    let headers = request.headers().clone();
    let key = body::idempotency_key(&headers)?;
    let done = match body::body_kind(&headers)? {
        BodyKind::Json => submit_document(&state, &caller, key, &headers, request.into_body()).await?,
        BodyKind::Lines => {
            let Params(query) = request.extract_parts::<Params<StreamQuery>>().await?;
            submit_lines(&state, &caller, key, query, request.into_body()).await?
        }
    };
    answer(&state, done).await
}

/// A submission that is committed.
struct Done {
    submitted: Submitted,
    options: Options,
    left_out: Omissions,
}

async fn submit_document(
    state: &State,
    caller: &Caller,
    key: Option<String>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Done, ApiError> {
    let limits = &state.settings.limits;
    let request: JobRequest = body::read_json(body, headers, limits, state.request_timeout()).await?;
    let options = check(state, &request)?;
    let hash = digest(b"json\0", &request);
    let (inputs, left_out) = inputs_of(state, &options, request)?;
    let _permit = state.open_submission().await?;
    let mut submission = match inputs {
        Inputs::Catalog(catalog) => push_catalog(state, caller, &options, key, Some(hash), catalog).await?,
        Inputs::Singles(inputs) => {
            let drafts = singles(&options, inputs)?;
            options.check_count(drafts.len() as u64, limits)?;
            let mut submission = state.store.submit_begin(new_job(caller, &options, key, Some(hash))).await?;
            submission.charge_to(caller.charge());
            for draft in drafts {
                submission.push(draft).await?;
            }
            submission
        }
    };
    submission.set_left_out(left_out.clone());
    Ok(Done { submitted: submission.commit().await?, options, left_out })
}

async fn submit_lines(
    state: &State,
    caller: &Caller,
    key: Option<String>,
    query: StreamQuery,
    body: Body,
) -> Result<Done, ApiError> {
    let mut head = b"ndjson\0".to_vec();
    head.extend(serde_json::to_vec(&query).expect("a query is strings and numbers"));
    head.push(0);
    let mut sieve = Sieve::new(query.lenient.unwrap_or_default());
    let options = check(state, &validate::request_of_query(query)?)?;
    let _permit = state.open_submission().await?;
    let mut lines = Lines::new(body, &state.settings.limits, state.request_timeout(), &head);
    let outcome = if options.spec.task.reads_catalog() {
        push_tables(state, caller, &options, key, &mut lines, &mut sieve).await
    } else {
        push_singles(state, caller, &options, key, &mut lines, &mut sieve).await
    };
    match outcome {
        Ok(mut submission) => {
            submission.set_request_hash(lines.into_digest());
            let left_out = sieve.into_left_out();
            submission.set_left_out(left_out.clone());
            Ok(Done { submitted: submission.commit().await?, options, left_out })
        }
        Err(error) => {
            lines.discard().await;
            Err(error)
        }
    }
}

/// Texts and messages go to the database as they come.
async fn push_singles(
    state: &State,
    caller: &Caller,
    options: &Options,
    key: Option<String>,
    lines: &mut Lines,
    sieve: &mut Sieve,
) -> Result<Submission, ApiError> {
    let limits = &state.settings.limits;
    let mut submission = state.store.submit_begin(new_job(caller, options, key, None)).await?;
    submission.charge_to(caller.charge());
    let mut items = 0;
    while let Some((number, line)) = lines.next().await? {
        let draft = parse_line(number, line, limits.max_json_depth).and_then(|input| {
            pipeline::input_item(&options.spec, input)
                .map_err(|error| on_line(number, error.code(), &error.to_string()))
        });
        let draft = match draft {
            Ok(draft) => draft,
            Err(error) => {
                leave_out(sieve, error)?;
                continue;
            }
        };
        items += 1;
        options.check_count(items, limits).map_err(|error| error.at(number, None))?;
        submission.push(draft).await?;
    }
    some_inputs(items)?;
    Ok(submission)
}

/// Tables make one catalog, which is part of the job and therefore held; it is bounded like a JSON body.
async fn push_tables(
    state: &State,
    caller: &Caller,
    options: &Options,
    key: Option<String>,
    lines: &mut Lines,
    sieve: &mut Sieve,
) -> Result<Submission, ApiError> {
    let limits = &state.settings.limits;
    let (mut tables, mut numbers, mut bytes) = (Vec::new(), Vec::new(), 0);
    while let Some((number, line)) = lines.next().await? {
        bytes += line.len();
        if bytes > limits.max_body_bytes {
            let detail =
                format!("the tables exceed limits.max_body_bytes ({}) in sum", limits.max_body_bytes);
            return Err(on_line(number, Code::TooLarge, &detail));
        }
        let table = parse_line(number, line, limits.max_json_depth).and_then(|input| {
            source::table_of(input).map_err(|detail| on_line(number, Code::InvalidInput, &detail))
        });
        match table {
            Ok(table) => {
                tables.push(table);
                numbers.push(number);
            }
            Err(error) => leave_out(sieve, error)?,
        }
    }
    let catalog = settle(Catalog { tables }, sieve, |at, _| (numbers[at], 1))
        .map_err(|error| on_line(error.line, Code::InvalidInput, &error.message))?;
    some_inputs(catalog.tables.len() as u64)?;
    push_catalog(state, caller, options, key, None, catalog).await
}

async fn push_catalog(
    state: &State,
    caller: &Caller,
    options: &Options,
    key: Option<String>,
    request_hash: Option<Vec<u8>>,
    catalog: Catalog,
) -> Result<Submission, ApiError> {
    let basis = Some(since::basis(state, &options.spec)?);
    let job = NewJob { catalog: Some(catalog.clone()), basis, ..new_job(caller, options, key, request_hash) };
    since::open(state, caller, options, job, &catalog).await
}

/// A line that cannot be read ends the stream, or is listed where the client asked for that.
fn leave_out(sieve: &mut Sieve, error: ApiError) -> Result<(), ApiError> {
    let problem = error.problem();
    let (line, column) = (problem.line.unwrap_or(1), problem.column.unwrap_or(1));
    sieve.leave_out(SourceError::new(line, column, problem.detail.clone())).map_err(|_| error)
}

fn parse_line(number: u64, line: &[u8], max_depth: usize) -> Result<Value, ApiError> {
    body::parse_json(line, max_depth).map_err(|error| {
        let problem = error.problem();
        on_line(number, problem.code, &problem.detail).at(number, problem.column)
    })
}

fn on_line(number: u64, code: Code, detail: &str) -> ApiError {
    ApiError::new(code, format!("line {number}: {detail}")).at(number, None)
}

pub(super) fn check(state: &State, request: &JobRequest) -> Result<Options, ApiError> {
    let models = state.models.names();
    let rules = Rules {
        limits: &state.settings.limits,
        models: &models,
        check_schema: &*state.check_schema,
        now: state.clock.now(),
    };
    Options::of_request(request, &rules)
}

pub(super) fn inputs_of(
    state: &State,
    options: &Options,
    request: JobRequest,
) -> Result<(Inputs, Omissions), ApiError> {
    match (request.inputs, request.source) {
        (Some(inputs), None) => {
            some_inputs(inputs.len() as u64)?;
            Ok((source::of_list(request.task, inputs, &state.settings.limits)?, Omissions::default()))
        }
        (None, Some(document)) => source::of_document(&options.spec, &document),
        (None, None) => Err(ApiError::new(Code::InvalidRequest, "neither inputs nor source is given")),
        (Some(_), Some(_)) => Err(ApiError::new(Code::InvalidRequest, "both inputs and source are given")),
    }
}

fn some_inputs(count: u64) -> Result<(), ApiError> {
    match count {
        0 => Err(ApiError::new(Code::InvalidRequest, "there are no inputs").pointer("/inputs")),
        _ => Ok(()),
    }
}

/// Items of texts or messages.
pub(super) fn singles(options: &Options, inputs: Vec<Value>) -> Result<Vec<ItemDraft>, ApiError> {
    some_inputs(inputs.len() as u64)?;
    let place = |at: usize, input| {
        pipeline::input_item(&options.spec, input).map_err(|error| {
            ApiError::new(error.code(), format!("input {at}: {error}")).pointer(format!("/inputs/{at}"))
        })
    };
    inputs.into_iter().enumerate().map(|(at, input)| place(at, input)).collect()
}

fn new_job(
    caller: &Caller,
    options: &Options,
    idempotency_key: Option<String>,
    request_hash: Option<Vec<u8>>,
) -> NewJob {
    NewJob {
        id: JobId::new(),
        tenant: caller.tenant().into(),
        spec: options.spec.clone(),
        catalog: None,
        basis: None,
        class: options.class,
        weight: options.weight,
        idempotency_key,
        request_hash,
        expires_at: options.expires_at,
    }
}

/// Of the request as it was understood: blanks and the order of its own fields make no other request, the
/// order of a schema's keys does.
fn digest(head: &[u8], request: &JobRequest) -> Vec<u8> {
    let body = serde_json::to_vec(request).expect("a request came from JSON");
    Sha256::new().chain_update(head).chain_update(body).finalize().to_vec()
}

/// The job is committed, whatever happens while it is looked at once more.
async fn answer(state: &State, done: Done) -> Result<Response, ApiError> {
    let Done { submitted, options, left_out } = done;
    let row = state.store.job(submitted.job).await;
    let job = match row {
        Ok(Some(row)) => {
            if submitted.created {
                let task = row.spec.task.as_str();
                metric::count(Metric::JobsSubmitted, &[("task", task)], 1);
                let items = (row.counts.total - row.carried()).unsigned_abs();
                metric::count(Metric::ItemsSubmitted, &[("task", task)], items);
                if row.state.is_final() {
                    ended::tell(&state.store, row.id).await;
                }
            }
            let facts = view::Facts::gather(state, std::slice::from_ref(&row)).await;
            view::job(row, &facts)
        }
        Ok(None) if submitted.created => view::unread(submitted.job, &options, left_out, state.clock.now()),
        Ok(None) => return Err(ApiError::job_not_found(submitted.job)),
        Err(error) if submitted.created => {
            tracing::warn!(job = %submitted.job, %error, "a committed job could not be read back");
            view::unread(submitted.job, &options, left_out, state.clock.now())
        }
        Err(error) => return Err(error.into()),
    };
    let status = if submitted.created { StatusCode::ACCEPTED } else { StatusCode::OK };
    let location = HeaderValue::from_str(&format!("/v1/jobs/{}", submitted.job)).expect("a UUID is ASCII");
    Ok((status, [(header::LOCATION, location)], Json(job)).into_response())
}
