//! OpenAI's JSON, field by field, so that an unmodified client works: files, batches, chat completions.
//!
//! What a client of it does not know (a batch's `line` in its error file, a model's state) is an extra field.
//! What it may ask and this service does not do is refused by name, never ignored.

pub mod batch;
pub mod chat;
pub mod file;
pub mod line;
pub mod request;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use crate::domain::chat::Refusal;
use crate::domain::code::Code;

/// The body of every error under these paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = OpenAiError)]
pub struct ErrorBody {
    pub error: ErrorObject,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = OpenAiErrorObject)]
pub struct ErrorObject {
    pub message: String,
    /// `invalid_request_error` where the request is at fault, `server_error` where we are.
    #[serde(rename = "type")]
    pub kind: String,
    /// The field that is at fault, if it is one.
    pub param: Option<String>,
    /// Stable word; the table at /docs says what each means.
    pub code: Option<String>,
}

/// The word that OpenAI's clients know, where there is one.
pub fn word(code: Code) -> &'static str {
    match code {
        Code::UnknownModel => "model_not_found",
        Code::Unauthenticated => "invalid_api_key",
        Code::RateLimited => "rate_limit_exceeded",
        Code::PromptTooLong => "context_length_exceeded",
        other => other.as_str(),
    }
}

/// OpenAI answers 400 to what cannot be processed. An answer that has not the form that was asked for is no
/// fault of the request.
pub fn status(code: Code) -> u16 {
    match (code, code.status()) {
        (Code::InvalidAnswer, _) => 500,
        (_, 422) => 400,
        (_, other) => other,
    }
}

impl ErrorBody {
    pub fn new(code: Code, message: impl Into<String>, param: Option<String>) -> Self {
        let kind = if status(code) < 500 { "invalid_request_error" } else { "server_error" };
        let error =
            ErrorObject { message: message.into(), kind: kind.into(), param, code: Some(word(code).into()) };
        Self { error }
    }

    pub fn of(refusal: &Refusal) -> Self {
        Self::new(refusal.code, &refusal.message, refusal.param.clone())
    }
}

impl From<&Problem> for ErrorBody {
    fn from(problem: &Problem) -> Self {
        let message = match (&problem.line, &problem.column) {
            (Some(line), Some(column)) => format!("{} (line {line}, column {column})", problem.detail),
            _ => problem.detail.clone(),
        };
        let param = problem.pointer.as_deref().map(|p| p.trim_start_matches('/').replace('/', "."));
        Self::new(problem.code, message, param)
    }
}

/// What an omitted limit of a page means, and the most that may be asked.
pub const DEFAULT_PAGE: u32 = 20;
pub const MAX_PAGE: u32 = 100;
