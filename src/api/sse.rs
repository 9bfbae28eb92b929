//! Server-sent events: what all streams of events share.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderName, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::Stream;
use serde::Serialize;

use super::state::State;

/// What changes by the clock alone (rates, ages) is told no more often than this.
pub const MINOR: Duration = Duration::from_secs(2);

/// A database that takes longer to answer is away, as far as a stream is concerned.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Tells a client how long a silence means nothing.
const HEARTBEAT: HeaderName = HeaderName::from_static("heartbeat-ms");
/// Proxies that know it pass each event on at once.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The response whose body is `events`. Comments break its silences.
pub fn answer(
    state: &State,
    events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static,
) -> Response {
    let heartbeat_ms = state.settings.http.heartbeat_ms;
    let beat = KeepAlive::new().interval(Duration::from_millis(heartbeat_ms));
    let headers = [
        (HEARTBEAT, heartbeat_ms.to_string()),
        (BUFFERING, "no".to_string()),
        (header::CACHE_CONTROL, "no-store".to_string()),
    ];
    (headers, Sse::new(events).keep_alive(beat)).into_response()
}

pub fn event(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).data(serde_json::to_string(data).expect("strings and numbers only"))
}

/// The database cannot be read: what was told before may have changed since. The next event of another name ends it.
pub fn unavailable() -> Event {
    Event::default().event("unavailable").data("{}")
}
