//! Checkpoint files: safetensors and GGUF, headers first, and PEFT adapters.
//!
//! Files are read with positioned reads, never mapped: a file that is cut while it is read gives an
//! error, not a signal. Nothing that can execute code is ever opened.

pub mod adapter;
pub mod checkpoint;
pub mod dtype;
pub mod ggml;
pub mod random;
pub mod safetensors;
