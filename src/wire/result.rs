//! Results of items, as pages and as lines.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::domain::code::Code;
use crate::domain::item::OutcomeKind;
use crate::domain::task::Stage;

use super::job::Usage;

/// How one item ended. Also one line of the NDJSON stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ItemResult {
    /// The item's place in its job, from 0; of texts, the line or index of the input.
    pub seq: i64,
    pub stage: Stage,
    pub outcome: OutcomeKind,
    /// Of a `succeeded` item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Of a `failed` item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ItemError>,
    pub usage: Usage,
    /// Wall time from hand-over to the engine to the last token.
    pub latency_ms: i64,
}

/// Why an item failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ItemError {
    pub code: Code,
    pub message: String,
}

/// A page of results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResultPage {
    pub results: Vec<ItemResult>,
    /// Give as `after` for what follows; absent when there was nothing after the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Whether the job had ended when the page was read: if not, later pages may still grow.
    pub complete: bool,
}

/// Page and filter of `GET /v1/jobs/{id}/results`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ResultsQuery {
    /// `next` of the page before, or the cursor of the last line that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Results of one page; at most `limits.max_page`. The NDJSON stream has no bound unless this is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1)]
    pub limit: Option<u32>,
    /// Only results of this outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeKind>,
    /// Of the NDJSON stream: wait for results of a running job until it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
}

/// `GET /v1/jobs/{id}/export`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    pub format: ExportFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    Json,
    /// Mermaid `erDiagram`.
    Mermaid,
    /// OWL in Turtle.
    Turtle,
    Csv,
    /// dbt `schema.yml`.
    Dbt,
}

impl ExportFormat {
    pub const ALL: [ExportFormat; 5] = [
        ExportFormat::Json,
        ExportFormat::Mermaid,
        ExportFormat::Turtle,
        ExportFormat::Csv,
        ExportFormat::Dbt,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ExportFormat::Json => "json",
            ExportFormat::Mermaid => "mermaid",
            ExportFormat::Turtle => "turtle",
            ExportFormat::Csv => "csv",
            ExportFormat::Dbt => "dbt",
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            ExportFormat::Json => "application/json",
            ExportFormat::Mermaid => "text/vnd.mermaid; charset=utf-8",
            ExportFormat::Turtle => "text/turtle; charset=utf-8",
            ExportFormat::Csv => "text/csv; charset=utf-8",
            ExportFormat::Dbt => "application/yaml",
        }
    }
}
