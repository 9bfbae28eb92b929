//! What a client sends to make a job.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::domain;
use crate::domain::job::Class;
use crate::domain::task::Task;

/// `POST /v1/jobs` as JSON. Exactly one of `inputs` and `source` is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "task": "custom",
    "schema": {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"],
               "additionalProperties": false},
    "instructions": "Read the invoice and give its total.",
    "inputs": ["Invoice 7: two chairs at 40, delivery 5."]
}))]
pub struct JobRequest {
    pub task: Task,
    /// Serves every stage of the job; absent: each stage's own default model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// JSON Schema of each answer; required for `custom`, allowed for `chat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub schema: Option<Value>,
    /// What to extract, in words; for `custom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    #[serde(default, skip_serializing_if = "Generation::is_default")]
    pub generation: Generation,
    #[serde(default)]
    #[schema(default = "normal")]
    pub class: Class,
    /// Share among the jobs of the same class that wait for the same model, in percent of an ordinary job's;
    /// absent: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub weight: Option<i16>,
    /// Items that have not begun this long after submission end `expired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub expires_in_s: Option<u64>,
    /// Of schema tasks: facts of a lower confidence than this are marked for review; absent: 0.5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 1)]
    pub review_below: Option<f64>,
    /// `custom`: texts, or objects with a `text`. `chat`: lists of messages, or objects with `messages`.
    /// Schema tasks: table names, or tables in the catalog's form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<Value>>,
    /// One document that holds all inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// A document that inputs are read from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub format: Format,
    /// The document itself.
    pub text: String,
    /// Of `ddl`: which SQL is spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<Dialect>,
    /// Keep what can be read, and list in `left_out` what cannot, instead of refusing the document.
    #[serde(default)]
    pub lenient: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// SQL that defines tables, as people write it or `pg_dump --schema-only` and its like do.
    Ddl,
    /// A CSV of tables and columns.
    Csv,
    /// A JSON list of table names.
    Tables,
    /// The catalog's own JSON form.
    Catalog,
    /// dbt's `manifest.json`.
    Dbt,
    /// One JSON text or message list per line.
    Jsonl,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// Guessed from the text.
    #[default]
    Auto,
    Postgres,
    Mysql,
    Sqlite,
    Mssql,
}

/// How tokens are chosen. The default is greedy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// Upper bound of an answer's tokens; absent: the task decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_tokens: Option<u32>,
    /// A free string of an answer is closed when it has about this many bytes; absent: the task decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_string_bytes: Option<u32>,
    /// 0 or absent: greedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.0, maximum = 2.0)]
    pub temperature: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0.0, maximum = 1.0)]
    pub top_p: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub top_k: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub min_p: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl Generation {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Generation> for domain::job::Generation {
    fn from(wire: Generation) -> Self {
        let Generation { max_tokens, max_string_bytes, temperature, top_p, top_k, min_p, seed } = wire;
        Self { max_tokens, max_string_bytes, temperature, top_p, top_k, min_p, seed }
    }
}

impl From<domain::job::Generation> for Generation {
    fn from(domain: domain::job::Generation) -> Self {
        let domain::job::Generation { max_tokens, max_string_bytes, temperature, top_p, top_k, min_p, seed } =
            domain;
        Self { max_tokens, max_string_bytes, temperature, top_p, top_k, min_p, seed }
    }
}

/// Options of `POST /v1/jobs` as `application/x-ndjson`: the body is inputs only, one per line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    pub task: Task,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// JSON Schema of each answer, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// Keep the lines that can be read, and list in `left_out` those that cannot, instead of refusing the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lenient: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub weight: Option<i16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_string_bytes: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// What the header [`IDEMPOTENCY_KEY`] may hold, in bytes of visible ASCII.
pub const MAX_KEY_BYTES: usize = 255;
/// A repeated submission under the same key and with the same content answers the first one's job.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Media type of bodies with one JSON value per line.
pub const NDJSON: &str = "application/x-ndjson";
