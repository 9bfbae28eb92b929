//! From a claimed item to its committed result, and from one stage of a job to the next.
//!
//! The engine's side of a bundle runs as one stream of futures; what has ended is committed about every
//! second, so that a crash repeats only what was in flight. No transaction is open while a model runs.
//! Beside the queue's items: chat completions whose clients wait ([`chat`]), and batches on their way from a
//! file to a job and to its files ([`batch`]).
//! Knows domain, store, queue, extraction and served models. Never knows HTTP.

mod advance;
mod answer;
pub mod batch;
mod bundle;
pub mod chat;
mod context;
pub mod estimate;
pub mod forecast;
mod request;
mod speech;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::config::settings::Settings;
use crate::domain::usage::Usage;
use crate::models::manager::Manager;
use crate::queue::{Handler, Queue};
use crate::shutdown::Shutdown;
use crate::store::Store;
use crate::store::finish::StageDone;
use crate::telemetry::metric::{self, Metric};

pub use advance::finished_items;
use context::Contexts;
pub use speech::Piece;

/// Serves every configured model from `queue`, and advances jobs whose stage is done, until the process stops.
pub fn start(
    queue: &Queue,
    stages: mpsc::UnboundedReceiver<StageDone>,
    store: &Store,
    models: &Manager,
    settings: &Settings,
    shutdown: &Shutdown,
) {
    let contexts = Contexts::new(store.clone());
    for name in models.names() {
        let Ok(gate) = models.watch(&name) else { continue };
        let desk = Arc::new(bundle::Desk {
            model: name.clone(),
            models: models.clone(),
            contexts: contexts.clone(),
            gate: gate.clone(),
            shutdown: shutdown.clone(),
            max_in_flight: models.max_sequences(&name).unwrap_or(1).saturating_mul(4).max(1),
            flush_ms: settings.queue.flush_ms,
        });
        let handler: Handler = Arc::new(move |bundle| {
            let desk = desk.clone();
            Box::pin(async move { bundle::work(&desk, &bundle).await })
        });
        queue.serve(&name, gate, handler);
    }
    shutdown.spawn(advance::run(stages, store.clone(), contexts, shutdown.clone()));
    batch::start(store, models.names(), settings, shutdown);
}

/// What `/metrics` says of the tokens of an answer that has ended.
fn count_tokens(model: &str, usage: &Usage) {
    for (kind, n) in [
        ("prompt", usage.prompt_tokens),
        ("prefix_hit", usage.prefix_hit_tokens),
        ("output", usage.output_tokens),
        ("forced", usage.forced_tokens),
    ] {
        metric::count(Metric::Tokens, &[("model", model), ("kind", kind)], n);
    }
}
