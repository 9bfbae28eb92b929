//! HTTP: axum handlers, the OpenAPI document they are described by, and the pages of the dashboard.
//!
//! One file per endpoint or pair of endpoints; [`router`] is called by tests without a socket. A handler reads
//! its request into a type that has been checked ([`validate`], [`body`]), asks store or models, and answers
//! a type of [`crate::wire`].
//!
//! Never knows engines, tensors or apalis, and writes no SQL. Invariants:
//! - Every error is `application/problem+json`, or OpenAI's error object under OpenAI's paths, with a code of [`crate::domain::code`], the request's id and no
//!   internals: causes go to the log under that id ([`problem`], [`layers`]).
//! - A route exists exactly if the document has it: both come from the same macro ([`routes`]).
//! - 2xx on a submission means that the job is committed; a failed one left nothing behind.
//! - No body, list or result set is held in memory whole, except JSON bodies, which are bounded.
//! - Who asks is found out by one layer ([`caller`]) from one table ([`access`]), before any handler runs; what is not
//!   the caller's tenant's is answered as if it did not exist.
//! - Open streams and open submissions are bounded by the settings.

mod access;
mod batches;
mod body;
mod caller;
mod chat;
mod events;
mod files;
mod health;
mod jobs;
mod keyring;
mod keys;
mod layers;
mod metrics;
mod models;
mod pages;
mod problem;
mod routes;
mod serve;
mod sse;
mod state;
mod validate;

pub use access::{Access, ROUTES};
pub use routes::{document, router};
pub use serve::serve;
pub use state::{Parts, SchemaCheck, SchemaIssue, State};
