//! Who runs next, and with how many rows.
//!
//! Pure: values in, values out. Knows token counts, block counts, priorities and groups; never tokens,
//! grammars or tensors. Priorities are strict; within one, nobody starves.

pub mod foresight;
pub mod plan;
pub mod queue;
