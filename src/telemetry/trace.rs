//! Spans for an OpenTelemetry collector: job → item, and the engine's steps, each linked to the items it served.
//!
//! A job may run for days, in several processes. So its trace is named after it: the job's id is the trace id, and
//! every process knows the job's own span without asking. That span is sent when the job has ended. A step serves
//! many items and is a child of none: it is a trace of its own with links.
//! Prompt and answer are never part of a span.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracer, SdkTracerProvider};
use tracing::Span;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;
use uuid::Uuid;

use crate::domain::usage::Usage;

/// Target of the spans that are sent; their names stand in no log filter by default.
pub const TARGET: &str = "adit::trace";

/// Where spans go.
#[derive(Clone, Debug)]
pub struct Exporter {
    provider: SdkTracerProvider,
}

#[derive(Debug, thiserror::Error)]
#[error("spans cannot be sent to {endpoint}: {source}")]
pub struct TraceError {
    endpoint: String,
    source: opentelemetry_otlp::ExporterBuildError,
}

impl Exporter {
    /// Sends spans to `endpoint`, the base address of a collector's OTLP over HTTP (`http://host:4318`), in the
    /// background. Headers and time-outs are read from OpenTelemetry's own environment variables.
    pub fn new(endpoint: &str) -> Result<Self, TraceError> {
        // the HTTP client is built without one; a second call changes nothing
        let _ = rustls::crypto::ring::default_provider().install_default();
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpJson)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .build()
            .map_err(|source| TraceError { endpoint: endpoint.into(), source })?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_id_generator(Ids::default())
            .with_resource(Resource::builder().with_service_name("adit").build())
            .build();
        Ok(Self { provider })
    }

    /// What takes spans out of `tracing`.
    pub fn layer<S: tracing::Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let only_ours = Targets::new().with_target(TARGET, LevelFilter::TRACE);
        tracing_opentelemetry::layer().with_tracer(self.tracer()).with_location(false).with_filter(only_ours)
    }

    /// From here on [`job_ended`] sends to this exporter. The first one stays.
    pub fn install(&self) {
        let _ = INSTALLED.set(self.clone());
    }

    fn tracer(&self) -> SdkTracer {
        self.provider.tracer("adit")
    }

    fn job_ended(&self, job: &EndedJob<'_>) {
        let context = Context::new();
        NEXT.set(Some((trace_id(job.id), span_id(job.id))));
        let builder = SpanBuilder::from_name("job")
            .with_start_time(SystemTime::from(job.created_at))
            .with_attributes([
                KeyValue::new("job", job.id.to_string()),
                KeyValue::new("task", job.task.to_string()),
                KeyValue::new("state", job.state.to_string()),
                KeyValue::new("items", job.items),
                KeyValue::new("succeeded", job.succeeded),
            ]);
        let mut span = self.tracer().build_with_context(builder, &context);
        NEXT.set(None);
        if job.succeeded < job.items {
            span.set_status(Status::error(format!("{} of {} items succeeded", job.succeeded, job.items)));
        }
        span.end_with_timestamp(SystemTime::from(job.finished_at));
    }

    /// Sends what is left. Blocks for as long as the collector takes, within its time-out.
    pub fn shutdown(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

static INSTALLED: OnceLock<Exporter> = OnceLock::new();

/// Whether spans are sent.
pub fn is_on() -> bool {
    INSTALLED.get().is_some()
}

/// Sends the span of a job that has ended. A no-op until [`Exporter::install`] was called.
pub fn job_ended(job: &EndedJob<'_>) {
    if let Some(exporter) = INSTALLED.get() {
        exporter.job_ended(job);
    }
}

/// What a job's span says.
#[derive(Clone, Copy, Debug)]
pub struct EndedJob<'a> {
    pub id: Uuid,
    pub task: &'a str,
    pub state: &'a str,
    pub items: i64,
    pub succeeded: i64,
    pub created_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
}

/// The span of one item's way through the engine, a child of its job's.
pub fn item(job: Uuid, seq: i64, stage: &str, model: &str) -> Span {
    let span = tracing::info_span!(
        target: TARGET, "item", %job, seq, stage, model,
        outcome = tracing::field::Empty, prompt_tokens = tracing::field::Empty, output_tokens = tracing::field::Empty
    );
    let parent =
        SpanContext::new(trace_id(job), span_id(job), TraceFlags::SAMPLED, true, TraceState::default());
    // refused where no collector is set: then nobody misses it
    let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    span
}

/// How an item ended, on its span.
pub fn item_ended(span: &Span, outcome: &str, usage: &Usage) {
    span.record("outcome", outcome);
    span.record("prompt_tokens", usage.prompt_tokens);
    span.record("output_tokens", usage.output_tokens);
}

/// The span of one step; entered and left on the engine's thread.
pub fn step(engine: &str, sequences: usize) -> Span {
    tracing::debug_span!(target: TARGET, "step", engine, sequences, rows = tracing::field::Empty)
}

fn trace_id(job: Uuid) -> TraceId {
    TraceId::from_bytes(*job.as_bytes())
}

/// The random half of the job's id.
fn span_id(job: Uuid) -> SpanId {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&job.as_bytes()[8..]);
    SpanId::from_bytes(bytes)
}

thread_local! {
    /// The ids of the span that this thread makes next, where they are given.
    static NEXT: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Random ids, but for a job's own span.
#[derive(Debug, Default)]
struct Ids {
    random: RandomIdGenerator,
}

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        NEXT.get().map_or_else(|| self.random.new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        NEXT.get().map_or_else(|| self.random.new_span_id(), |(_, span)| span)
    }
}
