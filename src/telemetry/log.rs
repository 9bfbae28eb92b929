//! The tracing subscriber.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::trace::Exporter;

/// How log lines look. They go to stderr; results own stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Colours on a terminal, plain text elsewhere.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Used when no filter is given, or the given one cannot be read.
pub const DEFAULT_FILTER: &str = "info,sqlx=warn,hyper=warn,hf_hub=warn";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log filter '{filter}': {source}")]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("logging was set up twice")]
    Twice(#[from] TryInitError),
}

/// Sets up logging for the process. `filter` is in `RUST_LOG`'s language; absent: [`DEFAULT_FILTER`]. It is about
/// lines alone: `exporter` gets its spans whatever it says.
pub fn init(format: Format, filter: Option<&str>, exporter: Option<&Exporter>) -> Result<(), LogError> {
    let filter = filter.filter(|text| !text.trim().is_empty()).unwrap_or(DEFAULT_FILTER);
    let filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| LogError::Filter { filter: filter.to_string(), source })?;
    let lines = tracing_subscriber::fmt::layer::<Registry>().with_writer(stderr);
    let lines = match format {
        Format::Text => lines.with_ansi(stderr().is_terminal()).with_target(false).boxed(),
        Format::Json => lines.json().flatten_event(true).with_current_span(true).boxed(),
    };
    let spans = exporter.map(Exporter::layer);
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).try_init()?;
    Ok(())
}
