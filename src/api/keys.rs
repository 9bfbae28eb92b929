//! `/v1/keys`: keys of the caller's own tenant. The first one, and those of other tenants, come from `adit keys`.

use axum::Json;
use axum::extract::{Path, Request, State as Shared};
use axum::http::{StatusCode, header};
use chrono::TimeDelta;

use super::body::read_json;
use super::caller::Caller;
use super::problem::ApiError;
use super::state::State;
use crate::domain::code::Code;
use crate::domain::id::KeyId;
use crate::domain::key::{KeyText, NewKey};
use crate::wire::key::{Key, KeyList, KeyMade, KeyRequest};

/// Longest life that can be asked for: beyond any key that is ever renewed.
const MAX_LIFE_S: u64 = 100 * 365 * 24 * 3600;

/// List the keys of the tenant, newest first, without their texts.
#[utoipa::path(
    get, path = "/v1/keys", tag = "keys",
    responses((status = 200, description = "At most 1,000 keys, revoked and expired ones too.", body = KeyList)),
)]
pub async fn list_keys(Shared(state): Shared<State>, caller: Caller) -> Result<Json<KeyList>, ApiError> {
    let now = state.clock.now();
    let keys = state.store.keys(Some(caller.tenant())).await?;
    Ok(Json(KeyList { keys: keys.into_iter().map(|key| Key::of(key, now)).collect() }))
}

/// Make a key of the tenant. Its text is in this answer and nowhere else.
#[utoipa::path(
    post, path = "/v1/keys", tag = "keys", request_body = KeyRequest,
    responses((status = 201, description = "The key, with its text.", body = KeyMade)),
)]
pub async fn create_key(
    Shared(state): Shared<State>,
    caller: Caller,
    request: Request,
) -> Result<(StatusCode, [(header::HeaderName, &'static str); 1], Json<KeyMade>), ApiError> {
    let (parts, body) = request.into_parts();
    let limits = &state.settings.limits;
    let asked: KeyRequest = read_json(body, &parts.headers, limits, state.request_timeout()).await?;
    let now = state.clock.now();
    let expires_at = asked.expires_in_s.map(|seconds| {
        let life = Some(seconds).filter(|seconds| (1..=MAX_LIFE_S).contains(seconds));
        let life = life.and_then(|seconds| TimeDelta::try_seconds(i64::try_from(seconds).ok()?));
        life.map(|life| now + life).ok_or_else(|| refused("expires_in_s", "1 second to 100 years"))
    });
    let made = NewKey {
        tenant: caller.tenant().into(),
        name: asked.name,
        scopes: asked.scopes,
        expires_at: expires_at.transpose()?,
        rate_per_minute: asked.rate_per_minute,
        max_queued_tokens: asked.max_queued_tokens,
    };
    made.check().map_err(|bad| refused(bad.field, &bad.cause))?;
    let text = KeyText::generate();
    let key = state.store.create_key(&made, &text).await?;
    tracing::info!(key = key.prefix, tenant = made.tenant, scopes = %made.scopes, "a key was made");
    let made = KeyMade { key: text.reveal().into(), about: Key::of(key, now) };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(made)))
}

/// Revoke a key of the tenant. Other processes notice within `http.key_cache_ms`.
#[utoipa::path(
    delete, path = "/v1/keys/{id}", tag = "keys", params(("id" = uuid::Uuid, Path, description = "The key.")),
    responses((status = 200, description = "It opens nothing any more.", body = Key)),
)]
pub async fn revoke_key(
    Shared(state): Shared<State>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Key>, ApiError> {
    let missing = || ApiError::new(Code::NotFound, format!("no key '{id}'"));
    let parsed: KeyId = id.parse().map_err(|_| missing())?;
    let key = state.store.revoke_key(Some(caller.tenant()), parsed).await?.ok_or_else(missing)?;
    state.keys.forget(&key.prefix);
    tracing::info!(key = key.prefix, "a key was revoked");
    Ok(Json(Key::of(key, state.clock.now())))
}

fn refused(field: &str, cause: &str) -> ApiError {
    ApiError::new(Code::InvalidRequest, format!("{field}: {cause}")).pointer(format!("/{field}"))
}
