//! One bundle through the engine: items in as fast as the engine takes them, results out every second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;

use super::answer::{self, Ending};
use super::context::{Contexts, JobContext};
use crate::domain::code::Code;
use crate::domain::id::{JobId, Seq};
use crate::domain::item::{ItemDraft, NewResult, Outcome};
use crate::domain::model::ModelStatus;
use crate::domain::usage::Usage;
use crate::models::manager::Manager;
use crate::models::served::Served;
use crate::queue::bundle::Bundle;
use crate::shutdown::Shutdown;
use crate::telemetry::metric::{self, Metric};

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
    /// Ended and not committed yet.
    results: Vec<NewResult>,
    again: Vec<Seq>,
    /// Items that have not ended.
    left: usize,
    /// Something of it goes back: it is released, not finished.
    goes_back: bool,
    is_closed: bool,
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
    for at in 0..chunks.len() {
        close(bundle, &mut chunks, at).await;
    }
}

async fn run(desk: &Desk, bundle: &Bundle, served: &Arc<Served>, chunks: &mut [Open]) {
    let contexts = contexts(desk, bundle).await;
    let mut waiting = bundle
        .chunks
        .iter()
        .enumerate()
        .flat_map(|(at, held)| (0..held.items.len()).map(move |item| (at, item)));
    let mut in_flight = FuturesUnordered::new();
    let mut flush = tokio::time::interval(Duration::from_millis(desk.flush_ms));
    flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut gate = desk.gate.clone();
    let mut takes_more = true;
    // chunks without an item left (all had ended before) end here
    for at in 0..chunks.len() {
        if chunks[at].left == 0 {
            close(bundle, chunks, at).await;
        }
    }
    loop {
        while takes_more && in_flight.len() < desk.max_in_flight {
            let Some((at, item)) = waiting.next() else { break };
            let context = contexts.get(&bundle.chunks[at].claim.job).cloned();
            in_flight.push(one(served, bundle, context, at, item));
        }
        if in_flight.is_empty() {
            break;
        }
        tokio::select! {
            Some((at, ending)) = in_flight.next() => {
                count(&desk.model, &ending);
                take(bundle, chunks, at, ending);
                if chunks[at].left == 0 {
                    close(bundle, chunks, at).await;
                }
            }
            _ = flush.tick() => commit(bundle, chunks).await,
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
    served: &Served,
    bundle: &Bundle,
    context: Option<Arc<JobContext>>,
    at: usize,
    item: usize,
) -> (usize, Ending) {
    let held = &bundle.chunks[at];
    let item = &held.items[item];
    let Some(context) = context else { return (at, Ending::GivenBack) };
    let draft = ItemDraft { stage: item.stage, input: item.input.clone() };
    // let others of this task run: rendering and compiling are work, and a bundle has many items
    tokio::task::yield_now().await;
    let ending = tokio::select! {
        ending = answer::answer(served, &context, item.seq, &draft, 0) => ending,
        () = held.lost.cancelled() => Ending::GivenBack,
    };
    (at, ending)
}

/// What `/metrics` says of this process's work.
fn count(model: &str, ending: &Ending) {
    let Ending::Ended(result) = ending else { return };
    metric::count(Metric::ItemsEnded, &[("model", model), ("outcome", result.outcome.kind().as_str())], 1);
    let usage = &result.usage;
    for (kind, n) in [
        ("prompt", usage.prompt_tokens),
        ("prefix_hit", usage.prefix_hit_tokens),
        ("output", usage.output_tokens),
        ("forced", usage.forced_tokens),
    ] {
        metric::count(Metric::Tokens, &[("model", model), ("kind", kind)], n);
    }
}

fn take(bundle: &Bundle, chunks: &mut [Open], at: usize, ending: Ending) {
    let chunk = &mut chunks[at];
    chunk.left -= 1;
    match ending {
        Ending::Ended(result) => chunk.results.push(result),
        Ending::Again { seq, code, message } if bundle.may_try_again(at) => {
            tracing::info!(seq, %code, message, "an item failed in a way that may pass");
            chunk.again.push(seq);
        }
        Ending::Again { seq, code, message } => chunk.results.push(given_up(seq, code, message)),
        Ending::GivenBack => chunk.goes_back = true,
    }
}

fn given_up(seq: Seq, code: Code, message: String) -> NewResult {
    NewResult { seq, outcome: Outcome::Failed { code, message }, usage: Usage::default(), latency_ms: 0 }
}

/// Commits what has ended of chunks that go on.
async fn commit(bundle: &Bundle, chunks: &mut [Open]) {
    let ready: Vec<(usize, Vec<NewResult>)> = chunks
        .iter_mut()
        .enumerate()
        .filter(|(_, chunk)| !chunk.is_closed && !chunk.results.is_empty())
        .map(|(at, chunk)| (at, std::mem::take(&mut chunk.results)))
        .collect();
    if !ready.is_empty() {
        bundle.commit(&ready).await;
    }
}

/// Ends a chunk, once.
async fn close(bundle: &Bundle, chunks: &mut [Open], at: usize) {
    let chunk = &mut chunks[at];
    if std::mem::replace(&mut chunk.is_closed, true) {
        return;
    }
    let results = std::mem::take(&mut chunk.results);
    let again = std::mem::take(&mut chunk.again);
    if chunk.goes_back && again.is_empty() {
        bundle.commit(&[(at, results)]).await;
        bundle.release(at).await;
    } else {
        // items in neither list wait again, as a chunk of their own
        bundle.finish(at, &results, &again).await;
    }
}
