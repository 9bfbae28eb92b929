//! CPU kernels over caller's buffers. Nothing here allocates after load.
//!
//! Every kernel is written once, generic over [`simd::Simd`] (16 lanes), and compiled for each
//! instruction set of [`isa::Isa`], one of which is chosen when a model is loaded. The portable set is the
//! twin that tests compare the others with.
//!
//! Never knows layers or files.

// register tiles are arrays indexed by constants; iterators over them do not stay in registers
#![allow(clippy::needless_range_loop)]

pub mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod buffer;
pub mod embedding;
pub mod exp_sum;
pub mod gemm;
pub mod isa;
pub mod kv_write;
pub mod linear;
pub mod norm;
pub mod packed;
pub mod quant;
pub mod rope;
pub mod simd;
pub mod threads;

/// Lanes of a vector, columns of a weight panel, tokens of a K tile.
pub const LANES: usize = 16;
