//! Settings: `adit.toml`, flags, environment and `.env`, in one struct with checked values.
//!
//! Precedence, highest first: flags, environment, `.env`, `adit.toml`, defaults. A value that cannot be
//! used is refused with the key's path. The only place that reads the environment.

pub mod settings;
