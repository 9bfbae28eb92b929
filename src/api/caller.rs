//! Who asks: one layer finds out, before any handler runs, and hands the answer to it as a [`Caller`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::BoxError;
use axum::body::{Body, HttpBody};
use axum::extract::{FromRequestParts, MatchedPath, Request, State as Shared};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::stream;

use super::access::{self, Access};
use super::problem::ApiError;
use super::state::State;
use crate::domain::code::Code;
use crate::domain::id::KeyId;
use crate::domain::key::{DEFAULT_TENANT, Key, KeyState, KeyText};
use crate::store::quota::Charge;

/// The longest that an open stream goes on after its key has ended, besides what the cache adds.
const LOOK_AFTER_KEY: Duration = Duration::from_secs(2);

/// Whose request it is. What is not this tenant's does not exist for it.
#[derive(Clone, Debug)]
pub struct Caller {
    tenant: Arc<str>,
    /// `None`: no keys are asked for.
    key: Option<(KeyId, Option<i64>)>,
}

impl Caller {
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Whose quota a submission counts towards.
    pub fn charge(&self) -> Option<Charge> {
        self.key.map(|(key, max_queued_tokens)| Charge { key, max_queued_tokens })
    }

    fn anybody() -> Self {
        Self { tenant: DEFAULT_TENANT.into(), key: None }
    }

    fn holder(key: &Key) -> Self {
        let made = &key.made;
        Self { tenant: made.tenant.as_str().into(), key: Some((key.id, made.max_queued_tokens)) }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Self>().cloned();
        // a handler of an open route asked who its caller is
        caller.ok_or_else(|| ApiError::hidden(Code::Internal, &"no layer has said who the caller is"))
    }
}

/// Lets in who brings what [`access`] wants of the route.
pub async fn authenticate(Shared(state): Shared<State>, mut request: Request, next: Next) -> Response {
    // what matches no route is answered by no handler
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let wanted = path.map_or(Access::Open, |path| access::needed(request.method().as_str(), path));
    let Access::Scope(scope) = wanted else { return next.run(request).await };
    if !state.settings.http.needs_keys() {
        request.extensions_mut().insert(Caller::anybody());
        return next.run(request).await;
    }
    let (text, key) = match identify(&state, request.headers()).await {
        Ok(found) => found,
        Err(error) => return error.into_response(),
    };
    tracing::Span::current().record("key", &*key.prefix);
    if let Err(wait) = state.keys.admit(&key, Instant::now()) {
        let rate = key.made.rate_per_minute.unwrap_or_default();
        let detail = format!("this key may ask {rate} times a minute");
        return ApiError::new(Code::RateLimited, detail).retry_after(wait).into_response();
    }
    if !key.made.scopes.has(scope) {
        let detail = format!("this needs the scope '{scope}'; the key has {}", key.made.scopes);
        return ApiError::new(Code::Forbidden, detail).into_response();
    }
    request.extensions_mut().insert(Caller::holder(&key));
    while_valid(next.run(request).await, state, text)
}

/// The key of a request, which is valid now.
async fn identify(state: &State, headers: &HeaderMap) -> Result<(KeyText, Key), ApiError> {
    let refuse = |detail: &str| Err(ApiError::new(Code::Unauthenticated, detail));
    let mut sent = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(sent), None) = (sent.next(), sent.next()) else {
        return refuse("send one header `Authorization: Bearer KEY`; `adit keys create` makes a key");
    };
    let bearer = sent.to_str().ok().and_then(|text| text.trim().split_once(' '));
    let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some(text) = bearer.and_then(|(_, key)| KeyText::parse(key.trim())) else {
        return refuse("the Authorization header is not `Bearer` and a key of this service");
    };
    let Some(key) = state.keys.find(&text).await? else { return refuse("there is no such key") };
    match key.state(state.clock.now()) {
        KeyState::Valid => Ok((text, key)),
        KeyState::Expired => refuse("the key has expired"),
        KeyState::Revoked => refuse("the key was revoked"),
    }
}

/// A stream that was opened with a key does not outlive it: it breaks off, which a client notices.
fn while_valid(response: Response, state: State, text: KeyText) -> Response {
    let (head, body) = response.into_parts();
    if body.size_hint().exact().is_some() {
        return Response::from_parts(head, body);
    }
    let parts = body.into_data_stream();
    let ended = Box::pin(ended(state, text));
    let guarded = stream::unfold(Some((parts, ended)), |open| async move {
        let (mut parts, mut ended) = open?;
        tokio::select! {
            part = parts.next() => Some((part?.map_err(BoxError::from), Some((parts, ended)))),
            () = &mut ended => Some((Err("the key of this stream is no longer valid".into()), None)),
        }
    });
    Response::from_parts(head, Body::from_stream(guarded))
}

/// Until the key is not valid any more. A database that is away ends no stream.
async fn ended(state: State, text: KeyText) {
    loop {
        tokio::time::sleep(LOOK_AFTER_KEY.min(state.keys.kept().max(Duration::from_millis(50)))).await;
        match state.keys.find(&text).await {
            Ok(Some(key)) if key.state(state.clock.now()) == KeyState::Valid => {}
            Ok(_) => return,
            Err(error) => tracing::debug!(%error, "a stream's key could not be looked at"),
        }
    }
}
