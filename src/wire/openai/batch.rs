//! Batches: what is asked, how one stands, and the lines of its files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::domain::batch::{BatchError, BatchState};
use crate::domain::chat::Refusal;

/// The one path that lines may ask for.
pub const ENDPOINT: &str = "/v1/chat/completions";
/// OpenAI's bounds on metadata.
pub const MAX_METADATA: usize = 16;
pub const MAX_METADATA_KEY: usize = 64;
pub const MAX_METADATA_VALUE: usize = 512;

/// `POST /v1/batches`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchRequest {
    pub input_file_id: String,
    /// `/v1/chat/completions`.
    pub endpoint: String,
    /// `24h`, or another time from `1m` to `30d`: minutes, hours or days. What has not run by then expires.
    pub completion_window: String,
    /// At most 16 pairs of texts; keys of 64 characters, values of 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// When output and error file go away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_expires_after: Option<ExpiresAfter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpiresAfter {
    /// `created_at`.
    pub anchor: String,
    #[schema(minimum = 3600, maximum = 2592000)]
    pub seconds: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Batch {
    pub id: String,
    /// `batch`.
    pub object: String,
    pub endpoint: String,
    /// Of a batch whose lines all name the same.
    pub model: Option<String>,
    /// Why the batch `failed`; single lines that cannot be run are in the error file instead.
    pub errors: Option<BatchErrors>,
    pub input_file_id: String,
    pub completion_window: String,
    pub status: BatchState,
    /// As soon as a line has been answered; readable at once, see `X-Incomplete`.
    pub output_file_id: Option<String>,
    /// As soon as a line could not be answered.
    pub error_file_id: Option<String>,
    /// Seconds since the epoch, as all that follow.
    pub created_at: i64,
    pub in_progress_at: Option<i64>,
    pub expires_at: Option<i64>,
    pub finalizing_at: Option<i64>,
    pub completed_at: Option<i64>,
    pub failed_at: Option<i64>,
    pub expired_at: Option<i64>,
    pub cancelling_at: Option<i64>,
    pub cancelled_at: Option<i64>,
    pub request_counts: RequestCounts,
    pub usage: Option<BatchUsage>,
    pub metadata: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchErrors {
    /// `list`.
    pub object: String,
    pub data: Vec<BatchErrorView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BatchError)]
pub struct BatchErrorView {
    pub code: String,
    /// Of the input file, from 1.
    pub line: Option<u64>,
    pub message: String,
    pub param: Option<String>,
}

impl From<BatchError> for BatchErrorView {
    fn from(error: BatchError) -> Self {
        let BatchError { code, line, message, param } = error;
        Self { code, line, message, param }
    }
}

/// Lines by what became of them; `completed` are in the output file, `failed` in the error file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequestCounts {
    pub total: i64,
    pub completed: i64,
    /// Those that expired or were cancelled before they ran among them.
    pub failed: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchUsage {
    pub input_tokens: u64,
    pub input_tokens_details: InputDetails,
    pub output_tokens: u64,
    pub output_tokens_details: OutputDetails,
    pub total_tokens: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InputDetails {
    pub cached_tokens: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputDetails {
    /// Always 0.
    pub reasoning_tokens: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BatchList {
    /// `list`.
    pub object: String,
    pub data: Vec<Batch>,
    pub first_id: Option<String>,
    pub last_id: Option<String>,
    pub has_more: bool,
}

/// `GET /v1/batches`, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BatchesQuery {
    /// The last batch of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<u32>,
}

/// One line of an output or error file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResponseLine {
    pub id: String,
    pub custom_id: Option<String>,
    /// Of the input file, from 1; only in the error file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Null for a line that was not run.
    pub response: Option<LineResponse>,
    /// Why it was not run.
    pub error: Option<LineError>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LineResponse {
    pub status_code: u16,
    pub request_id: String,
    /// A chat completion, or an error.
    pub body: Value,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LineError {
    pub code: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
}

/// Shortest and longest window, in minutes.
const WINDOW_MINUTES: std::ops::RangeInclusive<i64> = 1..=30 * 24 * 60;

/// Seconds of a `completion_window`.
pub fn window_s(text: &str) -> Result<i64, Refusal> {
    let refused = || {
        let message = format!("completion_window '{text}' is not '24h' or another time from 1m to 30d");
        Refusal::of("completion_window", message)
    };
    let unit = text.chars().next_back().ok_or_else(refused)?;
    let minutes: i64 = match unit {
        'm' => 1,
        'h' => 60,
        'd' => 24 * 60,
        _ => return Err(refused()),
    };
    let digits = &text[..text.len() - 1];
    let is_number = !digits.is_empty() && digits.len() <= 6 && digits.bytes().all(|b| b.is_ascii_digit());
    let count: i64 = Some(digits).filter(|_| is_number).and_then(|d| d.parse().ok()).ok_or_else(refused)?;
    match count * minutes {
        total if WINDOW_MINUTES.contains(&total) => Ok(total * 60),
        _ => Err(refused()),
    }
}

/// Metadata within OpenAI's bounds.
pub fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if metadata.len() > MAX_METADATA {
        return Err(Refusal::of("metadata", format!("metadata has more than {MAX_METADATA} pairs")));
    }
    for (key, value) in metadata {
        if key.is_empty() || key.chars().count() > MAX_METADATA_KEY {
            let message = format!("the key '{key}' is not 1 to {MAX_METADATA_KEY} characters long");
            return Err(Refusal::of("metadata", message));
        }
        if value.chars().count() > MAX_METADATA_VALUE {
            let message = format!("the value of '{key}' is longer than {MAX_METADATA_VALUE} characters");
            return Err(Refusal::of(format!("metadata.{key}"), message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read() {
        for (text, seconds) in
            [("24h", 86_400), ("1h", 3_600), ("1m", 60), ("30d", 2_592_000), ("7d", 604_800)]
        {
            assert_eq!(window_s(text).unwrap(), seconds, "{text}");
        }
        for text in
            ["", "h", "24", "0h", "31d", "-1h", "1.5h", "+1h", "99999999999h", "1w", "24 h", "é", "1é"]
        {
            assert_eq!(window_s(text).unwrap_err().param.as_deref(), Some("completion_window"), "{text}");
        }
    }
}
