//! The binary as users run it: real process, private Postgres, small random models, HTTP and the CLI.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/postgres.rs"]
mod postgres;
mod support;

#[path = "pure/catalogs.rs"]
#[allow(dead_code)]
mod catalogs;
#[path = "e2e/server.rs"]
mod server;

#[path = "e2e/bench.rs"]
mod bench;
#[path = "e2e/cli.rs"]
mod cli;
#[path = "e2e/cli_control.rs"]
mod cli_control;
#[path = "e2e/cli_setup.rs"]
mod cli_setup;
#[path = "e2e/cli_since.rs"]
mod cli_since;
#[path = "e2e/cli_sources.rs"]
mod cli_sources;
#[path = "e2e/cli_stream.rs"]
mod cli_stream;
#[path = "e2e/crash.rs"]
mod crash;
#[path = "e2e/fair.rs"]
mod fair;
#[path = "e2e/gate.rs"]
mod gate;
#[path = "e2e/keys.rs"]
mod keys;
#[path = "e2e/large.rs"]
mod large;
#[path = "e2e/life.rs"]
mod life;
#[path = "e2e/openai.rs"]
mod openai;
#[path = "e2e/outage.rs"]
mod outage;
#[path = "e2e/trace.rs"]
mod trace;
#[path = "e2e/valid.rs"]
mod valid;
