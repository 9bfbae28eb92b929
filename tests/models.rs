//! Models: readiness, loading, memory, tokenizers, templates, hub and package.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "models/tiny.rs"]
mod tiny;

#[path = "models/demo.rs"]
mod demo;
#[path = "models/fetch.rs"]
mod fetch;
#[path = "models/machine.rs"]
mod machine;
#[path = "models/manager.rs"]
mod manager;
#[path = "models/templates.rs"]
mod templates;
#[path = "models/text.rs"]
mod text;
#[path = "models/vocabulary.rs"]
mod vocabulary;
