//! Logs and metrics. Names of metrics are an enum's, never strings at the call site.
