//! All SQL. One Postgres holds all truth; a row becomes a domain value here and nowhere else.
//!
//! Never knows HTTP, models or tokens.

pub mod introspect;
