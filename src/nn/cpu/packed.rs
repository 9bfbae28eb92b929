//! A weight matrix as the kernels read it: panels of 16 output columns.
//!
//! Formats: floats `[panel][k][16]`, kept in the width they were stored in; integer blocks
//! `[panel][k/32]{scales 16 × f32, (scales of the second half), (minima), quants}`, where the quants lie
//! in groups of four `k`: 16 columns × 4 bytes, or two such groups in the nibbles of 64 bytes.
//! Integer blocks hold the checkpoint's weights exactly; the rows they meet are rounded to 8 bits.

use half::{bf16, f16};

use super::LANES;
use super::buffer::{Buffer, Shared};
use super::threads::Threads;
use crate::nn::Error;
use crate::nn::weights::dtype::DType;
use crate::nn::weights::ggml;

/// What an integer block consists of: `w = d·(q - zero) + m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockKind {
    /// Four bits a weight, else eight.
    pub nibbles: bool,
    /// A scale for each 16 weights, else for 32.
    pub halves: bool,
    pub min: bool,
    pub zero: i32,
}

impl BlockKind {
    /// For formats that are rounded to 8 bits.
    const ROUNDED: Self = Self { nibbles: false, halves: false, min: false, zero: 128 };

    /// Bytes of 32 `k` × 16 columns.
    pub fn bytes(self) -> usize {
        self.quants_at() + if self.nibbles { 256 } else { 512 }
    }

    /// Where a block's quants begin.
    pub(super) fn quants_at(self) -> usize {
        64 * (1 + usize::from(self.halves) + usize::from(self.min))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    F32,
    F16,
    Bf16,
    Blocks(BlockKind),
}

impl Format {
    /// The format in which a stored type is held.
    pub fn of(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Self::F32,
            DType::F16 => Self::F16,
            DType::Bf16 => Self::Bf16,
            DType::Quantised(ggml) => Self::Blocks(ggml::kind(ggml).unwrap_or(BlockKind::ROUNDED)),
        }
    }

    /// What a changed copy is held in.
    pub fn changed(self) -> Self {
        match self {
            Self::Blocks(_) => Self::Blocks(BlockKind::ROUNDED),
            float => float,
        }
    }

    fn panel_bytes(self, k: usize) -> usize {
        match self {
            Self::F32 => k * LANES * 4,
            Self::F16 | Self::Bf16 => k * LANES * 2,
            Self::Blocks(kind) => k / 32 * kind.bytes(),
        }
    }

    /// Bytes of a packed `[n, k]` matrix.
    pub fn bytes(self, n: usize, k: usize) -> u64 {
        (n.div_ceil(LANES) * self.panel_bytes(k)) as u64
    }
}

/// A packed `[n, k]` matrix.
pub struct Packed {
    n: usize,
    k: usize,
    format: Format,
    data: Buffer<u8>,
}

impl Packed {
    /// Packs `n` rows of `k` values stored as `dtype`; row `i` of the result is row `row_of(i)` of `raw`.
    /// `raw` holds exactly the matrix, and `k` is whole blocks: the checkpoint has checked both.
    pub fn pack(
        dtype: DType,
        raw: &[u8],
        n: usize,
        k: usize,
        row_of: &(dyn Fn(usize) -> usize + Sync),
        threads: &mut Threads,
    ) -> Result<Self, Error> {
        let format = Format::of(dtype);
        let panel_bytes = format.panel_bytes(k);
        let row_bytes = raw.len() / n;
        let mut data = Buffer::zeroed(n.div_ceil(LANES) * panel_bytes, "weights")?;
        let out = Shared::new(&mut data);
        threads.run(n.div_ceil(LANES), &|panel, _| {
            // SAFETY: each task writes its own panel.
            let panel_data = unsafe { out.slice(panel * panel_bytes, panel_bytes) };
            for lane in 0..LANES.min(n - panel * LANES) {
                let row = row_of(panel * LANES + lane);
                pack_row(dtype, format, &raw[row * row_bytes..(row + 1) * row_bytes], lane, panel_data);
            }
        });
        Ok(Self { n, k, format, data })
    }

    /// Packs f32 values.
    pub fn pack_f32(values: &[f32], n: usize, k: usize, threads: &mut Threads) -> Result<Self, Error> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::pack(DType::F32, &bytes, n, k, &|row| row, threads)
    }

    /// A copy whose rows are changed as f32 by `change(row, values)`: floats are rounded to the width they had,
    /// integer blocks to 8 bits.
    pub fn changed(
        &self,
        change: &(dyn Fn(usize, &mut [f32]) + Sync),
        threads: &mut Threads,
    ) -> Result<Self, Error> {
        let (n, k, format) = (self.n, self.k, self.format.changed());
        let panel_bytes = format.panel_bytes(k);
        let mut data = Buffer::zeroed(self.n_panels() * panel_bytes, "merged weights")?;
        let out = Shared::new(&mut data);
        threads.run(self.n_panels(), &|panel, _| {
            // SAFETY: each task writes its own panel.
            let panel_data = unsafe { out.slice(panel * panel_bytes, panel_bytes) };
            let mut values = vec![0f32; k];
            for lane in 0..LANES.min(n - panel * LANES) {
                let row = panel * LANES + lane;
                self.unpack_row(row, &mut values);
                change(row, &mut values);
                round_row(format, &values, lane, panel_data);
            }
        });
        Ok(Self { n, k, format, data })
    }

    /// Output columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Length of a row of input.
    pub fn k(&self) -> usize {
        self.k
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn n_panels(&self) -> usize {
        self.n.div_ceil(LANES)
    }

    pub fn panel_bytes(&self) -> usize {
        self.format.panel_bytes(self.k)
    }

    pub fn bytes(&self) -> u64 {
        self.data.bytes()
    }

    pub fn panel(&self, panel: usize) -> &[u8] {
        let size = self.panel_bytes();
        &self.data[panel * size..(panel + 1) * size]
    }
}

/// Puts a row of f32 into its lane, rounded to what the format holds.
fn round_row(format: Format, values: &[f32], lane: usize, panel: &mut [u8]) {
    let mut put = |bytes: Vec<u8>, width: usize| match width {
        4 => scatter::<4>(&bytes, lane, panel),
        _ => scatter::<2>(&bytes, lane, panel),
    };
    match format {
        Format::F32 => put(values.iter().flat_map(|v| v.to_le_bytes()).collect(), 4),
        Format::F16 => put(values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(), 2),
        Format::Bf16 => put(values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(), 2),
        Format::Blocks(kind) => {
            for (values, out) in values.chunks_exact(32).zip(panel.chunks_exact_mut(kind.bytes())) {
                put_block(kind, &ggml::round_to_q8(values), lane, out);
            }
        }
    }
}

fn pack_row(dtype: DType, format: Format, row: &[u8], lane: usize, panel: &mut [u8]) {
    match (format, dtype) {
        (Format::Blocks(kind), DType::Quantised(ggml)) => pack_blocks(ggml, kind, row, lane, panel),
        (Format::F32, _) => scatter::<4>(row, lane, panel),
        _ => scatter::<2>(row, lane, panel),
    }
}

/// Puts value `k` of the row at `[k][lane]`.
fn scatter<const BYTES: usize>(row: &[u8], lane: usize, panel: &mut [u8]) {
    let stride = LANES * BYTES;
    for (k, value) in row.chunks_exact(BYTES).enumerate() {
        let at = k * stride + lane * BYTES;
        panel[at..at + BYTES].copy_from_slice(value);
    }
}

fn pack_blocks(
    dtype: candle_core::quantized::GgmlDType,
    kind: BlockKind,
    row: &[u8],
    lane: usize,
    panel: &mut [u8],
) {
    let exact = ggml::kind(dtype).is_some();
    let values = if exact {
        Vec::new()
    } else {
        let n = row.len() / dtype.type_size() * dtype.block_size();
        ggml::dequantise(dtype, row, n).expect("whole blocks of a type candle knows")
    };
    for (b, out) in panel.chunks_exact_mut(kind.bytes()).enumerate() {
        let block =
            if exact { ggml::block(dtype, row, b) } else { ggml::round_to_q8(&values[b * 32..b * 32 + 32]) };
        put_block(kind, &block, lane, out);
    }
}

#[inline]
fn put_block(kind: BlockKind, block: &ggml::Block, lane: usize, out: &mut [u8]) {
    let mut put_f32 = |vector: usize, value: f32| {
        let at = vector * 64 + lane * 4;
        out[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    };
    put_f32(0, block.d[0]);
    if kind.halves {
        put_f32(1, block.d[1]);
    }
    if kind.min {
        put_f32(1, block.m);
    }
    let words: [u32; 8] = std::array::from_fn(|group| {
        u32::from_ne_bytes(std::array::from_fn(|byte| block.q[group * 4 + byte]))
    });
    let quants = &mut out[kind.quants_at()..];
    if kind.nibbles {
        for group in 0..4 {
            put_word(words[group] | words[group + 4] << 4, group, lane, quants);
        }
    } else {
        for (group, &word) in words.iter().enumerate() {
            put_word(word, group, lane, quants);
        }
    }
}

/// Puts four quants of a lane into their group.
fn put_word(word: u32, group: usize, lane: usize, quants: &mut [u8]) {
    let at = group * 64 + lane * 4;
    quants[at..at + 4].copy_from_slice(&word.to_ne_bytes());
}

impl Packed {
    /// Row `row` as f32: `out[k]`. For embeddings; the matrix products never unpack.
    pub fn unpack_row(&self, row: usize, out: &mut [f32]) {
        let (panel, lane) = (self.panel(row / LANES), row % LANES);
        match self.format {
            Format::F32 => gather::<4>(panel, lane, out, f32::from_ne_bytes),
            Format::F16 => gather::<2>(panel, lane, out, |b| f16::from_le_bytes(b).to_f32()),
            Format::Bf16 => gather::<2>(panel, lane, out, |b| bf16::from_le_bytes(b).to_f32()),
            Format::Blocks(kind) => {
                for (block, out) in panel.chunks_exact(kind.bytes()).zip(out.chunks_exact_mut(32)) {
                    unpack_block(kind, block, lane, out);
                }
            }
        }
    }
}

fn gather<const BYTES: usize>(panel: &[u8], lane: usize, out: &mut [f32], to: impl Fn([u8; BYTES]) -> f32) {
    for (out, column) in out.iter_mut().zip(panel.chunks_exact(LANES * BYTES)) {
        *out = to(std::array::from_fn(|i| column[lane * BYTES + i]));
    }
}

fn unpack_block(kind: BlockKind, block: &[u8], lane: usize, out: &mut [f32]) {
    let scalar = |vector: usize| {
        let at = vector * 64 + lane * 4;
        f32::from_ne_bytes(std::array::from_fn(|i| block[at + i]))
    };
    let d = [scalar(0), if kind.halves { scalar(1) } else { scalar(0) }];
    let m = if kind.min { scalar(1) } else { 0.0 };
    let quants = &block[kind.quants_at()..];
    for (k, out) in out.iter_mut().enumerate() {
        let (group, byte) = (k / 4, k % 4);
        let q = if kind.nibbles {
            let pair = quants[group % 4 * 64 + lane * 4 + byte];
            if group < 4 { pair & 15 } else { pair >> 4 }
        } else {
            quants[group * 64 + lane * 4 + byte]
        };
        *out = d[k / 16] * (i32::from(q) - kind.zero) as f32 + m;
    }
}
