//! `/metrics`: what is counted as it happens, and what is read when Prometheus asks.

use axum::extract::State as Shared;
use axum::http::header;
use axum::response::IntoResponse;

use super::state::State;
use crate::domain::model::{ModelState, ModelStatus};
use crate::telemetry::metric::{self, Metric};
use crate::telemetry::process;

/// Metrics in Prometheus's text format.
#[utoipa::path(
    get, path = "/metrics", tag = "service",
    responses((status = 200, description = "All metrics.", body = String, content_type = "text/plain")),
)]
pub async fn metrics(Shared(state): Shared<State>) -> impl IntoResponse {
    read_queue(&state).await;
    read_models(&state);
    if let Some(bytes) = process::resident_bytes() {
        metric::gauge(Metric::ProcessBytes, &[], bytes as f64);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render())
}

async fn read_queue(state: &State) {
    let waiting = state.store.waiting_by_model().await;
    metric::gauge(Metric::DatabaseUp, &[], if waiting.is_ok() { 1.0 } else { 0.0 });
    let Ok(waiting) = waiting else { return };
    // only configured names: a label's values must stay bounded whatever old jobs say
    for model in state.models.names() {
        let items = waiting.get(&model).copied().unwrap_or(0);
        metric::gauge(Metric::QueueItems, &[("model", &model)], items as f64);
    }
    let Ok(oldest) = state.store.oldest_waiting_by_model().await else { return };
    for model in state.models.names() {
        let seconds = oldest.get(&model).copied().unwrap_or(0.0);
        metric::gauge(Metric::QueueOldestSeconds, &[("model", &model)], seconds);
    }
}

fn read_models(state: &State) {
    const STATES: [ModelState; 4] =
        [ModelState::NotLoaded, ModelState::Loading, ModelState::Ready, ModelState::Error];
    for (model, status) in state.models.get_all_statuses() {
        for word in STATES {
            let is = if word == status.state() { 1.0 } else { 0.0 };
            metric::gauge(Metric::ModelStates, &[("model", &model), ("state", word.as_str())], is);
        }
        if let ModelStatus::Loading { progress, .. } = &status {
            for (what, bytes) in [("done", progress.bytes_done), ("total", progress.bytes_total)] {
                metric::gauge(Metric::ModelLoadBytes, &[("model", &model), ("what", what)], bytes as f64);
            }
        }
        if let ModelStatus::Ready { load_s, .. } = &status {
            metric::gauge(Metric::ModelLoadSeconds, &[("model", &model)], *load_s);
        }
        read_engine(state, &model);
    }
}

/// Models that share a base share its engine, and show the same readings.
fn read_engine(state: &State, model: &str) {
    let Ok(served) = state.models.get_model(model) else { return };
    let stats = served.engine().stats();
    for (what, value) in [
        ("steps", stats.steps),
        ("rows", stats.rows),
        ("merged_rows", stats.merged_rows),
        ("prompt_tokens", stats.prompt_tokens),
        ("prefix_hit_tokens", stats.prefix_hit_tokens),
        ("output_tokens", stats.output_tokens),
        ("forced_tokens", stats.forced_tokens),
        ("drafted_tokens", stats.drafted_tokens),
        ("accepted_tokens", stats.accepted_tokens),
        ("completed", stats.completed),
        ("failed", stats.failed),
        ("cancelled", stats.cancelled),
        ("preemptions", stats.preemptions),
        ("splits", stats.splits),
    ] {
        metric::set_count(Metric::EngineCounter, &[("model", model), ("what", what)], value);
    }
    for (what, value) in [
        ("running", stats.running as f64),
        ("queued", stats.queued as f64),
        ("kv_blocks_used", stats.kv_blocks_used as f64),
        ("kv_blocks_cached", stats.kv_blocks_cached as f64),
        ("kv_blocks_total", stats.kv_blocks_total as f64),
        ("step_ms_last", stats.step_ms_last),
        ("step_ms_max", stats.step_ms_max),
        ("step_ms_sum", stats.step_ms_sum),
        ("forward_ms_sum", stats.forward_ms_sum),
        ("mask_ms_sum", stats.mask_ms_sum),
        ("advance_ms_sum", stats.advance_ms_sum),
        ("prefix_cache", f64::from(u8::from(stats.levers.prefix_cache))),
        ("jump_forward", f64::from(u8::from(stats.levers.jump_forward))),
        ("merge_adapters", f64::from(u8::from(stats.levers.merge_adapters))),
        ("max_sequences", stats.levers.max_sequences as f64),
    ] {
        metric::gauge(Metric::EngineGauge, &[("model", model), ("what", what)], value);
    }
}
