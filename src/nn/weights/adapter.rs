//! PEFT LoRA adapters.

/// An adapter's matrices, checked against the base they belong to.
pub struct Adapter {}
