//! `GET /v1/jobs/{id}/events`: progress as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, Stream};
use tokio::sync::OwnedSemaphorePermit;

use super::view::{self, Facts};
use crate::api::body::JobPath;
use crate::api::problem::ApiError;
use crate::api::state::State;
use crate::domain::id::JobId;
use crate::wire::job::Job;

/// Follow a job.
///
/// The first event is `snapshot`, then `progress` whenever something changed, at last `end`; each carries the
/// whole job. `gone` says that the job was deleted. Comments keep a silent stream open. A client that comes
/// back simply begins with a new snapshot.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/events", tag = "jobs", params(("id" = uuid::Uuid, Path, description = "The job.")),
    responses((status = 200, description = "Events whose data is a job.", body = Job, content_type = "text/event-stream")),
)]
pub async fn job_events(
    Shared(state): Shared<State>,
    JobPath(id): JobPath,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let permit = state.open_stream()?;
    if state.store.job(id).await?.is_none() {
        return Err(ApiError::job_not_found(id));
    }
    let heartbeat = Duration::from_millis(state.settings.http.heartbeat_ms);
    let watch = Watch { state, id, seen: None, ended: false, _permit: permit };
    let events = stream::unfold(watch, |mut watch| async move {
        let event = watch.next().await?;
        Some((Ok(event), watch))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(heartbeat)))
}

struct Watch {
    state: State,
    id: JobId,
    /// What the client saw last, without what changes by the clock alone.
    seen: Option<Job>,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Watch {
    async fn next(&mut self) -> Option<Event> {
        while !self.ended {
            if self.seen.is_some() {
                let wait = Duration::from_millis(self.state.settings.http.stream_poll_ms);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.state.shutdown.requested() => return None,
                }
            }
            let job = match self.state.store.job(self.id).await {
                Ok(Some(row)) => view::job(row, &Facts::gather(&self.state).await),
                Ok(None) => {
                    self.ended = true;
                    return Some(Event::default().event("gone").data("{}"));
                }
                // the database is away: the stream stays open and tells more when there is more
                Err(error) => {
                    tracing::debug!(%error, "an event stream could not look");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if self.state.shutdown.is_requested() {
                        return None;
                    }
                    continue;
                }
            };
            let mut comparable = job.clone();
            comparable.throughput = None;
            if self.seen.as_ref() == Some(&comparable) {
                continue;
            }
            self.ended = job.state.is_final() && self.seen.is_some();
            let name = match (&self.seen, self.ended) {
                (None, _) => "snapshot",
                (Some(_), true) => "end",
                (Some(_), false) => "progress",
            };
            // a job that had ended before the first look gets its `end` in the next round
            self.seen = Some(if name == "snapshot" && job.state.is_final() {
                unended(job.clone())
            } else {
                comparable
            });
            let data = serde_json::to_string(&job).expect("a job is strings and numbers");
            return Some(Event::default().event(name).data(data));
        }
        None
    }
}

/// A job that differs from every real one, so that the next look finds a change.
fn unended(mut job: Job) -> Job {
    job.counts.total = -1;
    job
}
