//! Checkpoint files: safetensors and GGUF, headers first, and PEFT adapters.

pub mod adapter;
