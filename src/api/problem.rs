//! Errors of handlers, and their way onto the wire.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::domain::chat::Refusal;
use crate::domain::code::Code;
use crate::domain::id::JobId;
use crate::extract::ExtractError;
use crate::extract::source::SourceError;
use crate::models::error::ModelError;
use crate::store::StoreError;
use crate::wire::openai::{self, ErrorBody};
use crate::wire::problem::{MEDIA_TYPE, Problem};

use super::state::SchemaIssue;

/// A problem on its way to the client, with a cause that stays in the log.
#[derive(Debug)]
pub struct ApiError {
    problem: Box<Problem>,
    cause: Option<Arc<str>>,
}

/// What the log says about a response, beside what the client sees.
#[derive(Clone)]
pub struct Cause(pub Arc<str>);

impl ApiError {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { problem: Box::new(Problem::new(code, detail)), cause: None }
    }

    /// A fault of ours or of the database: the client learns the code, the log the cause.
    pub fn hidden(code: Code, cause: &dyn Display) -> Self {
        let detail = match code {
            Code::DatabaseUnavailable => "Postgres cannot be reached now; nothing was written",
            _ => "the log has the cause under the request's id",
        };
        Self { problem: Box::new(Problem::new(code, detail)), cause: Some(cause.to_string().into()) }
    }

    pub fn job_not_found(job: JobId) -> Self {
        Self::new(Code::NotFound, format!("no job {job}"))
    }

    /// Line and column of the body, from 1.
    pub fn at(mut self, line: u64, column: Option<u64>) -> Self {
        self.problem.line = Some(line);
        self.problem.column = column;
        self
    }

    pub fn pointer(mut self, pointer: impl Into<String>) -> Self {
        self.problem.pointer = Some(pointer.into());
        self
    }

    /// When asking again may help.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.problem.retry_after_s = Some(wait.as_secs_f64().ceil().max(1.0) as u64);
        self
    }

    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = render(&self.problem, Shape::Problem);
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(Cause(cause));
        }
        response.extensions_mut().insert(*self.problem);
        response
    }
}

/// Which form an error takes; it follows from the request's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Problem,
    /// OpenAI's error object, for clients that know no other.
    OpenAi,
    /// A problem that carries OpenAI's error object as well: clients of either kind ask for models.
    Both,
}

impl Shape {
    pub fn of(path: &str) -> Self {
        let is_under =
            |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let openai = ["/v1/files", "/v1/batches", "/v1/chat"].into_iter().any(is_under);
        match openai {
            true => Shape::OpenAi,
            false if is_under("/v1/models") => Shape::Both,
            false => Shape::Problem,
        }
    }
}

/// The response of a problem. [`super::layers::observe`] renders it again once it knows the request's id.
pub fn render(problem: &Problem, shape: Shape) -> Response {
    let openai = || serde_json::to_value(ErrorBody::from(problem)).expect("an error is texts");
    let own = || serde_json::to_value(problem).expect("a problem has only strings and numbers");
    let (status, media_type, body) = match shape {
        Shape::Problem => (problem.status, MEDIA_TYPE, own()),
        Shape::OpenAi => (openai::status(problem.code), "application/json", openai()),
        Shape::Both => {
            let mut both = own();
            both["error"] = openai()["error"].take();
            (problem.status, MEDIA_TYPE, both)
        }
    };
    let mut response = rendered(problem.code, status, media_type, body.to_string().into_bytes());
    if let Some(seconds) = problem.retry_after_s.or_else(|| retry_after_s(problem.code)) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn rendered(code: Code, status: u16, media_type: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    if code == Code::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// When asking again may help, in seconds.
fn retry_after_s(code: Code) -> Option<u64> {
    match code {
        Code::RateLimited => Some(1),
        // nobody knows when enough of what waits will have ended
        Code::QuotaExceeded => Some(30),
        Code::Overloaded => Some(1),
        Code::DatabaseUnavailable => Some(2),
        Code::ModelNotReady | Code::ShuttingDown => Some(5),
        _ => None,
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error.code() {
            code @ (Code::DatabaseUnavailable | Code::Internal) => Self::hidden(code, &error),
            code => Self::new(code, error.to_string()),
        }
    }
}

impl From<ModelError> for ApiError {
    fn from(error: ModelError) -> Self {
        let mut api = Self::new(error.code(), error.to_string());
        if let ModelError::InsufficientMemory { plan } = error {
            api.problem.plan = Some((*plan).into());
        }
        api
    }
}

impl From<ExtractError> for ApiError {
    fn from(error: ExtractError) -> Self {
        match error.code() {
            Code::Internal => Self::hidden(Code::Internal, &error),
            code => Self::new(code, error.to_string()),
        }
    }
}

impl From<SourceError> for ApiError {
    fn from(error: SourceError) -> Self {
        Self::new(error.code(), error.to_string()).at(error.line, Some(error.column)).pointer("/source/text")
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, message, param } = refusal;
        let error = match code {
            Code::Internal => Self::hidden(code, &message),
            code => Self::new(code, message),
        };
        match param {
            Some(param) => error.pointer(format!("/{}", param.replace('.', "/"))),
            None => error,
        }
    }
}

impl From<SchemaIssue> for ApiError {
    fn from(issue: SchemaIssue) -> Self {
        Self::new(issue.code, issue.message).pointer(format!("/schema{}", issue.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_status_503_says_when_to_come_back() {
        for code in Code::ALL {
            let response = ApiError::new(*code, "x").into_response();
            assert_eq!(response.status().as_u16(), code.status());
            let says = response.headers().contains_key(header::RETRY_AFTER);
            assert_eq!(says, matches!(code.status(), 503 | 429), "{code}");
        }
    }

    #[test]
    fn hidden_causes_stay_hidden() {
        let error = ApiError::hidden(Code::Internal, &"relation \"secrets\" does not exist");
        assert!(!serde_json::to_string(error.problem()).unwrap().contains("secrets"));
        assert!(error.into_response().extensions().get::<Cause>().unwrap().0.contains("secrets"));
    }
}
