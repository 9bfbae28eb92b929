//! One bundle through the engine: items in as fast as the engine takes them, results out every second.
//!
//! Writing and generating go side by side: while the database is away, items go on ending, and what has ended
//! waits here, within the process's bound (`queue.max_buffered_results`). One write of a bundle is on its way
//! at a time, so that a chunk's end cannot overtake its results.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tracing::Instrument;

use super::answer::{self, Ending};
use super::context::{Contexts, JobContext};
use crate::domain::code::Code;
use crate::domain::id::{JobId, Seq};
use crate::domain::item::{ItemDraft, NewResult, Outcome};
use crate::domain::model::ModelStatus;
use crate::domain::usage::Usage;
use crate::models::manager::Manager;
use crate::models::served::Served;
use crate::queue::bundle::{Bundle, Place};
use crate::shutdown::Shutdown;
use crate::telemetry::metric::{self, Metric};
use crate::telemetry::trace;

/// What all bundles of one model share.
pub struct Desk {
    pub model: String,
    pub models: Manager,
    pub contexts: Contexts,
    pub gate: watch::Receiver<ModelStatus>,
    pub shutdown: Shutdown,
    /// Items of one bundle that are in the engine, or on their way, at once.
    pub max_in_flight: usize,
    pub flush_ms: u64,
}

/// One chunk's way to its end.
#[derive(Default)]
struct Open {
    ended: Ended,
    again: Vec<Seq>,
    /// Items that have not ended.
    left: usize,
    /// Something of it goes back: it is released, not finished.
    goes_back: bool,
    is_closed: bool,
}

/// Results that are not committed yet, and the room they take.
#[derive(Default)]
struct Ended {
    results: Vec<NewResult>,
    places: Option<Place>,
}

impl Ended {
    fn push(&mut self, result: NewResult, place: Place) {
        self.results.push(result);
        match &mut self.places {
            Some(places) => places.join(place),
            None => self.places = Some(place),
        }
    }
}

/// A write, with what it needs taken out of the chunks, so that they go on while it is on its way.
enum Due {
    /// Results of chunks that go on.
    Commit(Vec<(usize, Ended)>),
    /// A chunk's end.
    Close { at: usize, ended: Ended, again: Vec<Seq>, goes_back: bool },
}

/// Works a bundle until each of its chunks is finished, given back, or lost.
pub async fn work(desk: &Desk, bundle: &Bundle) {
    let mut chunks: Vec<Open> =
        bundle.chunks.iter().map(|held| Open { left: held.items.len(), ..Open::default() }).collect();
    match desk.models.get_model(&desk.model) {
        Ok(served) => run(desk, bundle, &served, &mut chunks).await,
        Err(error) => {
            tracing::info!(%error, model = desk.model, "the model cannot serve; its items go back");
            chunks.iter_mut().for_each(|chunk| chunk.goes_back = true);
        }
    }
    for (at, chunk) in chunks.iter_mut().enumerate() {
        if let Some(due) = chunk.close(at) {
            write(bundle, due).await;
        }
    }
}

async fn run(desk: &Desk, bundle: &Bundle, served: &Arc<Served>, chunks: &mut [Open]) {
    let contexts = contexts(desk, bundle).await;
    let mut waiting: VecDeque<(usize, usize)> = bundle
        .chunks
        .iter()
        .enumerate()
        .flat_map(|(at, held)| (0..held.items.len()).map(move |item| (at, item)))
        .collect();
    let mut in_flight = FuturesUnordered::new();
    let mut writing: Option<BoxFuture<'_, ()>> = None;
    let mut flush = tokio::time::interval(Duration::from_millis(desk.flush_ms));
    flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut flush_is_due = false;
    let mut gate = desk.gate.clone();
    let mut takes_more = true;
    loop {
        while takes_more && in_flight.len() < desk.max_in_flight && !waiting.is_empty() {
            // without room for its result no item begins; the next tick looks again
            let Some(place) = bundle.place() else { break };
            let Some((at, item)) = waiting.pop_front() else { break };
            let context = contexts.get(&bundle.chunks[at].claim.job).cloned();
            in_flight.push(one(served, bundle, context, at, item, place));
        }
        if writing.is_none() {
            writing = next_due(chunks, &mut flush_is_due)
                .map(|due| -> BoxFuture<'_, ()> { Box::pin(write(bundle, due)) });
        }
        let takes_none = !takes_more || waiting.is_empty();
        if in_flight.is_empty() && writing.is_none() && takes_none {
            break;
        }
        tokio::select! {
            Some((at, ending, place)) = in_flight.next() => {
                count(&desk.model, &ending);
                take(bundle, chunks, at, ending, place);
            }
            Some(()) = OptionFuture::from(writing.as_mut()), if writing.is_some() => writing = None,
            _ = flush.tick() => flush_is_due = true,
            changed = gate.changed(), if takes_more => {
                takes_more = changed.is_ok() && gate.borrow_and_update().admits_work();
            }
            () = desk.shutdown.requested(), if takes_more => takes_more = false,
            () = desk.shutdown.requested_now() => break,
        }
    }
    // what was not taken up goes back
    for (at, _) in waiting {
        chunks[at].goes_back = true;
    }
}

/// What is to be written next: first chunks that have ended, then what has ended of others.
fn next_due(chunks: &mut [Open], flush_is_due: &mut bool) -> Option<Due> {
    for (at, chunk) in chunks.iter_mut().enumerate() {
        if chunk.left == 0
            && let Some(due) = chunk.close(at)
        {
            return Some(due);
        }
    }
    if !std::mem::take(flush_is_due) {
        return None;
    }
    let ready: Vec<(usize, Ended)> = chunks
        .iter_mut()
        .enumerate()
        .filter(|(_, chunk)| !chunk.is_closed && !chunk.ended.results.is_empty())
        .map(|(at, chunk)| (at, std::mem::take(&mut chunk.ended)))
        .collect();
    (!ready.is_empty()).then_some(Due::Commit(ready))
}

impl Open {
    /// Its end, once.
    fn close(&mut self, at: usize) -> Option<Due> {
        if std::mem::replace(&mut self.is_closed, true) {
            return None;
        }
        Some(Due::Close {
            at,
            ended: std::mem::take(&mut self.ended),
            again: std::mem::take(&mut self.again),
            goes_back: self.goes_back,
        })
    }
}

/// Writes until it is written; the room of the results is free afterwards.
async fn write(bundle: &Bundle, due: Due) {
    match due {
        Due::Commit(ready) => {
            let (results, _places): (Vec<_>, Vec<_>) =
                ready.into_iter().map(|(at, ended)| ((at, ended.results), ended.places)).unzip();
            bundle.commit(&results).await;
        }
        Due::Close { at, ended: Ended { results, places: _places }, again, goes_back } => {
            if goes_back && again.is_empty() {
                bundle.commit(&[(at, results)]).await;
                bundle.release(at).await;
            } else {
                // items in neither list wait again, as a chunk of their own
                bundle.finish(at, &results, &again).await;
            }
        }
    }
}

/// The jobs of a bundle. A job that cannot be read now is left out, and its items go back.
async fn contexts(desk: &Desk, bundle: &Bundle) -> HashMap<JobId, Arc<JobContext>> {
    let mut contexts = HashMap::new();
    for held in &bundle.chunks {
        let job = held.claim.job;
        if contexts.contains_key(&job) {
            continue;
        }
        match desk.contexts.get(job).await {
            Ok(Some(context)) => {
                contexts.insert(job, context);
            }
            Ok(None) => tracing::info!(%job, "the job was deleted while it was claimed"),
            Err(error) => tracing::warn!(%error, %job, "the job could not be read; its items go back"),
        }
    }
    contexts
}

/// One item. Losing the claim drops its sequence out of the engine.
async fn one(
    served: &Arc<Served>,
    bundle: &Bundle,
    context: Option<Arc<JobContext>>,
    at: usize,
    item: usize,
    place: Place,
) -> (usize, Ending, Place) {
    let held = &bundle.chunks[at];
    let item = &held.items[item];
    let Some(context) = context else { return (at, Ending::GivenBack, place) };
    let draft = ItemDraft { stage: item.stage, input: item.input.clone() };
    // let others of this task run: rendering and compiling are work, and a bundle has many items
    tokio::task::yield_now().await;
    let span = trace::item(held.claim.job.0, item.seq.into(), item.stage.as_str(), served.name());
    let answering = answer::answer(served, &context, item.seq, &draft, item.class as u8);
    let ending = tokio::select! {
        ending = answering.instrument(span.clone()) => ending,
        () = held.lost.cancelled() => Ending::GivenBack,
    };
    if let Ending::Ended(result) = &ending {
        trace::item_ended(&span, result.outcome.kind().as_str(), &result.usage);
    }
    (at, ending, place)
}

/// What `/metrics` says of this process's work.
fn count(model: &str, ending: &Ending) {
    let Ending::Ended(result) = ending else { return };
    metric::count(Metric::ItemsEnded, &[("model", model), ("outcome", result.outcome.kind().as_str())], 1);
    metric::observe(Metric::ItemSeconds, &[("model", model)], f64::from(result.latency_ms) / 1e3);
    super::count_tokens(model, &result.usage);
}

fn take(bundle: &Bundle, chunks: &mut [Open], at: usize, ending: Ending, place: Place) {
    let chunk = &mut chunks[at];
    chunk.left -= 1;
    match ending {
        Ending::Ended(result) => chunk.ended.push(result, place),
        Ending::Again { seq, code, message } if bundle.may_try_again(at) => {
            tracing::info!(seq, %code, message, "an item failed in a way that may pass");
            chunk.again.push(seq);
        }
        Ending::Again { seq, code, message } => chunk.ended.push(given_up(seq, code, message), place),
        Ending::GivenBack => chunk.goes_back = true,
    }
}

fn given_up(seq: Seq, code: Code, message: String) -> NewResult {
    NewResult {
        seq,
        outcome: Outcome::Failed { code, message },
        usage: Usage::default(),
        latency_ms: 0,
        confidence: None,
    }
}
