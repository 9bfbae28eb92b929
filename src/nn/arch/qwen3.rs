//! Qwen3: norms on the heads of q and k, whose size does not follow from the hidden size.

use super::Family;

pub const FAMILY: Family = Family { names: &["qwen3"], qk_norm: true, ..Family::PLAIN };
