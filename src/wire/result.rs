//! Results of items, as pages and as lines.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
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
    /// What was asked: a text, or a part of the schema. Only where the query asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// Of a `succeeded` item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Of a `failed` item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ItemError>,
    pub usage: Usage,
    /// Wall time from hand-over to the engine to the last token.
    pub latency_ms: i64,
    /// How sure the model was of what it was least sure of: a probability. Of a `succeeded` item whose schema left
    /// it a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// Of a `custom` item, how sure the model was of each value that the schema left it a choice about, by JSON
    /// pointer into `output`. Facts of the other tasks carry their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_confidence: Option<BTreeMap<String, f64>>,
    /// Tries since the item was submitted or sent back by a retry; 0 of an item that was cancelled or expired.
    #[serde(default)]
    pub attempts: i16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
}

/// Why an item failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ItemError {
    pub code: Code,
    pub message: String,
}

/// Items of a job that failed with the same code in the same stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorGroup {
    pub code: Code,
    /// What the code means.
    pub about: String,
    pub stage: Stage,
    pub items: i64,
    /// `seq` of the first of them, and its message.
    pub first: i64,
    pub message: String,
    /// Whether a retry would run them again: the next stage has used an earlier one's failures already.
    pub can_retry: bool,
}

/// `GET /v1/jobs/{id}/errors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorGroups {
    /// Most frequent first.
    pub errors: Vec<ErrorGroup>,
}

/// A page of results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResultPage {
    pub results: Vec<ItemResult>,
    /// Give as `after` for what follows; absent when there was nothing after the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
    /// Whether the job had ended when the page was read. If not, items may still end anywhere in the job,
    /// also before `next`: a client that must miss none reads again from the start, or follows the stream.
    pub complete: bool,
}

/// Page and filter of `GET /v1/jobs/{id}/results`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ResultsQuery {
    /// `seq` of the last result that was read; absent: from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// Results of one page; at most `limits.max_page`. The NDJSON stream has no bound unless this is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1)]
    pub limit: Option<u32>,
    /// Only results of this outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeKind>,
    /// Only results of a lower confidence than this, from 0 to 1; not together with `outcome`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0, maximum = 1)]
    pub below: Option<f64>,
    /// With what was asked of each item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<bool>,
    /// Of the NDJSON stream: wait for the results of a running job until it ends. Lines then come in order of
    /// `seq` without gaps, so that `after` the last line resumes with none missed and none doubled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
}

/// `GET /v1/jobs/{id}/schema`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SchemaQuery {
    /// `seq` of the result.
    #[param(minimum = 0)]
    pub seq: i64,
}

/// `GET /v1/jobs/{id}/export`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// `json`, `mermaid`, `turtle`, `r2rml`, `shacl`, `csv`, `dbt` or `dot`.
    pub format: ExportFormat,
    /// Mark facts of a lower confidence than this for review, from 0 to 1; absent: the job's own `review_below`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0, maximum = 1)]
    pub review_below: Option<f64>,
}

impl From<ExportFormat> for ExportQuery {
    fn from(format: ExportFormat) -> Self {
        Self { format, review_below: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    Json,
    /// Mermaid `erDiagram`.
    Mermaid,
    /// OWL in Turtle.
    Turtle,
    /// R2RML in Turtle: how the tables' rows are instances of `turtle`'s classes.
    R2rml,
    /// SHACL in Turtle: shapes over `turtle`'s classes.
    Shacl,
    Csv,
    /// dbt `schema.yml`.
    Dbt,
    /// A GraphViz digraph.
    Dot,
}

impl ExportFormat {
    pub const ALL: [ExportFormat; 8] = [
        ExportFormat::Json,
        ExportFormat::Mermaid,
        ExportFormat::Turtle,
        ExportFormat::R2rml,
        ExportFormat::Shacl,
        ExportFormat::Csv,
        ExportFormat::Dbt,
        ExportFormat::Dot,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ExportFormat::Json => "json",
            ExportFormat::Mermaid => "mermaid",
            ExportFormat::Turtle => "turtle",
            ExportFormat::R2rml => "r2rml",
            ExportFormat::Shacl => "shacl",
            ExportFormat::Csv => "csv",
            ExportFormat::Dbt => "dbt",
            ExportFormat::Dot => "dot",
        }
    }
}
