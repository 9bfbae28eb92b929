//! Chat completions as they are answered: whole, or in chunks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain;
use crate::domain::chat::Finish;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatCompletion {
    pub id: String,
    /// `chat.completion`.
    pub object: String,
    /// Seconds since the epoch.
    pub created: i64,
    pub model: String,
    /// Exactly one.
    pub choices: Vec<Choice>,
    pub usage: Usage,
    pub system_fingerprint: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Choice {
    pub index: u32,
    pub message: AnswerMessage,
    pub logprobs: Option<Logprobs>,
    /// `stop`, or `length` when the bound on tokens cut the answer: JSON is then not complete.
    pub finish_reason: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AnswerMessage {
    /// `assistant`.
    pub role: String,
    pub content: Option<String>,
    /// Always null.
    pub refusal: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Logprobs {
    pub content: Vec<TokenLogprob>,
    /// Always null.
    pub refusal: Option<Vec<TokenLogprob>>,
}

/// The model's own view of a token: before temperature, cuts and schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenLogprob {
    pub token: String,
    pub logprob: f32,
    pub bytes: Option<Vec<u8>>,
    /// As many as were asked for, most probable first.
    pub top_logprobs: Vec<TopLogprob>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopLogprob {
    pub token: String,
    pub logprob: f32,
    pub bytes: Option<Vec<u8>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = CompletionUsage)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub total_tokens: u64,
    pub prompt_tokens_details: PromptDetails,
    pub completion_tokens_details: CompletionDetails,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PromptDetails {
    /// Of the prompt's tokens, those that an earlier request had computed.
    pub cached_tokens: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CompletionDetails {
    /// Always 0.
    pub reasoning_tokens: u64,
    /// Of the answer's tokens, those that the schema left no choice about. Ours.
    #[serde(default)]
    pub forced_tokens: u64,
}

/// One `data:` line of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatCompletionChunk {
    pub id: String,
    /// `chat.completion.chunk`.
    pub object: String,
    pub created: i64,
    pub model: String,
    /// One; none in the last chunk, if `stream_options.include_usage` asked for it.
    pub choices: Vec<ChunkChoice>,
    /// Of the last chunk, if it was asked for.
    pub usage: Option<Usage>,
    pub system_fingerprint: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChunkChoice {
    pub index: u32,
    pub delta: Delta,
    pub logprobs: Option<Logprobs>,
    pub finish_reason: Option<String>,
}

/// What a chunk adds to the message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Delta {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// What is the same in all chunks of an answer, and in the answer.
#[derive(Clone, Debug)]
pub struct Head {
    pub id: String,
    pub created: i64,
    pub model: String,
}

impl Head {
    pub fn completion(
        self,
        content: String,
        finish: Finish,
        logprobs: Option<Vec<domain::chat::TokenLogprob>>,
        usage: domain::usage::Usage,
    ) -> ChatCompletion {
        let message = AnswerMessage { role: "assistant".into(), content: Some(content), refusal: None };
        let finish_reason = finish.as_str().into();
        ChatCompletion {
            id: self.id,
            object: "chat.completion".into(),
            created: self.created,
            model: self.model,
            choices: vec![Choice { index: 0, message, logprobs: logprobs.map(Logprobs::new), finish_reason }],
            usage: usage.into(),
            system_fingerprint: None,
        }
    }

    pub fn chunk(
        &self,
        delta: Delta,
        logprobs: Option<Vec<domain::chat::TokenLogprob>>,
        finish: Option<Finish>,
    ) -> ChatCompletionChunk {
        let choice = ChunkChoice {
            index: 0,
            delta,
            logprobs: logprobs.map(Logprobs::new),
            finish_reason: finish.map(|finish| finish.as_str().into()),
        };
        self.bare_chunk(vec![choice], None)
    }

    pub fn usage_chunk(&self, usage: domain::usage::Usage) -> ChatCompletionChunk {
        self.bare_chunk(Vec::new(), Some(usage.into()))
    }

    fn bare_chunk(&self, choices: Vec<ChunkChoice>, usage: Option<Usage>) -> ChatCompletionChunk {
        ChatCompletionChunk {
            id: self.id.clone(),
            object: "chat.completion.chunk".into(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage,
            system_fingerprint: None,
        }
    }
}

impl Logprobs {
    fn new(tokens: Vec<domain::chat::TokenLogprob>) -> Self {
        Self { content: tokens.into_iter().map(TokenLogprob::from).collect(), refusal: None }
    }
}

impl From<domain::chat::TokenLogprob> for TokenLogprob {
    fn from(token: domain::chat::TokenLogprob) -> Self {
        let top_logprobs = token.top.into_iter().map(TopLogprob::from).collect();
        let TopLogprob { token, logprob, bytes } = token.token.into();
        Self { token, logprob, bytes, top_logprobs }
    }
}

impl From<domain::chat::Alternative> for TopLogprob {
    fn from(alternative: domain::chat::Alternative) -> Self {
        let domain::chat::Alternative { token, logprob, bytes } = alternative;
        Self { token, logprob, bytes: Some(bytes) }
    }
}

impl From<domain::usage::Usage> for Usage {
    fn from(usage: domain::usage::Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.output_tokens,
            total_tokens: usage.prompt_tokens + usage.output_tokens,
            prompt_tokens_details: PromptDetails { cached_tokens: usage.prefix_hit_tokens },
            completion_tokens_details: CompletionDetails {
                reasoning_tokens: 0,
                forced_tokens: usage.forced_tokens,
            },
        }
    }
}
