//! Llama, SmolLM2, Mistral without a window: the plain decoder.

use super::Family;

pub const FAMILY: Family = Family {
    names: &["llama"],
    // llama.cpp turns neighbouring values, and its converter reorders rows to suit
    interleaved_in_gguf: true,
    ..Family::PLAIN
};
