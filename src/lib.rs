//! adit: a self-hosted batch extraction service. This page is the map.
//!
//! A job comes in over HTTP ([`api`]), is written to Postgres in one transaction ([`store`]), and is
//! claimed in chunks by workers ([`queue`]) once the model it needs is Ready ([`models`]). A worker
//! ([`worker`]) turns each item into a prompt and a schema ([`extract`]), the engine ([`engine`]) answers
//! many of them in one ragged batch over a model ([`nn`]), and the result is committed under the claim's
//! fence. Finished jobs are read back as pages, streams or files ([`export`]).
//!
//! OpenAI's paths lie beside: a batch is a job over a file's lines, with its results read back as files
//! ([`worker::batch`]); a chat completion passes the queue by and is answered while its client waits
//! ([`worker::chat`]).
//!
//! A module imports only from rows below its own; `tests/tidy.rs` holds that, and where the heavy crates
//! may be named.
//!
//! ```text
//!  8  main
//!  7  cli                        commands; the only println
//!  6  app                        composition root: builds everything, order of starting and stopping
//!  5  api           client       axum handlers, OpenAPI, dashboard | typed HTTP client of our own API
//!  4  worker                     one claimed item from prompt to committed result; stages of a job
//!  3  queue         models       apalis, readiness gate, fences, fairness | states, memory plan, loading
//!  2  store         engine       all SQL | scheduler, KV, prefix cache, grammar, sampling
//!  1  config  extract  export  nn  wire
//!                                settings | sources, prompts, schemas, answers | writers | numerics | JSON
//!  0  domain  clock  shutdown  telemetry
//!                                nouns and their state machines | …
//! ```

pub mod clock;
pub mod domain;
pub mod shutdown;
pub mod telemetry;

pub mod config;
pub mod export;
pub mod extract;
pub mod nn;
pub mod wire;

pub mod engine;
pub mod store;

pub mod models;
pub mod queue;

pub mod worker;

pub mod api;
pub mod client;

pub mod app;

pub mod cli;
