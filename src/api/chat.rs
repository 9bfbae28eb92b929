//! `POST /v1/chat/completions`: answered while the client waits, whole or as it comes.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State as Shared};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::body;
use super::problem::ApiError;
use super::state::State;
use crate::domain::chat::{ChatRequest, Finish, Refusal, TokenLogprob};
use crate::domain::code::Code;
use crate::domain::usage::Usage;
use crate::wire::openai::ErrorBody;
use crate::wire::openai::chat::{ChatCompletion, ChatCompletionChunk, Delta, Head};
use crate::wire::openai::request::{self, ChatCompletionRequest, Delivery, Rules};
use crate::worker::Piece;
use crate::worker::chat::{self, Reply};

/// Complete a chat.
///
/// Served before jobs, in the same engine. An answer in a `json_schema` obeys it, unless `finish_reason` is
/// `length`. With `stream`, server-sent events whose data is a chunk each, the last one `[DONE]`. A client that
/// goes away frees its place within a step.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "openai", request_body = ChatCompletionRequest,
    responses((status = 200, description = "The answer; or, with `stream`, chunks.", content(
        (ChatCompletion = "application/json"), (ChatCompletionChunk = "text/event-stream"),
    ))),
)]
pub async fn complete_chat(Shared(state): Shared<State>, request: Request) -> Result<Response, ApiError> {
    if state.shutdown.is_requested() {
        return Err(ApiError::new(Code::ShuttingDown, "no new requests are taken"));
    }
    let (parts, body) = request.into_parts();
    let limits = &state.settings.limits;
    let body: Value = body::read_json(body, &parts.headers, limits, state.request_timeout()).await?;
    let (asked, delivery) = check(&state, body)?;
    let head = Head {
        id: format!("chatcmpl-{}", Uuid::new_v4().simple()),
        created: state.clock.now().timestamp(),
        model: asked.model.clone(),
    };
    if delivery.stream {
        return stream_reply(state, head, asked, delivery).await;
    }
    let mut reply = chat::begin(&state.models, asked.clone()).await?;
    let mut whole = Piece::default();
    while let Some(piece) = reply.next().await? {
        whole.text.push_str(&piece.text);
        whole.logprobs.extend(piece.logprobs);
    }
    let (finish, usage) = reply.end().unwrap_or((Finish::Stop, Usage::default()));
    chat::check(&asked, finish, &whole.text)?;
    let logprobs = asked.logprobs.map(|_| whole.logprobs);
    Ok(Json(head.completion(whole.text, finish, logprobs, usage)).into_response())
}

fn check(state: &State, body: Value) -> Result<(ChatRequest, Delivery), ApiError> {
    let models = state.models.names();
    let limits = &state.settings.limits;
    let check_schema = |schema: &Value| {
        (state.check_schema)(schema).map_err(|issue| Refusal {
            code: issue.code,
            message: issue.message,
            param: Some(issue.path),
        })
    };
    let rules = Rules {
        models: &models,
        max_schema_bytes: limits.max_schema_bytes,
        max_json_depth: limits.max_json_depth,
        default_completion_tokens: limits.default_completion_tokens,
        check_schema: &check_schema,
    };
    Ok(request::check(body, &rules)?)
}

async fn stream_reply(
    state: State,
    head: Head,
    asked: ChatRequest,
    delivery: Delivery,
) -> Result<Response, ApiError> {
    let permit = state.open_stream()?;
    let wants_logprobs = asked.logprobs.is_some();
    let reply = chat::begin(&state.models, asked).await?;
    let next = Next::Role;
    let chunks = Chunks { head, reply, wants_logprobs, delivery, next, _permit: permit };
    let events = stream::unfold(chunks, |mut chunks| async move {
        let event = chunks.next().await?;
        Some((Ok::<_, Infallible>(event), chunks))
    });
    // a comment while the model reads a long prompt, so that proxies keep the connection
    let heartbeat = Duration::from_millis(state.settings.http.heartbeat_ms);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(heartbeat)).into_response())
}

/// A stream of chunks on its way. Dropped with its client, and the sequence with it.
struct Chunks {
    head: Head,
    reply: Reply,
    wants_logprobs: bool,
    delivery: Delivery,
    next: Next,
    _permit: OwnedSemaphorePermit,
}

#[derive(Clone, Copy)]
enum Next {
    /// The first chunk names the role.
    Role,
    Pieces,
    Usage(Usage),
    Done,
    Nothing,
}

impl Chunks {
    async fn next(&mut self) -> Option<Event> {
        match self.next {
            Next::Role => {
                self.next = Next::Pieces;
                let delta = Delta { role: Some("assistant".into()), content: Some(String::new()) };
                Some(data(&self.head.chunk(delta, None, None)))
            }
            Next::Pieces => Some(self.piece().await),
            Next::Usage(usage) => {
                self.next = Next::Done;
                Some(data(&self.head.usage_chunk(usage)))
            }
            Next::Done => {
                self.next = Next::Nothing;
                Some(Event::default().data("[DONE]"))
            }
            Next::Nothing => None,
        }
    }

    async fn piece(&mut self) -> Event {
        match self.reply.next().await {
            Ok(Some(piece)) => {
                let logprobs: Option<Vec<TokenLogprob>> = self.wants_logprobs.then_some(piece.logprobs);
                let delta = Delta { role: None, content: Some(piece.text) };
                data(&self.head.chunk(delta, logprobs, None))
            }
            Ok(None) => {
                let (finish, usage) = self.reply.end().unwrap_or((Finish::Stop, Usage::default()));
                self.next = if self.delivery.include_usage { Next::Usage(usage) } else { Next::Done };
                data(&self.head.chunk(Delta::default(), None, Some(finish)))
            }
            // the head of the response is long gone; clients know this form of an event
            Err(refusal) => {
                self.next = Next::Nothing;
                data(&ErrorBody::of(&refusal))
            }
        }
    }
}

fn data(value: &impl Serialize) -> Event {
    Event::default().data(serde_json::to_string(value).expect("a chunk is texts and finite numbers"))
}
