//! The proof behind Ready: a fixed prompt through the whole path gives finite logits (the engine refuses
//! others) and an answer that its schema admits.

use std::time::Duration;

use serde_json::{Value, json};

use super::error::ModelError;
use super::served::Served;
use crate::domain::message::{Message, Role};
use crate::engine::request::{EngineError, Request, Sampling};

const MAX_TOKENS: u32 = 64;

pub async fn run(served: &Served, timeout: Duration) -> Result<(), ModelError> {
    let failed = |cause: String| ModelError::SelfTest { model: served.name().into(), cause };
    let schema = schema();
    let grammar = served
        .compiler()
        .compile(&schema, Some(16))
        .map_err(|cause| failed(format!("its schema: {cause}")))?;
    let prompt = [Message {
        role: Role::User,
        content: "Is a table of customers an entity or an event? Answer in JSON.".into(),
    }];
    let request = Request {
        prompt: served.render(&prompt)?.into(),
        adapter: served.adapter(),
        grammar: Some(grammar),
        sampling: Sampling::default(),
        max_tokens: MAX_TOKENS,
        stop: served.stop(),
        priority: u8::MAX,
        group: 0,
        logprobs: None,
        branches: false,
    };
    let answer = match tokio::time::timeout(timeout, served.engine().generate(request)).await {
        Err(_) => return Err(failed(format!("no answer within {} ms", timeout.as_millis()))),
        Ok(Err(EngineError::Closed)) => return Err(ModelError::EngineEnded),
        Ok(Err(cause)) => return Err(failed(cause.to_string())),
        Ok(Ok(completion)) => served.decode(&completion.tokens),
    };
    check(&answer).map_err(failed)
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"table": {"const": "customer"}, "kind": {"enum": ["entity", "event"]}},
        "required": ["table", "kind"],
        "additionalProperties": false,
    })
}

/// The schema's own rules, read off the parsed answer.
fn check(answer: &str) -> Result<(), String> {
    let value: Value =
        serde_json::from_str(answer).map_err(|cause| format!("`{answer}` is no JSON: {cause}"))?;
    let is_valid = value.as_object().is_some_and(|fields| fields.len() == 2)
        && value["table"] == "customer"
        && (value["kind"] == "entity" || value["kind"] == "event");
    if is_valid { Ok(()) } else { Err(format!("`{answer}` does not satisfy the schema")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_schemas_answers_pass() {
        assert!(check(r#"{"table":"customer","kind":"event"}"#).is_ok());
        for wrong in ["", "{}", r#"{"table":"customer","kind":"x"}"#, r#"{"table":"customer"}"#] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
