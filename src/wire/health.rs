//! Answers of the probes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Answer of `/livez` and `/readyz` when all is well; otherwise they answer a problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// Version of the running binary.
    pub version: String,
}
