//! Files: what clients upload, and what batches are read back through.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct File {
    pub id: String,
    /// `file`.
    pub object: String,
    /// Of the file of a batch that goes on: 0.
    pub bytes: i64,
    /// Seconds since the epoch.
    pub created_at: i64,
    pub expires_at: Option<i64>,
    pub filename: String,
    /// `batch` for requests, `batch_output` for what a batch answered.
    pub purpose: String,
    /// `processed`, or `uploaded` for the file of a batch that goes on.
    pub status: String,
    /// Always null.
    pub status_details: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileList {
    /// `list`.
    pub object: String,
    pub data: Vec<File>,
    pub first_id: Option<String>,
    pub last_id: Option<String>,
    pub has_more: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileDeleted {
    pub id: String,
    /// `file`.
    pub object: String,
    pub deleted: bool,
}

/// The form of `POST /v1/files`.
#[derive(ToSchema)]
pub struct FileForm {
    /// Requests, one JSON object per line: `custom_id`, `method`, `url`, `body`.
    #[schema(format = Binary)]
    pub file: String,
    /// `batch`.
    pub purpose: String,
    /// `created_at`.
    #[schema(rename = "expires_after[anchor]")]
    pub expires_after_anchor: Option<String>,
    /// Seconds from then, 3600 to 2592000.
    #[schema(rename = "expires_after[seconds]", minimum = 3600, maximum = 2592000)]
    pub expires_after_seconds: Option<i64>,
}

/// `GET /v1/files`. The newest first unless `order` says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FilesQuery {
    /// `batch` or `batch_output`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 10000)]
    pub limit: Option<u32>,
    /// `asc` or `desc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// The last file of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

pub const MAX_FILES_PAGE: u32 = 10_000;
/// Seconds that a file may be kept for.
pub const EXPIRES_AFTER_S: std::ops::RangeInclusive<i64> = 3_600..=2_592_000;
