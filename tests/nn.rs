//! Numerics against the reference implementation, and against themselves in other shapes.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "nn/files.rs"]
mod files;
#[path = "nn/golden.rs"]
mod golden;
#[path = "nn/harness.rs"]
mod harness;
#[path = "nn/merged.rs"]
mod merged;
#[path = "nn/peer.rs"]
mod peer;
#[path = "nn/random.rs"]
mod random;
#[path = "nn/real.rs"]
mod real;
#[path = "nn/reference.rs"]
mod reference;
#[path = "nn/shapes.rs"]
mod shapes;
