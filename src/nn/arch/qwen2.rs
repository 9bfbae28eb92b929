//! Qwen2 and Qwen2.5: biases on q, k and v.

use super::Family;

pub const FAMILY: Family = Family { names: &["qwen2"], qkv_bias: true, ..Family::PLAIN };
