//! Kernels on an NVIDIA Hopper card: the counterpart of [`super::cpu`], op by op under the same names.
//!
//! [`card`] opens a card (memory, stream and cuBLAS by candle's device), holds buffers and launches what
//! `src/kernels/*.cu` was compiled to; each op checks its buffers' sizes and then launches. All work of a card
//! goes to one stream, so ops run in the order of their calls and memory is freed behind them.
//!
//! Never knows layers or files. Values are bf16 or f16 ([`Element`]), sums f32.

pub mod activation;
pub mod attention;
pub mod card;
pub mod ceiling;
pub mod embedding;
pub mod gemm;
pub mod graph;
pub mod lora;
pub mod norm;
pub mod rope;
pub mod sample;

use candle_core::cuda_backend::cudarc::cublas::sys::cudaDataType;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, ValidAsZeroBits};
use half::{bf16, f16};

/// The types of weights, activations and KV.
pub trait Element: DeviceRepr + ValidAsZeroBits + Copy + Send + 'static {
    /// As kernels' names end.
    const NAME: &'static str;
    const CUBLAS: cudaDataType;
    fn from_f32(value: f32) -> Self;
    fn from_bits(bits: u16) -> Self;
    fn to_f32(self) -> f32;
}

impl Element for bf16 {
    const NAME: &'static str = "bf16";
    const CUBLAS: cudaDataType = cudaDataType::CUDA_R_16BF;
    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn from_bits(bits: u16) -> Self {
        Self::from_bits(bits)
    }
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
}

impl Element for f16 {
    const NAME: &'static str = "f16";
    const CUBLAS: cudaDataType = cudaDataType::CUDA_R_16F;
    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn from_bits(bits: u16) -> Self {
        Self::from_bits(bits)
    }
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
}
