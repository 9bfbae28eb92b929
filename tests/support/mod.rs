//! Shared by the integration tests: small random checkpoints and what else several binaries need.

pub mod hub;
pub mod tiny;
