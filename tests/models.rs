//! Models: readiness, loading, memory, tokenizers, templates, hub and package.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "models/tiny.rs"]
mod tiny;
