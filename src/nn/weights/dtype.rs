//! Element types of checkpoint tensors.

use candle_core::quantized::GgmlDType;

/// How a tensor's values are stored in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    F32,
    F16,
    Bf16,
    /// Blocks of a GGUF format.
    Quantised(GgmlDType),
}

impl DType {
    /// Values that are stored together; rows are whole blocks.
    pub fn block(self) -> usize {
        match self {
            Self::Quantised(ggml) => ggml.block_size(),
            _ => 1,
        }
    }

    /// Bytes of `n` values; None where `n` is not whole blocks, or overflows.
    pub fn bytes(self, n: usize) -> Option<u64> {
        let (block, size) = match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Quantised(ggml) => (ggml.block_size(), ggml.type_size()),
        };
        if !n.is_multiple_of(block) {
            return None;
        }
        (n / block).checked_mul(size).map(|bytes| bytes as u64)
    }

    /// The name a safetensors header uses.
    pub fn from_safetensors(name: &str) -> Option<Self> {
        match name {
            "F32" => Some(Self::F32),
            "F16" => Some(Self::F16),
            "BF16" => Some(Self::Bf16),
            _ => None,
        }
    }

    pub fn from_ggml(ggml: GgmlDType) -> Self {
        match ggml {
            GgmlDType::F32 => Self::F32,
            GgmlDType::F16 => Self::F16,
            GgmlDType::BF16 => Self::Bf16,
            other => Self::Quantised(other),
        }
    }
}
