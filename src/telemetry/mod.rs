//! What the process says of itself: log lines, metrics and spans.
//!
//! - A prompt, an answer or an input is never logged, at any level; ids, counts and codes are.
//! - A log line is written once, where its cause is handled. Request lines carry the request id.
//! - Every metric has its name in [`metric::Metric`]; labels are bounded: words of enums and names of
//!   configured models, never ids.

pub mod log;
pub mod metric;
pub mod process;
pub mod trace;
