//! The HTTP service against a real Postgres and a real model manager, mostly without a socket.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "support/answers.rs"]
mod answers;
#[path = "support"]
mod support {
    pub mod postgres;
    pub mod tiny;
}

#[path = "api/client.rs"]
mod client;
#[path = "api/connections.rs"]
mod connections;
#[path = "api/dashboard.rs"]
mod dashboard;
#[path = "api/document.rs"]
mod document;
#[path = "api/errors.rs"]
mod errors;
#[path = "api/events.rs"]
mod events;
#[path = "api/follow.rs"]
mod follow;
#[path = "api/harness.rs"]
mod harness;
#[path = "api/keys.rs"]
mod keys;
#[path = "api/models.rs"]
mod models;
#[path = "api/openai_batches.rs"]
mod openai_batches;
#[path = "api/openai_chat.rs"]
mod openai_chat;
#[path = "api/openai_files.rs"]
mod openai_files;
#[path = "api/quotas.rs"]
mod quotas;
#[path = "api/read.rs"]
mod read;
#[path = "api/since.rs"]
mod since;
#[path = "api/submit.rs"]
mod submit;
#[path = "api/tenants.rs"]
mod tenants;
