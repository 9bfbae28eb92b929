//! GGUF's block formats, read as 32 small integers with a scale: `w = d·(q - zero) + m`.
//!
//! Layouts are those of ggml's `block_*` structures. Every format here is represented exactly; Q2_K, Q3_K
//! and the activation formats (Q8_1, Q8_K) are left to [`dequantise`] and rounded to 8 bits when packed.

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Result};
use half::f16;

use crate::nn::cpu::packed::BlockKind;

/// 32 consecutive weights of a row.
#[derive(Clone, Copy)]
pub struct Block {
    pub q: [u8; 32],
    /// Scale of the first and of the second 16; equal unless the format has `halves`.
    pub d: [f32; 2],
    pub m: f32,
}

/// What kind of blocks a format has; None if it is not read exactly.
pub fn kind(dtype: GgmlDType) -> Option<BlockKind> {
    let kind = |nibbles, halves, min, zero| Some(BlockKind { nibbles, halves, min, zero });
    match dtype {
        GgmlDType::Q4_0 => kind(true, false, false, 8),
        GgmlDType::Q4_1 | GgmlDType::Q4K => kind(true, false, true, 0),
        GgmlDType::Q5_0 => kind(false, false, false, 16),
        GgmlDType::Q5_1 | GgmlDType::Q5K => kind(false, false, true, 0),
        GgmlDType::Q8_0 => kind(false, false, false, 128),
        GgmlDType::Q6K => kind(false, true, false, 32),
        _ => None,
    }
}

/// Block `b` (of 32) of a row; `row` holds whole blocks of a format that has a [`kind`].
pub fn block(dtype: GgmlDType, row: &[u8], b: usize) -> Block {
    let size = dtype.type_size();
    match dtype {
        GgmlDType::Q4K | GgmlDType::Q5K | GgmlDType::Q6K => {
            let raw = &row[b / 8 * size..(b / 8 + 1) * size];
            if dtype == GgmlDType::Q6K { q6k(raw, b % 8) } else { q45k(dtype, raw, b % 8) }
        }
        _ => legacy(dtype, &row[b * size..(b + 1) * size]),
    }
}

fn half(raw: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([raw[at], raw[at + 1]]).to_f32()
}

/// 32 nibbles: the first half lies in the low, the second in the high ones.
fn nibbles(quants: &[u8]) -> [u8; 32] {
    let quants: &[u8; 16] = quants[..16].try_into().expect("a slice of 16");
    let mut q = [0; 32];
    let (low, high) = q.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(quants) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
    q
}

fn legacy(dtype: GgmlDType, raw: &[u8]) -> Block {
    let d = half(raw, 0);
    let has_min = matches!(dtype, GgmlDType::Q4_1 | GgmlDType::Q5_1);
    let m = if has_min { half(raw, 2) } else { 0.0 };
    let rest = &raw[if has_min { 4 } else { 2 }..];
    let q = match dtype {
        GgmlDType::Q4_0 | GgmlDType::Q4_1 => nibbles(rest),
        GgmlDType::Q5_0 | GgmlDType::Q5_1 => {
            let high = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
            let low = nibbles(&rest[4..]);
            std::array::from_fn(|j| low[j] | (((high >> j) & 1) as u8) << 4)
        }
        // signed bytes, shifted by 128
        _ => std::array::from_fn(|j| rest[j] ^ 0x80),
    };
    Block { q, d: [d; 2], m }
}

/// Six-bit scale and minimum `i` of the eight in a Q4_K or Q5_K block.
fn scale_min(packed: &[u8], i: usize) -> (u8, u8) {
    if i < 4 {
        (packed[i] & 63, packed[i + 4] & 63)
    } else {
        ((packed[i + 4] & 15) | ((packed[i - 4] >> 6) << 4), (packed[i + 4] >> 4) | ((packed[i] >> 6) << 4))
    }
}

fn q45k(dtype: GgmlDType, raw: &[u8], i: usize) -> Block {
    let (scale, min) = scale_min(&raw[4..16], i);
    let five = dtype == GgmlDType::Q5K;
    let quants = &raw[if five { 48 } else { 16 }..];
    let q = std::array::from_fn(|l| {
        let byte = quants[i / 2 * 32 + l];
        let low = if i.is_multiple_of(2) { byte & 15 } else { byte >> 4 };
        if five { low | ((raw[16 + l] >> i) & 1) << 4 } else { low }
    });
    Block { q, d: [half(raw, 0) * f32::from(scale); 2], m: -(half(raw, 2) * f32::from(min)) }
}

fn q6k(raw: &[u8], i: usize) -> Block {
    let (n, quarter) = (i / 4, i % 4);
    let (low, high, scales) = (&raw[n * 64..], &raw[128 + n * 32..], &raw[192 + n * 8..]);
    let q = std::array::from_fn(|l| {
        let byte = low[l + quarter % 2 * 32];
        let bits = if quarter < 2 { byte & 15 } else { byte >> 4 };
        bits | ((high[l] >> (2 * quarter)) & 3) << 4
    });
    let d = half(raw, 208);
    let scale = |s: usize| d * f32::from(scales[quarter * 2 + s] as i8);
    Block { q, d: [scale(0), scale(1)], m: 0.0 }
}

/// 32 values rounded to signed bytes with one scale (the scheme of Q8_0, its scale kept in f32).
pub fn round_to_q8(values: &[f32]) -> Block {
    let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let q = std::array::from_fn(|j| ((values[j] * inverse).round() as i8 as u8) ^ 0x80);
    Block { q, d: [largest / 127.0; 2], m: 0.0 }
}

/// All values of whole blocks, by candle.
pub fn dequantise(dtype: GgmlDType, raw: &[u8], n: usize) -> Result<Vec<f32>> {
    // candle casts the bytes to its block structures, which may need an even address
    let storage = if (raw.as_ptr() as usize).is_multiple_of(4) {
        QStorage::from_data(Cow::Borrowed(raw), &Device::Cpu, dtype)?
    } else {
        let mut copy = vec![0u32; raw.len().div_ceil(4)];
        for (word, bytes) in copy.iter_mut().zip(raw.chunks(4)) {
            let mut padded = [0; 4];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u32::from_ne_bytes(padded);
        }
        // SAFETY: any u32 is four bytes, and `copy` holds at least `raw.len()` of them.
        let bytes = unsafe { std::slice::from_raw_parts(copy.as_ptr().cast::<u8>(), raw.len()) };
        QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, dtype)?
    };
    QTensor::new(storage, n)?.dequantize(&Device::Cpu)?.to_vec1()
}
