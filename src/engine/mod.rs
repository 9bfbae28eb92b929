//! The engine of one base: one OS thread that owns the executor, the KV pool and every sequence.
//!
//! `commands → plan (pure) → forward(ragged batch) → sample under grammar → deliver → …`
//!
//! Knows tokens. Never knows text, jobs, HTTP or Postgres.

mod adapters;
mod admission;
pub mod executor;
pub mod grammar;
pub mod handle;
mod heads;
pub mod kv;
pub mod lookup;
mod merging;
pub mod request;
pub mod sampling;
pub mod scheduler;
mod sequence;
pub mod stats;
mod step;
mod thread;
