//! A chat completion: what is asked, once it has been checked, and what is said of the answer's tokens.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::code::Code;
use super::job::Generation;
use super::message::Message;

/// A request that can be acted on. Lines of a batch are stored as this, so that each may differ in everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatRequest {
    pub model: String,
    pub messages: Vec<Message>,
    #[serde(default)]
    pub format: Format,
    #[serde(default)]
    pub generation: Generation,
    /// Texts that end the answer and are not part of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// How many alternatives to name beside each token; `None` says nothing of probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<u8>,
}

/// What form the answer has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Format {
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    JsonSchema {
        schema: Value,
    },
}

impl Format {
    /// The schema that the answer obeys; `None` leaves it free.
    pub fn schema(&self) -> Option<Value> {
        match self {
            Format::Text => None,
            Format::JsonObject => Some(json!({"type": "object"})),
            Format::JsonSchema { schema } => Some(schema.clone()),
        }
    }
}

/// Why a request cannot be acted on, or its answer not be given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
    /// The request's field, as `messages[0].role`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
}

impl Refusal {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: None }
    }

    pub fn of(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: Code::InvalidRequest, message: message.into(), param: Some(param.into()) }
    }
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model ended it, the schema allows nothing more, or a stop text came.
    Stop,
    /// The bound on tokens was reached.
    Length,
}

impl Finish {
    pub fn as_str(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
        }
    }
}

/// What was said: the stored result of a batch's line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub content: String,
    pub finish: Finish,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<TokenLogprob>>,
}

/// A token of the answer with the model's own probability of it: before temperature, cuts and grammar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    #[serde(flatten)]
    pub token: Alternative,
    /// The most probable tokens at this place, most probable first.
    #[serde(default)]
    pub top: Vec<Alternative>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    /// As text; bytes that are no UTF-8 by themselves show as U+FFFD.
    pub token: String,
    pub logprob: f32,
    pub bytes: Vec<u8>,
}
