//! What goes into the engine and what comes out.

use std::sync::Arc;

use crate::domain::code::Code;
use crate::domain::usage::Usage;

/// One sequence to generate. Dropping the future that waits for it takes it out of the engine.
#[derive(Clone)]
pub struct Request {
    /// Token ids, at least one.
    pub prompt: Arc<[u32]>,
    /// `None` runs the base as it is.
    pub adapter: Option<AdapterId>,
    /// `None` generates freely.
    pub grammar: Option<super::grammar::Grammar>,
    pub sampling: Sampling,
    /// Upper bound of output tokens, forced ones included.
    pub max_tokens: u32,
    /// Tokens that end the answer and are not part of it.
    pub stop: Arc<[u32]>,
    /// Higher goes first.
    pub priority: u8,
    /// Sequences of one group share fairly with those of other groups: the job.
    pub group: u64,
    /// How many alternatives to name beside each token; `None` computes no probabilities. With them nothing is
    /// forced without a look at the model, so that every token has its own.
    pub logprobs: Option<u8>,
    /// Whether to record how sure the model is where the grammar leaves it a choice.
    pub branches: bool,
}

/// An adapter that the engine holds, by the number it was given when it was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterId(pub u32);

/// How a token is chosen from the logits that the grammar leaves. The default is greedy.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0: greedy, and everything below is ignored.
    pub temperature: f32,
    pub top_p: f32,
    /// 0: no bound.
    pub top_k: u32,
    pub min_p: f32,
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 0 }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Output tokens, without the one that stopped it.
    pub tokens: Vec<u32>,
    pub finish: Finish,
    pub usage: Usage,
    /// One for each token, if they were asked for.
    pub logprobs: Vec<Logprob>,
    /// In the answer's order, if they were asked for.
    pub branches: Vec<Branch>,
}

/// A place where the grammar left a choice, and how sure the model was of what was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Branch {
    /// Which of the answer's tokens; the first that it does not have, where the choice was to end.
    pub at: u32,
    /// Natural logarithm of the token's share among those that were allowed, before temperature and cuts.
    pub logprob: f32,
    /// Tokens that were allowed, at least two.
    pub n_allowed: u32,
}

/// Tokens of an answer that goes on, as a step chose them.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    /// At least one.
    pub tokens: Vec<u32>,
    /// One for each of them, if they were asked for.
    pub logprobs: Vec<Logprob>,
    /// Of the answer so far.
    pub usage: Usage,
}

/// What the model thought of a token, before temperature, cuts and grammar: natural logarithms.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprob {
    pub logprob: f32,
    /// The most probable tokens at this place, most probable first.
    pub top: Vec<(u32, f32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token, or the grammar allows nothing more.
    Stop,
    /// `max_tokens` or the end of the context was reached.
    Length,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the engine's queue is full ({queued} requests wait)")]
    QueueFull { queued: usize },
    #[error(
        "prompt of {prompt_tokens} tokens and {max_tokens} to generate exceed the context of {context_tokens}"
    )]
    PromptTooLong { prompt_tokens: usize, max_tokens: usize, context_tokens: usize },
    /// The prompt is empty, or an option is out of its range.
    #[error("{0}")]
    InvalidRequest(String),
    #[error("the engine holds no adapter {0:?}")]
    UnknownAdapter(AdapterId),
    #[error("the grammar failed: {0}")]
    Grammar(String),
    #[error("the forward pass failed: {0}")]
    Device(String),
    #[error("the engine has stopped")]
    Closed,
}

impl EngineError {
    pub fn code(&self) -> Code {
        match self {
            Self::QueueFull { .. } => Code::Overloaded,
            Self::PromptTooLong { .. } => Code::PromptTooLong,
            Self::InvalidRequest(_) => Code::InvalidRequest,
            Self::UnknownAdapter(_) | Self::Closed => Code::ModelNotReady,
            Self::Grammar(_) | Self::Device(_) => Code::EngineFailed,
        }
    }
}
