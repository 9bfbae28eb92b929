//! One result as a line of its batch's output or error file.

use serde_json::{Value, json};

use crate::domain::chat::Answer;
use crate::domain::code::Code;
use crate::domain::id::BatchId;
use crate::domain::item::Outcome;
use crate::extract::item::{Ask, LineItem};
use crate::store::result::ResultRow;
use crate::wire::openai::batch::{LineError, LineResponse, ResponseLine};
use crate::wire::openai::chat::Head;
use crate::wire::openai::{self, ErrorBody};

/// With the newline.
pub fn line(batch: BatchId, row: ResultRow) -> Vec<u8> {
    let name = format!("{}_{}", batch.0.simple(), row.seq);
    let line = match serde_json::from_value::<LineItem>(row.input.clone()) {
        Ok(item) => of_item(&name, item, row),
        Err(error) => {
            // a hand in the tables; the other lines are not to suffer for it
            tracing::error!(%batch, seq = row.seq, %error, "an item of a batch cannot be read");
            not_run(&name, None, None, Code::Internal.as_str(), Code::Internal.about(), None)
        }
    };
    let mut bytes = serde_json::to_vec(&line).expect("a line is texts and finite numbers");
    bytes.push(b'\n');
    bytes
}

fn of_item(name: &str, item: LineItem, row: ResultRow) -> ResponseLine {
    let LineItem { line, custom_id, ask } = item;
    let no_run = |code: &str, message: &str, param: Option<String>| {
        not_run(name, custom_id.clone(), Some(line), code, message, param)
    };
    match (row.outcome, ask) {
        (Outcome::Cancelled, _) => {
            no_run("batch_cancelled", "The batch was cancelled before this request ran.", None)
        }
        (Outcome::Expired, _) => {
            no_run("batch_expired", "The completion window ended before this request ran.", None)
        }
        (_, Ask::Refused(refusal)) => no_run(openai::word(refusal.code), &refusal.message, refusal.param),
        (Outcome::Failed { code, message }, Ask::Request(_)) => {
            let body = serde_json::to_value(ErrorBody::new(code, message, None));
            response(name, custom_id, Some(line), openai::status(code), body.expect("it is texts"))
        }
        (Outcome::Succeeded { output }, Ask::Request(request)) => {
            let created = row.finished_at.map_or(0, |at| at.timestamp());
            let head = Head { id: format!("chatcmpl-{name}"), created, model: request.model };
            let body = match serde_json::from_value::<Answer>(output) {
                Ok(said) => {
                    let completion = head.completion(said.content, said.finish, said.logprobs, row.usage);
                    serde_json::to_value(completion).expect("it is texts and finite numbers")
                }
                Err(error) => json!({"error": {"message": error.to_string()}}),
            };
            response(name, custom_id, None, 200, body)
        }
    }
}

fn response(
    name: &str,
    custom_id: Option<String>,
    line: Option<u64>,
    status_code: u16,
    body: Value,
) -> ResponseLine {
    let response = LineResponse { status_code, request_id: format!("req_{name}"), body };
    ResponseLine { id: format!("batch_req_{name}"), custom_id, line, response: Some(response), error: None }
}

fn not_run(
    name: &str,
    custom_id: Option<String>,
    line: Option<u64>,
    code: &str,
    message: &str,
    param: Option<String>,
) -> ResponseLine {
    let error = LineError { code: code.into(), message: message.into(), param };
    ResponseLine { id: format!("batch_req_{name}"), custom_id, line, response: None, error: Some(error) }
}
