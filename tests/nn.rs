//! Numerics against the reference implementation, and against themselves in other shapes.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "nn/files.rs"]
mod files;
#[path = "nn/golden.rs"]
mod golden;
#[path = "nn/harness.rs"]
mod harness;
#[path = "nn/real.rs"]
mod real;
#[path = "nn/shapes.rs"]
mod shapes;
