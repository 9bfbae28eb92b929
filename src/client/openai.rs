//! Client of any server that speaks OpenAI's chat completions: the other side of a comparison.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::ClientError;
use crate::domain::message::Message;

/// A server's address and the model that is asked of it. Cloning shares connections.
#[derive(Clone, Debug)]
pub struct OpenAi {
    http: reqwest::Client,
    base: String,
    model: String,
}

/// One answer, with what the server says of its tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub content: String,
    pub prompt_tokens: u64,
    /// Of those, what its prompt cache had; 0 where it does not say.
    pub cached_tokens: u64,
    pub output_tokens: u64,
}

/// Why there is no answer. [`Failure::word`] is short, for counting.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("not reached: {0}")]
    Unreachable(#[source] reqwest::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("status {status}: {text}")]
    Status { status: u16, text: String },
    #[error("not a chat completion: {0}")]
    Malformed(String),
}

impl Failure {
    pub fn word(&self) -> String {
        match self {
            Failure::Unreachable(_) => "unreachable".into(),
            Failure::Timeout => "timeout".into(),
            Failure::Status { status, .. } => format!("status_{status}"),
            Failure::Malformed(_) => "malformed".into(),
        }
    }
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Usage,
}

#[derive(Deserialize)]
struct Choice {
    message: Content,
}

#[derive(Deserialize)]
struct Content {
    content: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    prompt_tokens_details: Option<Details>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: u64,
}

impl OpenAi {
    /// `base` with or without `/v1` at its end. Without a `model`, the first one the server lists.
    pub async fn connect(base: &str, model: Option<&str>, timeout: Duration) -> Result<Self, ClientError> {
        let base = base.trim_end_matches('/').trim_end_matches("/v1").to_string();
        if !(base.starts_with("http://") || base.starts_with("https://")) {
            return Err(ClientError::Url { url: base });
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(timeout)
            .build()
            .map_err(|source| ClientError::Unreachable { url: base.clone(), source })?;
        let mut peer = Self { http, base, model: String::new() };
        peer.model = match model {
            Some(model) => model.into(),
            None => peer.first_model().await?,
        };
        Ok(peer)
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn model(&self) -> &str {
        &self.model
    }

    async fn first_model(&self) -> Result<String, ClientError> {
        let url = format!("{}/v1/models", self.base);
        let unreachable = |source| ClientError::Unreachable { url: self.base.clone(), source };
        let response = self.http.get(&url).send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let text = response.text().await.map_err(unreachable)?;
        let list: Option<Value> = serde_json::from_str(&text).ok();
        let first = list.as_ref().and_then(|list| list["data"][0]["id"].as_str());
        match first {
            Some(model) => Ok(model.into()),
            None => Err(ClientError::Unexpected { url, status, text }),
        }
    }

    /// Greedy, under a schema. Nothing is tried twice: an error is part of what is measured.
    pub async fn complete(
        &self,
        messages: &[Message],
        schema: &Value,
        max_tokens: u32,
    ) -> Result<Answer, Failure> {
        let body = json!({
            "model": self.model, "messages": messages, "max_tokens": max_tokens, "temperature": 0.0,
            "response_format": {"type": "json_schema",
                "json_schema": {"name": "answer", "strict": true, "schema": schema}},
        });
        let call = self.http.post(format!("{}/v1/chat/completions", self.base)).json(&body);
        let response = call.send().await.map_err(failed)?;
        let status = response.status();
        let text = response.text().await.map_err(failed)?;
        if !status.is_success() {
            return Err(Failure::Status { status: status.as_u16(), text });
        }
        let completion: Completion =
            serde_json::from_str(&text).map_err(|e| Failure::Malformed(e.to_string()))?;
        let choice = completion.choices.into_iter().next();
        let content = choice.and_then(|choice| choice.message.content);
        let usage = completion.usage;
        Ok(Answer {
            content: content.ok_or_else(|| Failure::Malformed("no content".into()))?,
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.prompt_tokens_details.unwrap_or_default().cached_tokens,
            output_tokens: usage.completion_tokens,
        })
    }
}

fn failed(error: reqwest::Error) -> Failure {
    if error.is_timeout() { Failure::Timeout } else { Failure::Unreachable(error) }
}
