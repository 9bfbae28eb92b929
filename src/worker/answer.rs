//! One item's way from its input to its end: prompt, tokens, grammar, engine, check.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::context::JobContext;
use super::request::{Turn, request};
use super::speech::{self, Speech};
use crate::domain::chat::{Answer, Finish, Refusal, TokenLogprob};
use crate::domain::code::Code;
use crate::domain::confidence::ItemConfidence;
use crate::domain::id::Seq;
use crate::domain::item::{ItemDraft, NewResult, Outcome};
use crate::domain::usage::Usage;
use crate::engine::request::{Branch, Completion, EngineError, Request};
use crate::extract::answer::Checked;
use crate::extract::confidence::Decision;
use crate::extract::item::LineItem;
use crate::extract::{answer, prompt};
use crate::models::served::Served;

/// What became of an item that a worker has taken up.
#[derive(Debug)]
pub enum Ending {
    /// It ended, for good.
    Ended(NewResult),
    /// It failed in a way that may pass.
    Again { seq: Seq, code: Code, message: String },
    /// The engine went away under it, which is not the item's doing: it goes back untouched.
    GivenBack,
}

/// What the model said to an item.
struct Said {
    text: String,
    finish: Finish,
    logprobs: Vec<TokenLogprob>,
    /// Choices that the grammar left, if they were asked for and the text is the tokens' bytes.
    decisions: Option<Vec<Decision>>,
    usage: Usage,
}

/// Answers one item. `stage` and `input` are the item's own; `context` is its job's.
///
/// Dropping the future takes the sequence out of the engine within one step.
pub async fn answer(
    served: &Arc<Served>,
    context: &JobContext,
    seq: Seq,
    draft: &ItemDraft,
    priority: u8,
) -> Ending {
    let begun = Instant::now();
    let (request, stop) = match asked(served, context, seq, draft, priority) {
        Ok(asked) => asked,
        Err(refusal) => return ended(seq, failed(refusal), Usage::default(), begun, None),
    };
    let wants_logprobs = request.logprobs.is_some();
    let said = match say(served, request, stop).await {
        Ok(said) => said,
        Err(EngineError::Closed | EngineError::QueueFull { .. }) => return Ending::GivenBack,
        Err(error) => {
            let code = engine_code(&error);
            let message = error.to_string();
            if code.is_retryable() {
                return Ending::Again { seq, code, message };
            }
            return ended(seq, failed(Refusal::new(code, message)), Usage::default(), begun, None);
        }
    };
    let usage = said.usage;
    match result(context, draft, said, wants_logprobs) {
        Ok(Checked { output, confidence }) => {
            ended(seq, Outcome::Succeeded { output }, usage, begun, confidence)
        }
        Err(refusal) => ended(seq, failed(refusal), usage, begun, None),
    }
}

fn ended(
    seq: Seq,
    outcome: Outcome,
    usage: Usage,
    begun: Instant,
    confidence: Option<ItemConfidence>,
) -> Ending {
    let latency_ms = u32::try_from(begun.elapsed().as_millis()).unwrap_or(u32::MAX);
    Ending::Ended(NewResult { seq, outcome, usage, latency_ms, confidence })
}

fn failed(refusal: Refusal) -> Outcome {
    Outcome::Failed { code: refusal.code, message: refusal.message }
}

fn engine_code(error: &EngineError) -> Code {
    match error {
        EngineError::PromptTooLong { .. } => Code::PromptTooLong,
        EngineError::Grammar(_) => Code::InvalidSchema,
        _ => Code::EngineFailed,
    }
}

/// What the engine is asked for an item, and the texts at which its answer ends.
fn asked(
    served: &Served,
    context: &JobContext,
    seq: Seq,
    draft: &ItemDraft,
    priority: u8,
) -> Result<(Request, Vec<String>), Refusal> {
    let mut prompt = prompt::prompt(&context.spec, context.catalog.as_ref(), draft)
        .map_err(|error| Refusal::new(error.code(), error.to_string()))?;
    let stop = std::mem::take(&mut prompt.stop);
    let turn =
        Turn { priority, group: context.id.0.as_u64_pair().1, seed_shift: u64::from(seq.unsigned_abs()) };
    Ok((request(served, prompt, turn)?, stop))
}

async fn say(served: &Arc<Served>, request: Request, stop: Vec<String>) -> Result<Said, EngineError> {
    if stop.is_empty() {
        let wants_decisions = request.branches;
        let completion = served.engine().generate(request).await?;
        let text = served.decode(&completion.tokens);
        return Ok(Said {
            decisions: wants_decisions.then(|| decisions(served, &completion, &text)).flatten(),
            text,
            finish: speech::finish(completion.finish),
            logprobs: speech::logprobs(served, &completion.tokens, &completion.logprobs),
            usage: completion.usage,
        });
    }
    let mut speech = Speech::begin(served.clone(), request, stop)?;
    let (mut text, mut logprobs) = (String::new(), Vec::new());
    while let Some(piece) = speech.next().await? {
        text.push_str(&piece.text);
        logprobs.extend(piece.logprobs);
    }
    let (finish, usage) = speech.end().unwrap_or((Finish::Stop, Usage::default()));
    Ok(Said { text, finish, logprobs, decisions: None, usage })
}

/// The engine's branches by their bytes in the text. `None`: the text is not just the tokens' bytes.
fn decisions(served: &Served, completion: &Completion, text: &str) -> Option<Vec<Decision>> {
    let mut ends = Vec::with_capacity(completion.tokens.len());
    let mut rest = text.as_bytes();
    for token in &completion.tokens {
        rest = rest.strip_prefix(served.token_bytes(*token))?;
        ends.push(text.len() - rest.len());
    }
    let bytes = |at: usize| {
        let start = at.checked_sub(1).map_or(0, |before| ends.get(before).copied().unwrap_or(text.len()));
        start..ends.get(at).copied().unwrap_or(text.len())
    };
    let decision = |branch: &Branch| Decision {
        bytes: bytes(branch.at as usize),
        logprob: branch.logprob,
        n_allowed: branch.n_allowed,
    };
    rest.is_empty().then(|| completion.branches.iter().map(decision).collect())
}

fn result(
    context: &JobContext,
    draft: &ItemDraft,
    said: Said,
    wants_logprobs: bool,
) -> Result<Checked, Refusal> {
    // free text that reached its bound is what was asked for; JSON that did is only half an answer
    let cut = said.finish == Finish::Length;
    let decisions = said.decisions.as_deref();
    let checked = answer::check(&context.spec, context.catalog.as_ref(), draft, &said.text, decisions);
    if LineItem::is_line(draft) {
        // a chat completion says itself how it ended, and its client asked for the texts that may cut it
        let is_partial = cut || LineItem::has_stops(draft);
        return match checked {
            Err(error) if !is_partial => Err(Refusal::new(error.code(), error.to_string())),
            _ => Ok(Checked { output: line_result(said, wants_logprobs), confidence: None }),
        };
    }
    checked.map_err(|error| {
        if cut {
            let message = format!(
                "the answer reached its limit of {} tokens before it was complete",
                said.usage.output_tokens
            );
            return Refusal::new(Code::OutputTruncated, message);
        }
        Refusal::new(error.code(), error.to_string())
    })
}

fn line_result(said: Said, wants_logprobs: bool) -> Value {
    let logprobs = wants_logprobs.then_some(said.logprobs);
    let answer = Answer { content: said.text, finish: said.finish, logprobs };
    serde_json::to_value(answer).expect("an answer is texts and finite numbers")
}
