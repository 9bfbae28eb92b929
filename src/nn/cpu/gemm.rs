//! Matrix products over weight panels: `out[m, n] (+)= x[m, k] · w[n, k]ᵀ (+ bias[n])`.
//!
//! A panel holds 16 columns of `out` (rows of the checkpoint's matrix), `k` after `k`, so that one vector
//! load serves every row of `x`. Each output element has one accumulator that takes `k` in ascending
//! order (or block after block), whatever the tile: this is what makes a row's result independent of
//! the rows beside it.

use super::LANES;
use super::isa::dispatch;
use super::packed::BlockKind;
use super::simd::Simd;

/// One call: all rows of `x` against `n_panels` neighbouring panels.
#[derive(Clone, Copy)]
pub struct Args {
    /// f32 rows; unused by [`gemm_blocks`].
    pub x: *const f32,
    pub x_stride: usize,
    /// Quantised rows, only for [`gemm_blocks`].
    pub q: Quantised,
    pub m: usize,
    pub k: usize,
    /// First panel, and bytes from one to the next.
    pub w: *const u8,
    pub panel_bytes: usize,
    pub n_panels: usize,
    /// Columns from the first panel's first one to the matrix's last: bounds the stores.
    pub n: usize,
    pub out: *mut f32,
    pub out_stride: usize,
    /// 16 values per panel, or null.
    pub bias: *const f32,
    /// Add to `out` instead of writing it.
    pub accumulate: bool,
}

impl Args {
    /// The same product for `m` rows from `first`.
    ///
    /// # Safety
    /// Those rows are among these.
    pub unsafe fn rows(&self, first: usize, m: usize) -> Self {
        // SAFETY: the offsets of a row that exists; null pointers stay null.
        unsafe {
            let n_blocks = self.k / 32;
            let q = if self.q.bytes.is_null() {
                Quantised::NONE
            } else {
                Quantised {
                    bytes: self.q.bytes.add(first * self.k),
                    scales: self.q.scales.add(first * n_blocks),
                    sums: self.q.sums.add(first * n_blocks * 2),
                    weighted_sums: self.q.weighted_sums.add(first * n_blocks),
                }
            };
            let (x, out) = (self.x.add(first * self.x_stride), self.out.add(first * self.out_stride));
            Self { x, q, m, out, ..*self }
        }
    }
}

/// Rows quantised by [`super::quant`]: bytes `[m, k]`, scales `[m, k/32]`, sums of bytes `[m, k/16]`, and
/// `[m, k/32]` the sum of a block's bytes times its scale.
#[derive(Clone, Copy)]
pub struct Quantised {
    pub bytes: *const i8,
    pub scales: *const f32,
    pub sums: *const i32,
    pub weighted_sums: *const f32,
}

impl Quantised {
    pub const NONE: Self = Self {
        bytes: std::ptr::null(),
        scales: std::ptr::null(),
        sums: std::ptr::null(),
        weighted_sums: std::ptr::null(),
    };
}

dispatch! {
    /// Weights f32.
    pub fn gemm_f32(args: &Args) = f32_panels;
    /// Weights f16, widened in registers.
    pub fn gemm_f16(args: &Args) = f16_panels;
    /// Weights bf16, widened in registers.
    pub fn gemm_bf16(args: &Args) = bf16_panels;
    /// Weights and rows in integer blocks of 32.
    pub fn gemm_blocks(args: &Args, kind: BlockKind) = blocks;
}

/// How 16 weights are read.
trait Weight<S: Simd> {
    const BYTES: usize;
    /// # Safety
    /// `p` is good for 16 weights.
    unsafe fn load(p: *const u8) -> S::V;
}

struct F32;
struct F16;
struct Bf16;

impl<S: Simd> Weight<S> for F32 {
    const BYTES: usize = 4;
    /// # Safety
    /// That of the trait.
    #[inline(always)]
    unsafe fn load(p: *const u8) -> S::V {
        // SAFETY: passed on to the caller.
        unsafe { S::load(p.cast()) }
    }
}

impl<S: Simd> Weight<S> for F16 {
    const BYTES: usize = 2;
    /// # Safety
    /// That of the trait.
    #[inline(always)]
    unsafe fn load(p: *const u8) -> S::V {
        // SAFETY: passed on to the caller.
        unsafe { S::load_f16(p.cast()) }
    }
}

impl<S: Simd> Weight<S> for Bf16 {
    const BYTES: usize = 2;
    /// # Safety
    /// That of the trait.
    #[inline(always)]
    unsafe fn load(p: *const u8) -> S::V {
        // SAFETY: passed on to the caller.
        unsafe { S::load_bf16(p.cast()) }
    }
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn f32_panels<S: Simd>(args: &Args) {
    // SAFETY: passed on to the caller.
    unsafe { float_panels::<S, F32>(args) }
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn f16_panels<S: Simd>(args: &Args) {
    // SAFETY: passed on to the caller.
    unsafe { float_panels::<S, F16>(args) }
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn bf16_panels<S: Simd>(args: &Args) {
    // SAFETY: passed on to the caller.
    unsafe { float_panels::<S, Bf16>(args) }
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn float_panels<S: Simd, W: Weight<S>>(args: &Args) {
    let mut panel = 0;
    // SAFETY: panels and rows stay below their counts; the pointers' extents are the caller's contract.
    unsafe {
        while panel < args.n_panels {
            if S::WIDE && panel + 2 <= args.n_panels {
                float_rows::<S, W, 2>(args, panel);
                panel += 2;
            } else {
                float_rows::<S, W, 1>(args, panel);
                panel += 1;
            }
        }
    }
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn float_rows<S: Simd, W: Weight<S>, const P: usize>(args: &Args, panel: usize) {
    let mut row = 0;
    // SAFETY: as in `float_panels`.
    unsafe {
        while S::F32_ROWS >= 8 && row + 8 <= args.m {
            float_tile::<S, W, 8, P>(args, row, panel);
            row += 8;
        }
        while row + 4 <= args.m {
            float_tile::<S, W, 4, P>(args, row, panel);
            row += 4;
        }
        while row < args.m {
            float_tile::<S, W, 1, P>(args, row, panel);
            row += 1;
        }
    }
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn float_tile<S: Simd, W: Weight<S>, const R: usize, const P: usize>(
    args: &Args,
    row: usize,
    panel: usize,
) {
    // SAFETY: R rows and P panels from here exist; strides are the caller's.
    unsafe {
        let x = args.x.add(row * args.x_stride);
        let w = args.w.add(panel * args.panel_bytes);
        let mut acc = [[S::splat(0.0); P]; R];
        for k in 0..args.k {
            let mut column = [S::splat(0.0); P];
            for p in 0..P {
                column[p] = W::load(w.add(p * args.panel_bytes + k * LANES * W::BYTES));
            }
            for r in 0..R {
                let value = S::splat(*x.add(r * args.x_stride + k));
                for p in 0..P {
                    acc[r][p] = S::fma(value, column[p], acc[r][p]);
                }
            }
        }
        for r in 0..R {
            for p in 0..P {
                put::<S>(args, row + r, panel + p, acc[r][p]);
            }
        }
    }
}

/// Bias, accumulation and the store, short of the matrix's edge.
/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
pub(super) unsafe fn put<S: Simd>(args: &Args, row: usize, panel: usize, mut value: S::V) {
    // SAFETY: row and panel exist; at the edge only `n - first` columns are touched.
    unsafe {
        let first = panel * LANES;
        let out = args.out.add(row * args.out_stride + first);
        if !args.bias.is_null() {
            value = S::add(value, S::load(args.bias.add(first)));
        }
        if first + LANES <= args.n {
            if args.accumulate {
                value = S::add(S::load(out), value);
            }
            S::store(out, value);
        } else {
            let mut lanes = [0f32; LANES];
            S::store(lanes.as_mut_ptr(), value);
            for (j, lane) in lanes.iter().enumerate().take(args.n - first) {
                let old = if args.accumulate { *out.add(j) } else { 0.0 };
                *out.add(j) = if args.accumulate { old + lane } else { *lane };
            }
        }
    }
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn blocks<S: Simd>(args: &Args, kind: BlockKind) {
    // SAFETY: passed on to the caller. The flags become constants of the tile.
    unsafe {
        match (kind.nibbles, kind.halves, kind.min) {
            (true, false, false) => block_panels::<S, true, false, false>(args, kind.zero),
            (true, false, true) => block_panels::<S, true, false, true>(args, kind.zero),
            (false, false, false) => block_panels::<S, false, false, false>(args, kind.zero),
            (false, false, true) => block_panels::<S, false, false, true>(args, kind.zero),
            (false, true, false) => block_panels::<S, false, true, false>(args, kind.zero),
            _ => unreachable!("no format has these blocks"),
        }
    }
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn block_panels<S: Simd, const NIBBLES: bool, const HALVES: bool, const MIN: bool>(
    args: &Args,
    zero: i32,
) {
    // SAFETY: panels and rows stay below their counts.
    unsafe {
        for panel in 0..args.n_panels {
            let mut row = 0;
            // nibbles keep twice as many unpacked weights in registers: eight rows more would not fit
            while S::INT_ROWS >= 8 && !NIBBLES && row + 8 <= args.m {
                block_tile::<S, 8, NIBBLES, HALVES, MIN>(args, zero, row, panel);
                row += 8;
            }
            while S::INT_ROWS >= 4 && row + 4 <= args.m {
                block_tile::<S, 4, NIBBLES, HALVES, MIN>(args, zero, row, panel);
                row += 4;
            }
            while row + 2 <= args.m {
                block_tile::<S, 2, NIBBLES, HALVES, MIN>(args, zero, row, panel);
                row += 2;
            }
            if row < args.m {
                block_tile::<S, 1, NIBBLES, HALVES, MIN>(args, zero, row, panel);
            }
        }
    }
}

/// w = d·(q - zero) + m and x = s·b give Σ w·x = d·s·(Σ q·b - zero·Σ b) + m·s·Σ b per block.
/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn block_tile<S: Simd, const R: usize, const NIBBLES: bool, const HALVES: bool, const MIN: bool>(
    args: &Args,
    zero: i32,
    row: usize,
    panel: usize,
) {
    // SAFETY: R rows from `row` and the panel exist; block offsets stay inside the panel.
    unsafe {
        let n_blocks = args.k / 32;
        let bytes = args.q.bytes.add(row * args.k);
        let scales = args.q.scales.add(row * n_blocks);
        let sums = args.q.sums.add(row * n_blocks * 2);
        let weighted = args.q.weighted_sums.add(row * n_blocks);
        let mut w = args.w.add(panel * args.panel_bytes);
        let mut acc = [S::splat(0.0); R];
        for b in 0..n_blocks {
            let d = w.cast::<f32>();
            let quants = w.add(64 * (1 + usize::from(HALVES) + usize::from(MIN)));
            let x = bytes.add(b * 32);
            if HALVES {
                for half in 0..2 {
                    let mut int = [S::isplat(0); R];
                    for r in 0..R {
                        int[r] = S::isplat(-zero * *sums.add(r * n_blocks * 2 + b * 2 + half));
                    }
                    for g in half * 4..half * 4 + 4 {
                        let weights = S::load_bytes(quants.add(g * 64));
                        for r in 0..R {
                            int[r] = S::dot::<true>(int[r], weights, four::<S>(x.add(r * args.k + g * 4)));
                        }
                    }
                    let d = S::load(d.add(half * LANES));
                    for r in 0..R {
                        let scale = S::mul(d, S::splat(*scales.add(r * n_blocks + b)));
                        acc[r] = S::fma(S::to_f32(int[r]), scale, acc[r]);
                    }
                }
            } else {
                let mut int = [S::isplat(0); R];
                if !MIN {
                    for r in 0..R {
                        let s = sums.add(r * n_blocks * 2 + b * 2);
                        int[r] = S::isplat(-zero * (*s + *s.add(1)));
                    }
                }
                if NIBBLES {
                    for g in 0..4 {
                        let pair = S::load_bytes(quants.add(g * 64));
                        let (low, high) = (S::low_nibbles(pair), S::high_nibbles(pair));
                        for r in 0..R {
                            let x = x.add(r * args.k + g * 4);
                            int[r] = S::dot::<true>(int[r], low, four::<S>(x));
                            int[r] = S::dot::<true>(int[r], high, four::<S>(x.add(16)));
                        }
                    }
                } else {
                    for g in 0..8 {
                        let weights = S::load_bytes(quants.add(g * 64));
                        for r in 0..R {
                            let x = four::<S>(x.add(r * args.k + g * 4));
                            int[r] = S::dot::<MIN>(int[r], weights, x);
                        }
                    }
                }
                let d = S::load(d);
                for r in 0..R {
                    let s = *scales.add(r * n_blocks + b);
                    acc[r] = S::fma(S::to_f32(int[r]), S::mul(d, S::splat(s)), acc[r]);
                    if MIN {
                        let m = S::load(w.cast::<f32>().add(LANES));
                        acc[r] = S::fma(m, S::splat(*weighted.add(r * n_blocks + b)), acc[r]);
                    }
                }
            }
            w = quants.add(if NIBBLES { 256 } else { 512 });
        }
        for r in 0..R {
            put::<S>(args, row + r, panel, acc[r]);
        }
    }
}

/// Four bytes of a row for every lane.
/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn four<S: Simd>(p: *const i8) -> S::I {
    // SAFETY: four bytes are inside the row.
    unsafe { S::isplat(p.cast::<i32>().read_unaligned()) }
}
