//! Numerics against the reference implementation, and against themselves in other shapes.
#![allow(clippy::unwrap_used)]

#[path = "nn/golden.rs"]
mod golden;
#[path = "nn/harness.rs"]
mod harness;
#[path = "nn/shapes.rs"]
mod shapes;
