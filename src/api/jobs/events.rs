//! `GET /v1/jobs/{id}/events`: progress as server-sent events.

use std::time::Duration;

use axum::extract::State as Shared;
use axum::response::Response;
use axum::response::sse::Event;
use futures::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::view::{self, Facts};
use crate::api::body::JobPath;
use crate::api::problem::ApiError;
use crate::api::sse::{self, MINOR, PATIENCE};
use crate::api::state::State;
use crate::domain::id::JobId;
use crate::store::StoreError;
use crate::wire::job::Job;

/// Follow a job.
///
/// The first event is `snapshot`, then `progress` whenever something changed, at last `end`; each carries the
/// whole job. Rates that change by the clock alone are told every two seconds. `unavailable` says that the database
/// cannot be read, which the next event ends; `gone`, that the job was deleted. Comments keep a silent stream open;
/// the header `heartbeat-ms` says how often. A client that comes back simply begins with a new snapshot.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/events", tag = "jobs", params(("id" = uuid::Uuid, Path, description = "The job.")),
    responses((status = 200, description = "Events whose data is a job.", body = Job, content_type = "text/event-stream")),
)]
pub async fn job_events(Shared(state): Shared<State>, JobPath(id): JobPath) -> Result<Response, ApiError> {
    let permit = state.open_stream()?;
    if state.store.job(id).await?.is_none() {
        return Err(ApiError::job_not_found(id));
    }
    let watch = Watch {
        state: state.clone(),
        id,
        seen: None,
        told: None,
        is_away: false,
        ended: false,
        _permit: permit,
    };
    let events = stream::unfold(watch, |mut watch| async move {
        let event = watch.next().await?;
        Some((Ok(event), watch))
    });
    Ok(sse::answer(&state, events))
}

struct Watch {
    state: State,
    id: JobId,
    /// What the client saw last, without what changes by the clock alone.
    seen: Option<Job>,
    /// All that it was told, and when.
    told: Option<(Job, Instant)>,
    /// It was told that the database is away.
    is_away: bool,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Watch {
    /// The job as it stands; `None`: it is gone.
    async fn read(&self) -> Result<Option<Job>, StoreError> {
        let reading = async {
            let Some(row) = self.state.store.job(self.id).await? else { return Ok(None) };
            let facts = Facts::gather(&self.state, std::slice::from_ref(&row)).await;
            Ok(Some(view::job(row, &facts)))
        };
        match tokio::time::timeout(PATIENCE, reading).await {
            Ok(read) => read,
            Err(late) => Err(StoreError::Unavailable(std::io::Error::from(late).into())),
        }
    }

    async fn next(&mut self) -> Option<Event> {
        while !self.ended {
            if self.seen.is_some() {
                let wait = Duration::from_millis(self.state.settings.http.stream_poll_ms);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.state.shutdown.requested() => return None,
                }
            }
            let job = match self.read().await {
                Ok(Some(job)) => job,
                Ok(None) => {
                    self.ended = true;
                    return Some(Event::default().event("gone").data("{}"));
                }
                // the database is away: the stream stays open and tells more when there is more
                Err(error) => {
                    tracing::debug!(%error, "an event stream could not look");
                    if !std::mem::replace(&mut self.is_away, true) {
                        return Some(sse::unavailable());
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if self.state.shutdown.is_requested() {
                        return None;
                    }
                    continue;
                }
            };
            let mut comparable = job.clone();
            (comparable.throughput, comparable.eta) = (None, None);
            let is_old = |(told, at): &(Job, Instant)| *told != job && at.elapsed() >= MINOR;
            let is_minor_news = self.is_away || self.told.as_ref().is_some_and(is_old);
            if self.seen.as_ref() == Some(&comparable) && !is_minor_news {
                continue;
            }
            self.is_away = false;
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
            let event = sse::event(name, &job);
            self.told = Some((job, Instant::now()));
            return Some(event);
        }
        None
    }
}

/// A job that differs from every real one, so that the next look finds a change.
fn unended(mut job: Job) -> Job {
    job.counts.total = -1;
    job
}
