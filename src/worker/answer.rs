//! One item's way from its input to its end: prompt, tokens, grammar, engine, check.

use std::time::Instant;

use serde_json::Value;

use super::context::JobContext;
use crate::domain::code::Code;
use crate::domain::id::Seq;
use crate::domain::item::{ItemDraft, NewResult, Outcome};
use crate::domain::job::Generation;
use crate::domain::usage::Usage;
use crate::engine::request::{Completion, EngineError, Finish, Request, Sampling};
use crate::extract::prompt::Prompt;
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

/// Why an item cannot be answered; the code decides whether trying again can help.
struct Refusal {
    code: Code,
    message: String,
}

/// Answers one item. `stage` and `input` are the item's own; `context` is its job's.
///
/// Dropping the future takes the sequence out of the engine within one step.
pub async fn answer(
    served: &Served,
    context: &JobContext,
    seq: Seq,
    draft: &ItemDraft,
    priority: u8,
) -> Ending {
    let begun = Instant::now();
    let request = match request(served, context, seq, draft, priority) {
        Ok(request) => request,
        Err(refusal) => return ended(seq, failed(refusal), Usage::default(), begun),
    };
    let completion = match served.engine().generate(request).await {
        Ok(completion) => completion,
        Err(EngineError::Closed | EngineError::QueueFull { .. }) => return Ending::GivenBack,
        Err(error) => {
            let code = engine_code(&error);
            let message = error.to_string();
            if code.is_retryable() {
                return Ending::Again { seq, code, message };
            }
            return ended(seq, failed(Refusal { code, message }), Usage::default(), begun);
        }
    };
    let outcome = match result(served, context, draft, &completion) {
        Ok(output) => Outcome::Succeeded { output },
        Err(refusal) => failed(refusal),
    };
    ended(seq, outcome, completion.usage, begun)
}

fn ended(seq: Seq, outcome: Outcome, usage: Usage, begun: Instant) -> Ending {
    let latency_ms = u32::try_from(begun.elapsed().as_millis()).unwrap_or(u32::MAX);
    Ending::Ended(NewResult { seq, outcome, usage, latency_ms })
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

fn request(
    served: &Served,
    context: &JobContext,
    seq: Seq,
    draft: &ItemDraft,
    priority: u8,
) -> Result<Request, Refusal> {
    let Prompt { messages, schema, max_tokens, string_limit_bytes } =
        prompt::prompt(&context.spec, context.catalog.as_ref(), draft)
            .map_err(|error| Refusal { code: error.code(), message: error.to_string() })?;
    let tokens = served
        .render(&messages)
        .map_err(|error| Refusal { code: Code::InvalidInput, message: error.to_string() })?;
    let grammar = schema
        .map(|schema| served.compiler().compile(&schema, string_limit_bytes))
        .transpose()
        .map_err(|error| Refusal { code: error.code(), message: error.to_string() })?;
    let room = served.context_tokens().saturating_sub(tokens.len());
    if room == 0 {
        return Err(Refusal {
            code: Code::PromptTooLong,
            message: format!(
                "the prompt has {} tokens, the model's context {}",
                tokens.len(),
                served.context_tokens()
            ),
        });
    }
    Ok(Request {
        prompt: tokens.into(),
        adapter: served.adapter(),
        grammar,
        sampling: sampling(&context.spec.generation, seq),
        // max_tokens bounds what the schema could need at most; an answer seldom comes near it
        max_tokens: max_tokens.min(u32::try_from(room).unwrap_or(u32::MAX)),
        stop: served.stop(),
        priority,
        group: context.id.0.as_u64_pair().1,
    })
}

/// Each item draws from its own stream, so that the same seed gives the same job whatever the batches were.
fn sampling(generation: &Generation, seq: Seq) -> Sampling {
    let default = Sampling::default();
    Sampling {
        temperature: generation.temperature.unwrap_or(default.temperature),
        top_p: generation.top_p.unwrap_or(default.top_p),
        top_k: generation.top_k.unwrap_or(default.top_k),
        min_p: generation.min_p.unwrap_or(default.min_p),
        seed: generation.seed.unwrap_or(default.seed).wrapping_add(u64::from(seq.unsigned_abs())),
    }
}

fn result(
    served: &Served,
    context: &JobContext,
    draft: &ItemDraft,
    completion: &Completion,
) -> Result<Value, Refusal> {
    let text = served.decode(&completion.tokens);
    // free text that reached its bound is what was asked for; JSON that did is only half an answer
    let cut = completion.finish == Finish::Length;
    answer::check(&context.spec, context.catalog.as_ref(), draft, &text).map_err(|error| {
        if cut {
            let message = format!(
                "the answer reached its limit of {} tokens before it was complete",
                completion.tokens.len()
            );
            return Refusal { code: Code::OutputTruncated, message };
        }
        Refusal { code: error.code(), message: error.to_string() }
    })
}
