//! apalis workers over our own chunk table: readiness gate, leases, fences, rescue, fairness.
//!
//! Sees readiness as a value, never the model manager.
