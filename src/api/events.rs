//! `GET /v1/events`: models and a page of jobs as server-sent events.

use std::collections::VecDeque;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::response::Response;
use axum::response::sse::Event;
use chrono::DateTime;
use futures::stream::{self, SelectAll, StreamExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_stream::wrappers::WatchStream;

use super::body::Params;
use super::caller::Caller;
use super::jobs::list::{check_page, read_page};
use super::models::view::{Queue, read_list};
use super::problem::ApiError;
use super::sse::{self, MINOR, PATIENCE};
use super::state::State;
use crate::domain::code::Code;
use crate::domain::model::ModelStatus;
use crate::wire::job::{JobPage, JobsQuery};
use crate::wire::model::ModelList;

/// A load that reports at every turn is told of no more often than this.
const GAP: Duration = Duration::from_millis(100);

/// Looking at jobs takes at most this part of the time: large jobs are looked at less often.
const SHARE: u32 = 4;

/// Follow models and jobs.
///
/// `models` carries what `GET /v1/models` answers, `jobs` what `GET /v1/jobs` answers to the same query: both at
/// first, and each again whenever it has changed; what changes by the clock alone, every two seconds. `unavailable`
/// says that the database cannot be read; the next `jobs` ends that. Comments keep a silent stream open; the header
/// `heartbeat-ms` says how often.
#[utoipa::path(
    get, path = "/v1/events", tag = "service", params(JobsQuery),
    responses((status = 200, description = "Events whose data is a `ModelList` or a `JobPage`.",
               body = JobPage, content_type = "text/event-stream")),
)]
pub async fn service_events(
    Shared(state): Shared<State>,
    caller: Caller,
    Params(query): Params<JobsQuery>,
) -> Result<Response, ApiError> {
    check_page(&state, &query)?;
    let permit = state.open_stream()?;
    let mut changes = SelectAll::new();
    for name in state.models.names() {
        changes.push(WatchStream::from_changes(state.models.watch(&name)?));
    }
    let watch = Watch {
        caller,
        query,
        changes,
        next_jobs: None,
        queue: None,
        models: None,
        jobs: None,
        is_away: false,
        ready: VecDeque::new(),
        state: state.clone(),
        _permit: permit,
    };
    let events = stream::unfold(watch, |mut watch| async move {
        let event = watch.next().await?;
        Some((Ok(event), watch))
    });
    Ok(sse::answer(&state, events))
}

/// What a client was told, and when.
struct Told<T> {
    value: T,
    at: Instant,
}

struct Watch {
    state: State,
    caller: Caller,
    query: JobsQuery,
    /// Fires when a model's status changes.
    changes: SelectAll<WatchStream<ModelStatus>>,
    /// When to look into the database again; `None` before the first look.
    next_jobs: Option<Instant>,
    queue: Option<Queue>,
    models: Option<Told<ModelList>>,
    jobs: Option<Told<JobPage>>,
    /// The client has been told that the database is away.
    is_away: bool,
    ready: VecDeque<Event>,
    _permit: OwnedSemaphorePermit,
}

impl Watch {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.next_jobs.is_some() {
                self.wait().await?;
            }
            self.look().await;
        }
    }

    /// Until something may have changed; `None` when the service stops.
    async fn wait(&mut self) -> Option<()> {
        let poll = Duration::from_millis(self.state.settings.http.stream_poll_ms);
        let changed = async {
            tokio::time::sleep(GAP.min(poll)).await;
            if self.changes.next().await.is_none() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(poll) => {}
            () = self.state.shutdown.requested() => return None,
        }
        Some(())
    }

    async fn look(&mut self) {
        let poll = Duration::from_millis(self.state.settings.http.stream_poll_ms);
        let began = Instant::now();
        if self.next_jobs.is_none_or(|at| at <= began) {
            self.look_at_jobs().await;
            let pause = if self.is_away { MINOR } else { began.elapsed() * SHARE };
            self.next_jobs = Some(Instant::now() + poll.max(pause));
        }
        match read_list(&self.state, self.queue.as_ref()).await {
            Ok(models) => {
                if is_news(&models, self.models.as_ref(), lasting_models) {
                    // models first: a page shows what can serve before it shows what is to be served
                    self.ready.push_front(sse::event("models", &models));
                    self.models = Some(Told { value: models, at: Instant::now() });
                }
            }
            Err(error) => {
                tracing::debug!(problem = ?error.problem(), "an event stream could not see the models")
            }
        }
    }

    async fn look_at_jobs(&mut self) {
        let (state, caller, query) = (&self.state, &self.caller, &self.query);
        let reading = async { (Queue::read(state).await, read_page(state, caller, query).await) };
        let read = tokio::time::timeout(PATIENCE, reading).await;
        let (queue, jobs) =
            read.unwrap_or_else(|late| (None, Err(ApiError::hidden(Code::DatabaseUnavailable, &late))));
        self.queue = queue;
        match jobs {
            Ok(jobs) => {
                if self.is_away || is_news(&jobs, self.jobs.as_ref(), lasting_jobs) {
                    self.ready.push_back(sse::event("jobs", &jobs));
                    self.jobs = Some(Told { value: jobs, at: Instant::now() });
                }
                self.is_away = false;
            }
            Err(_) if self.is_away => {}
            Err(error) => {
                tracing::debug!(problem = ?error.problem(), "an event stream could not see the jobs");
                self.is_away = true;
                self.ready.push_back(sse::unavailable());
            }
        }
    }
}

/// Whether to tell: at once if something lasting has changed, after [`MINOR`] if anything has.
fn is_news<T: PartialEq + Clone>(new: &T, told: Option<&Told<T>>, lasting: impl Fn(T) -> T) -> bool {
    let Some(told) = told else { return true };
    if *new == told.value {
        return false;
    }
    told.at.elapsed() >= MINOR || lasting(new.clone()) != lasting(told.value.clone())
}

/// Without what changes by the clock alone: counters, the machine's free memory, signs of life.
fn lasting_models(mut models: ModelList) -> ModelList {
    models.memory = None;
    for model in &mut models.data {
        model.engine = None;
        if let Some(plan) = &mut model.plan {
            plan.budget_bytes = 0;
        }
        for replica in &mut model.replicas {
            replica.updated_at = DateTime::UNIX_EPOCH;
        }
    }
    models
}

fn lasting_jobs(mut jobs: JobPage) -> JobPage {
    for job in &mut jobs.jobs {
        (job.throughput, job.eta) = (None, None);
    }
    jobs
}
