//! apalis workers over our own chunk table: readiness gate, leases, rescue, pace.
//!
//! One [`Queue`] per process listens, renews and rescues; [`Queue::serve`] runs an apalis worker per model.
//! Sees readiness as a value, never the model manager. Knows no tokens and no prompts.
//!
//! - Nothing is claimed while the gate is shut; a claim in flight is always driven to its end.
//! - Every claim in hand is renewed until its [`bundle::Bundle`] is dropped; a claim that was lost cancels
//!   its token, and the fence keeps late writes out.
//! - A database that is away ends nothing: claims pause, writes wait.

pub mod backend;
pub mod bundle;
pub mod ended;
mod hands;
mod pace;
pub mod worker;

pub use worker::{Handler, Queue};
