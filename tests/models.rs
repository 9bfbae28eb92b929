//! Models: readiness, loading, memory, tokenizers, templates, hub and package.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "models/tiny.rs"]
mod tiny;

#[path = "models/fetch.rs"]
mod fetch;
#[path = "models/manager.rs"]
mod manager;
#[path = "models/text.rs"]
mod text;
