//! Errors as `application/problem+json` (RFC 9457).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::code::Code;

use super::model::MemoryPlan;

/// Media type of every error outside the OpenAI-shaped paths.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong, in words for a person (`title`, `detail`) and for a program (`code`, the places).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Reference into the table of codes at `/docs`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code's meaning, the same for every problem of this code.
    pub title: String,
    pub status: u16,
    /// This occurrence: which limit, which line, which state.
    pub detail: String,
    pub code: Code,
    /// `urn:uuid:` of the request, as in the `x-request-id` header and in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// JSON Pointer to the offending place of the request's body or schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Line of the body, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Column of that line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    /// Seconds after which asking again may help, as in the `Retry-After` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// The bytes that a refused load needs, and those it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<MemoryPlan>,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/docs#{code}"),
            title: code.about().to_string(),
            status: code.status(),
            detail: detail.into(),
            code,
            instance: None,
            pointer: None,
            line: None,
            column: None,
            retry_after_s: None,
            plan: None,
        }
    }
}
