//! The engine over a fake executor: scheduling, KV, grammar and endings, with no model.
#![allow(clippy::unwrap_used)]

#[path = "engine/ends.rs"]
mod ends;
#[path = "engine/grammar.rs"]
mod grammar;
#[path = "engine/kv.rs"]
mod kv;
#[path = "engine/plan.rs"]
mod plan;
#[path = "engine/rig.rs"]
mod rig;
#[path = "engine/schemas.rs"]
mod schemas;
#[path = "engine/traces.rs"]
mod traces;
