//! The store against a real PostgreSQL: what it promises at every commit.
#![allow(clippy::unwrap_used)]

#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/postgres.rs"]
mod postgres;

#[path = "store/batch.rs"]
mod batch;
#[path = "store/submit.rs"]
mod submit;

#[path = "store/dump.rs"]
mod dump;
#[path = "store/embedded.rs"]
mod embedded;
#[path = "store/introspect.rs"]
mod introspect;
#[path = "store/introspect_mysql.rs"]
mod introspect_mysql;
#[path = "store/introspect_sqlite.rs"]
mod introspect_sqlite;
#[path = "store/large.rs"]
mod large;
#[path = "store/rerun.rs"]
mod rerun;
