//! Wall clock. The one place that asks the system what time it is, so that tests can hold it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Utc};

/// Source of "now" for everything that is stored or compared with what is stored.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Milliseconds since the epoch when the clock is held by a test; `None` follows the system.
    held_ms: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// A clock that stands still until [`Clock::set_ms`] moves it.
    pub fn held_at_ms(ms: i64) -> Self {
        Self { held_ms: Some(Arc::new(AtomicI64::new(ms))) }
    }

    /// Moves a held clock; a system clock is left alone.
    pub fn set_ms(&self, ms: i64) {
        if let Some(held) = &self.held_ms {
            held.store(ms, Ordering::SeqCst);
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the sanctioned place")]
    pub fn now(&self) -> DateTime<Utc> {
        match &self.held_ms {
            Some(held) => DateTime::from_timestamp_millis(held.load(Ordering::SeqCst)).unwrap_or_default(),
            None => Utc::now(),
        }
    }
}
