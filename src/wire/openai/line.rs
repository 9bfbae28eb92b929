//! One line of a batch's input file, checked by itself: whatever is wrong with it concerns no other line.

use serde_json::{Map, Value};

use super::batch::ENDPOINT;
use super::request::{self, Rules};
use crate::domain::chat::{ChatRequest, Refusal};
use crate::domain::code::Code;
use crate::wire::depth;

/// Bytes of a custom_id.
const MAX_CUSTOM_ID: usize = 512;

/// A line as it was understood, as far as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub custom_id: Option<String>,
    pub request: Result<ChatRequest, Refusal>,
}

impl Line {
    pub fn refused(custom_id: Option<String>, refusal: Refusal) -> Self {
        Self { custom_id, request: Err(refusal) }
    }
}

/// Reads a line, without its end.
pub fn read(bytes: &[u8], rules: &Rules) -> Line {
    let limit = rules.max_json_depth;
    if let Some((_, column)) = depth::exceeded(bytes, limit) {
        let message = format!("nested deeper than limits.max_json_depth ({limit}) at column {column}");
        return Line::refused(None, Refusal::new(Code::TooLarge, message));
    }
    let mut fields = match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => {
            return Line::refused(None, Refusal::new(Code::InvalidRequest, "the line is no JSON object"));
        }
        Err(error) => {
            let message = format!("the line is no JSON: {error}");
            return Line::refused(None, Refusal::new(Code::InvalidRequest, message));
        }
    };
    let (custom_id, problem) = match fields.remove("custom_id") {
        Some(Value::String(id)) if (1..=MAX_CUSTOM_ID).contains(&id.len()) => (Some(id), None),
        Some(_) => (None, Some(format!("custom_id is no text of 1 to {MAX_CUSTOM_ID} bytes"))),
        None => (None, Some("custom_id is missing".into())),
    };
    if let Some(message) = problem {
        return Line::refused(None, Refusal::of("custom_id", message));
    }
    Line { custom_id, request: request_of(fields, rules) }
}

fn request_of(mut fields: Map<String, Value>, rules: &Rules) -> Result<ChatRequest, Refusal> {
    for (name, wanted) in [("method", "POST"), ("url", ENDPOINT)] {
        match fields.remove(name) {
            Some(Value::String(word)) if word == wanted => {}
            Some(other) => return Err(Refusal::of(name, format!("{name} is {other}, not \"{wanted}\""))),
            None => return Err(Refusal::of(name, format!("{name} is missing"))),
        }
    }
    let body = fields.remove("body").ok_or_else(|| Refusal::of("body", "body is missing"))?;
    if let Some(name) = fields.keys().next() {
        return Err(Refusal::of(name, format!("a line has no field '{name}'")));
    }
    let inside = |mut refusal: Refusal| {
        refusal.param = Some(refusal.param.map_or("body".into(), |param| format!("body.{param}")));
        refusal
    };
    let (request, delivery) = request::check(body, rules).map_err(inside)?;
    if delivery.stream {
        return Err(Refusal::of("body.stream", "a batch's answers are not streamed"));
    }
    Ok(request)
}
