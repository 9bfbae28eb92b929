//! `/v1/jobs` and what lies below it.

pub mod change;
pub mod difference;
pub mod errors;
pub mod estimate;
pub mod events;
pub mod export;
pub mod list;
pub mod results;
pub mod schema;
mod since;
mod source;
pub mod submit;
pub mod throughput;
mod view;
