//! From a prompt to what the engine is asked: tokens, grammar, room, sampling.

use crate::domain::chat::Refusal;
use crate::domain::code::Code;
use crate::domain::job::Generation;
use crate::engine::request::{Request, Sampling};
use crate::extract::prompt::Prompt;
use crate::models::served::Served;

/// When a request is served among the others of its engine.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub priority: u8,
    pub group: u64,
    /// Added to a seed that the prompt shares with others.
    pub seed_shift: u64,
}

/// Renders and compiles, which is work: not for a thread that serves requests.
pub fn request(served: &Served, prompt: Prompt, turn: Turn) -> Result<Request, Refusal> {
    let tokens = served
        .render(&prompt.messages)
        .map_err(|error| Refusal::new(Code::InvalidInput, error.to_string()))?;
    let grammar = prompt
        .schema
        .map(|schema| served.compiler().compile(&schema, prompt.string_limit_bytes))
        .transpose()
        .map_err(|error| Refusal::new(error.code(), error.to_string()))?;
    let room = served.context_tokens().saturating_sub(tokens.len());
    if room == 0 {
        let (n, context) = (tokens.len(), served.context_tokens());
        let message = format!("the prompt has {n} tokens, the model's context {context}");
        return Err(Refusal::new(Code::PromptTooLong, message));
    }
    let seed_shift = if prompt.has_own_seed { 0 } else { turn.seed_shift };
    Ok(Request {
        prompt: tokens.into(),
        adapter: served.adapter(),
        grammar,
        sampling: sampling(&prompt.generation, seed_shift),
        // max_tokens bounds what the schema could need at most; an answer seldom comes near it
        max_tokens: prompt.max_tokens.min(u32::try_from(room).unwrap_or(u32::MAX)),
        stop: served.stop(),
        priority: turn.priority,
        group: turn.group,
        logprobs: prompt.logprobs,
        branches: prompt.confidence,
    })
}

/// Each item draws from its own stream, so that the same seed gives the same job whatever the batches were.
fn sampling(generation: &Generation, seed_shift: u64) -> Sampling {
    let default = Sampling::default();
    Sampling {
        temperature: generation.temperature.unwrap_or(default.temperature),
        top_p: generation.top_p.unwrap_or(default.top_p),
        top_k: generation.top_k.unwrap_or(default.top_k),
        min_p: generation.min_p.unwrap_or(default.min_p),
        seed: generation.seed.unwrap_or(default.seed).wrapping_add(seed_shift),
    }
}
