//! The engine: scheduling, KV, grammar and endings over a fake executor, and exactness over a small model.
#![allow(clippy::unwrap_used)]

#[path = "engine/adapters.rs"]
mod adapters;
#[path = "engine/coverage.rs"]
mod coverage;
#[path = "engine/ends.rs"]
mod ends;
#[path = "engine/exact.rs"]
mod exact;
#[path = "engine/follow.rs"]
mod follow;
#[path = "engine/grammar.rs"]
mod grammar;
#[path = "engine/kv.rs"]
mod kv;
#[path = "engine/lookup.rs"]
mod lookup;
#[path = "engine/memory.rs"]
mod memory;
#[path = "engine/plan.rs"]
mod plan;
#[path = "engine/rig.rs"]
mod rig;
#[path = "engine/schemas.rs"]
mod schemas;
#[path = "support/tiny.rs"]
mod tiny;
#[path = "engine/traces.rs"]
mod traces;
