//! Metrics: their names, and the registry that `/metrics` prints.

use std::sync::OnceLock;

use metrics::{Label, SharedString, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Every metric there is. Counters end in `_total`, as Prometheus wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    HttpRequests,
    HttpSeconds,
    JobsSubmitted,
    ItemsSubmitted,
    ItemsEnded,
    Tokens,
    ChatCompletions,
    ItemSeconds,
    QueueItems,
    QueueOldestSeconds,
    Claims,
    ClaimedItems,
    ModelStates,
    ModelLoadBytes,
    ModelLoadSeconds,
    StepRows,
    StepSeconds,
    EngineGauge,
    EngineCounter,
    DatabaseUp,
    ProcessBytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Metric {
    pub const ALL: [Metric; 21] = [
        Metric::HttpRequests,
        Metric::HttpSeconds,
        Metric::JobsSubmitted,
        Metric::ItemsSubmitted,
        Metric::ItemsEnded,
        Metric::Tokens,
        Metric::ChatCompletions,
        Metric::ItemSeconds,
        Metric::QueueItems,
        Metric::QueueOldestSeconds,
        Metric::Claims,
        Metric::ClaimedItems,
        Metric::ModelStates,
        Metric::ModelLoadBytes,
        Metric::ModelLoadSeconds,
        Metric::StepRows,
        Metric::StepSeconds,
        Metric::EngineGauge,
        Metric::EngineCounter,
        Metric::DatabaseUp,
        Metric::ProcessBytes,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Metric::HttpRequests => "adit_http_requests_total",
            Metric::HttpSeconds => "adit_http_request_seconds",
            Metric::JobsSubmitted => "adit_jobs_submitted_total",
            Metric::ItemsSubmitted => "adit_items_submitted_total",
            Metric::ItemsEnded => "adit_items_ended_total",
            Metric::Tokens => "adit_tokens_total",
            Metric::ChatCompletions => "adit_chat_completions_total",
            Metric::ItemSeconds => "adit_item_seconds",
            Metric::QueueItems => "adit_queue_items",
            Metric::QueueOldestSeconds => "adit_queue_oldest_seconds",
            Metric::Claims => "adit_claims_total",
            Metric::ClaimedItems => "adit_claimed_items_total",
            Metric::ModelStates => "adit_model_state",
            Metric::ModelLoadBytes => "adit_model_load_bytes",
            Metric::ModelLoadSeconds => "adit_model_load_seconds",
            Metric::StepRows => "adit_step_rows",
            Metric::StepSeconds => "adit_step_seconds",
            Metric::EngineGauge => "adit_engine",
            Metric::EngineCounter => "adit_engine_total",
            Metric::DatabaseUp => "adit_database_up",
            Metric::ProcessBytes => "adit_process_resident_bytes",
        }
    }

    pub fn kind(self) -> Kind {
        match self {
            Metric::HttpRequests
            | Metric::JobsSubmitted
            | Metric::ItemsSubmitted
            | Metric::ItemsEnded
            | Metric::Tokens
            | Metric::ChatCompletions
            | Metric::Claims
            | Metric::ClaimedItems
            | Metric::EngineCounter => Kind::Counter,
            Metric::HttpSeconds | Metric::ItemSeconds | Metric::StepRows | Metric::StepSeconds => {
                Kind::Histogram
            }
            Metric::QueueItems
            | Metric::QueueOldestSeconds
            | Metric::ModelLoadSeconds
            | Metric::ModelStates
            | Metric::ModelLoadBytes
            | Metric::EngineGauge
            | Metric::DatabaseUp
            | Metric::ProcessBytes => Kind::Gauge,
        }
    }

    pub fn about(self) -> &'static str {
        match self {
            Metric::HttpRequests => "Requests answered, by route, method and status.",
            Metric::HttpSeconds => "Seconds from a request's head to its answer's head, by route.",
            Metric::JobsSubmitted => "Jobs committed, by task.",
            Metric::ItemsSubmitted => "Items committed at submission, by task.",
            Metric::ItemsEnded => "Items ended in this process, by model and outcome.",
            Metric::Tokens => {
                "Tokens of items and chat completions ended in this process, by model and kind."
            }
            Metric::ChatCompletions => {
                "Chat completions ended, by model and how: stop, length, failed, gone."
            }
            Metric::ItemSeconds => "Seconds from an item's hand-over to the engine to its end, by model.",
            Metric::QueueItems => "Items that wait, by model.",
            Metric::QueueOldestSeconds => {
                "Seconds since the oldest job with waiting items was submitted, by the model they wait for."
            }
            Metric::Claims => "Claims of this process that got work, by model.",
            Metric::ClaimedItems => "Items those claims got, by model.",
            Metric::ModelStates => "1 for the state a model is in, 0 for the others.",
            Metric::ModelLoadBytes => "Bytes of a model's files loaded so far, and their total.",
            Metric::ModelLoadSeconds => "Seconds that the load of a ready model took.",
            Metric::StepRows => "Tokens of a step, by engine: the model its base was loaded for.",
            Metric::StepSeconds => "Seconds of a step, by engine.",
            Metric::EngineGauge => "Engine readings of a ready model, by what is read.",
            Metric::EngineCounter => "Engine counters of a ready model since its load, by what is counted.",
            Metric::DatabaseUp => "1 if Postgres answered the scrape.",
            Metric::ProcessBytes => "Resident memory of the process.",
        }
    }

    fn unit(self) -> Option<Unit> {
        match self {
            Metric::HttpSeconds
            | Metric::ItemSeconds
            | Metric::QueueOldestSeconds
            | Metric::ModelLoadSeconds
            | Metric::StepSeconds => Some(Unit::Seconds),
            Metric::ModelLoadBytes | Metric::ProcessBytes => Some(Unit::Bytes),
            _ => None,
        }
    }

    /// Upper bounds of a histogram's buckets; none of anything else.
    fn buckets(self) -> &'static [f64] {
        match self {
            Metric::HttpSeconds => &[0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0],
            Metric::ItemSeconds => &[0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0],
            Metric::StepRows => &[1.0, 4.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 4_096.0],
            Metric::StepSeconds => &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0],
            _ => &[],
        }
    }

    fn key(self, labels: &[(&'static str, &str)]) -> metrics::Key {
        let labels: Vec<Label> = labels
            .iter()
            .map(|(key, value)| Label::new(*key, SharedString::from(value.to_string())))
            .collect();
        metrics::Key::from_parts(self.name(), labels)
    }
}

const METADATA: metrics::Metadata<'static> =
    metrics::Metadata::new("adit", metrics::Level::INFO, Some("adit"));

/// Adds to a counter. A no-op until [`install`] was called.
pub fn count(metric: Metric, labels: &[(&'static str, &str)], n: u64) {
    debug_assert_eq!(metric.kind(), Kind::Counter);
    metrics::with_recorder(|recorder| recorder.register_counter(&metric.key(labels), &METADATA).increment(n));
}

/// Sets a counter that is kept elsewhere; it must not fall.
pub fn set_count(metric: Metric, labels: &[(&'static str, &str)], n: u64) {
    debug_assert_eq!(metric.kind(), Kind::Counter);
    metrics::with_recorder(|recorder| recorder.register_counter(&metric.key(labels), &METADATA).absolute(n));
}

/// Sets a gauge.
pub fn gauge(metric: Metric, labels: &[(&'static str, &str)], value: f64) {
    debug_assert_eq!(metric.kind(), Kind::Gauge);
    metrics::with_recorder(|recorder| recorder.register_gauge(&metric.key(labels), &METADATA).set(value));
}

/// Records one reading of a distribution.
pub fn observe(metric: Metric, labels: &[(&'static str, &str)], value: f64) {
    debug_assert_eq!(metric.kind(), Kind::Histogram);
    metrics::with_recorder(|recorder| {
        recorder.register_histogram(&metric.key(labels), &METADATA).record(value);
    });
}

/// The process's registry. Cloneable; printing it is cheap.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

/// Sets up the registry once per process; later calls give the same one.
pub fn install() -> Metrics {
    static INSTALLED: OnceLock<Metrics> = OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            let buckets = Metric::ALL.into_iter().map(|metric| (metric, metric.buckets()));
            let builder = buckets.filter(|(_, buckets)| !buckets.is_empty()).fold(
                PrometheusBuilder::new(),
                |builder, (metric, buckets)| {
                    builder
                        .set_buckets_for_metric(Matcher::Full(metric.name().into()), buckets)
                        .expect("the bucket list is not empty")
                },
            );
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another metrics recorder was installed first; /metrics stays empty");
            }
            for metric in Metric::ALL {
                metrics::with_recorder(|recorder| {
                    let (name, about) = (metric.name().into(), metric.about().into());
                    match metric.kind() {
                        Kind::Counter => recorder.describe_counter(name, metric.unit(), about),
                        Kind::Gauge => recorder.describe_gauge(name, metric.unit(), about),
                        Kind::Histogram => recorder.describe_histogram(name, metric.unit(), about),
                    }
                });
            }
            Metrics { handle }
        })
        .clone()
}

impl Metrics {
    /// The text that Prometheus scrapes.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        for metric in Metric::ALL {
            let name = metric.name();
            assert!(name.starts_with("adit_") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
            assert_eq!(name.ends_with("_total"), metric.kind() == Kind::Counter, "{name}");
            assert_eq!(metric.buckets().is_empty(), metric.kind() != Kind::Histogram, "{name}");
        }
    }

    #[test]
    fn a_counted_thing_is_printed_with_its_labels() {
        let metrics = install();
        count(Metric::JobsSubmitted, &[("task", "custom")], 2);
        gauge(Metric::QueueItems, &[("model", "a \"quoted\" name")], 7.0);
        let text = metrics.render();
        assert!(text.contains("adit_jobs_submitted_total{task=\"custom\"} 2"), "{text}");
        assert!(text.contains("adit_queue_items{model=\"a \\\"quoted\\\" name\"} 7"), "{text}");
        assert!(text.contains("# HELP adit_queue_items"), "{text}");
    }
}
