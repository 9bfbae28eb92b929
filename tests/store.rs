//! The store against a real PostgreSQL: what it promises at every commit.
#![allow(clippy::unwrap_used)]

#[path = "support/postgres.rs"]
mod postgres;

#[path = "store/batch.rs"]
mod batch;
#[path = "store/submit.rs"]
mod submit;

#[path = "store/embedded.rs"]
mod embedded;
#[path = "store/introspect.rs"]
mod introspect;
#[path = "store/large.rs"]
mod large;
