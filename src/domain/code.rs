//! Stable error codes: one table from which HTTP status and retry behaviour follow.
//!
//! A code is part of the API. It is never renamed; a new meaning gets a new code.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($variant:ident = $word:literal, $status:literal, $retry:literal, $about:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Code {
            $(#[doc = $about] $variant,)*
        }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The word on the wire and in the database.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $word,)* }
            }

            /// HTTP status of a response that carries this code.
            pub fn status(self) -> u16 {
                match self { $(Code::$variant => $status,)* }
            }

            /// Whether the same request or item may succeed later without a change.
            pub fn is_retryable(self) -> bool {
                match self { $(Code::$variant => $retry,)* }
            }

            /// One sentence for the documentation.
            pub fn about(self) -> &'static str {
                match self { $(Code::$variant => $about,)* }
            }
        }

        impl FromStr for Code {
            type Err = super::task::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Code::$variant),)*
                    _ => Err(super::task::UnknownWord(text.into(), "the error codes")),
                }
            }
        }
    };
}

codes! {
    // requests
    InvalidRequest = "invalid_request", 400, false, "The request is malformed; the detail names the place.";
    InvalidInput = "invalid_input", 422, false, "An input cannot be read; the detail names line and column.";
    InvalidSchema = "invalid_schema", 422, false, "The JSON Schema cannot be enforced; the detail names the keyword's path.";
    Unauthenticated = "unauthenticated", 401, false, "No valid API key was sent.";
    Forbidden = "forbidden", 403, false, "The API key lacks the scope that this needs.";
    RateLimited = "rate_limited", 429, true, "The API key's requests of this minute are used up.";
    QuotaExceeded = "quota_exceeded", 429, true, "Too many tokens of the API key wait already.";
    UnknownModel = "unknown_model", 404, false, "No model of this name is configured.";
    NotFound = "not_found", 404, false, "No such job, item or path.";
    MethodNotAllowed = "method_not_allowed", 405, false, "The path exists, the method does not.";
    IdempotencyConflict = "idempotency_conflict", 409, false, "The Idempotency-Key was used with another body.";
    InvalidState = "invalid_state", 409, false, "The job or model is in a state that does not allow this.";
    IncompatibleJob = "incompatible_job", 422, false, "The earlier job was asked differently, so that its answers cannot be carried over; the detail names the field.";
    TooLarge = "too_large", 413, false, "A limit on size or count is exceeded; the detail names it.";
    UnsupportedMediaType = "unsupported_media_type", 415, false, "The Content-Type is none that this path reads.";
    RequestTimeout = "request_timeout", 408, true, "The request or the awaited change took too long.";
    ModelNotReady = "model_not_ready", 503, true, "The model cannot serve now; the detail names its state.";
    ModelFailed = "model_failed", 502, false, "The model's load failed; the detail names the cause.";
    InsufficientMemory = "insufficient_memory", 507, false, "The model does not fit; the plan is attached.";
    Overloaded = "overloaded", 503, true, "A bounded queue is full.";
    DatabaseUnavailable = "database_unavailable", 503, true, "Postgres cannot be reached; nothing was accepted.";
    ShuttingDown = "shutting_down", 503, true, "The process is stopping.";
    Internal = "internal", 500, true, "A fault in adit; the log has the cause under the request id.";
    // items
    PromptTooLong = "prompt_too_long", 422, false, "Prompt and answer do not fit the model's context.";
    OutputTruncated = "output_truncated", 422, false, "The answer reached its token limit before the schema was complete.";
    InvalidAnswer = "invalid_answer", 422, false, "The answer does not satisfy the schema.";
    EngineFailed = "engine_failed", 500, true, "The engine failed on this item.";
    Poison = "poison", 500, false, "The item's worker died too often while it held the item.";
    StageFailed = "stage_failed", 500, false, "The results of the stage before could not be used.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
