//! Integer blocks on the tile unit (AMX-INT8, Sapphire Rapids and later): sixteen rows against a panel.
//!
//! The twin of [`super::gemm::gemm_blocks`]: the same integer sums and the same order of float operations, so
//! every result is the same to the bit as AVX-512's, and a row's result does not depend on how many rows
//! share its tile. A tile takes one block of `k` (its scale ends there), its 16×16 sums go through a buffer in
//! the first cache, and while the vector unit scales them the tile unit works on the next block.
//!
//! Tile instructions are written in assembly: their intrinsics are not stable.

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use super::LANES;
use super::gemm::{self, Args, put};
use super::isa::Isa;
use super::packed::BlockKind;
use super::simd::Avx512;

/// Fewest rows for which a tile pays.
pub const MIN_ROWS: usize = 8;
/// Blocks of a panel that are unpacked at once: 24 KiB.
const CHUNK: usize = 48;
/// Rows whose partial sums wait while a panel's chunks pass.
const MAX_ROWS: usize = 128;
/// Bytes of an unpacked block: 8 groups of 16 columns × 4 bytes.
const BLOCK_BYTES: usize = 512;

/// Whether this machine has the tile unit and the system lets this process use it (Linux asks first).
pub fn usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| {
        const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
        let has = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & TILE_AND_INT8 == TILE_AND_INT8;
        has && permitted()
    })
}

#[cfg(target_os = "linux")]
fn permitted() -> bool {
    /// `arch_prctl(2)`: asks for a state component larger than the default signal frame.
    const ARCH_REQ_XCOMP_PERM: nix::libc::c_long = 0x1023;
    const TILE_DATA: nix::libc::c_long = 18;
    // SAFETY: the call takes two integers and touches no memory of ours.
    unsafe { nix::libc::syscall(nix::libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// `LDTILECFG`'s operand, palette 1.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    column_bytes: [u16; 16],
    rows: [u8; 16],
}

impl TileConfig {
    /// `k` weights a tile: tiles 0 and 1 hold the sums of 16 rows, 2 and 3 the rows; 6 and 7 the same for
    /// 8 rows; 4 and 5 weights.
    fn new(k: usize) -> Self {
        let mut config =
            Self { palette: 1, start_row: 0, reserved: [0; 14], column_bytes: [0; 16], rows: [0; 16] };
        let mut tile = |i: usize, rows: usize, bytes: usize| {
            config.rows[i] = rows as u8;
            config.column_bytes[i] = bytes as u16;
        };
        for i in 0..2 {
            tile(i, 16, 64);
            tile(2 + i, 16, k);
            tile(4 + i, k / 4, 64);
        }
        tile(6, 8, 64);
        tile(7, 8, k);
        config
    }
}

/// What a call writes besides its output.
#[repr(C, align(64))]
struct Work {
    weights: [i8; CHUNK * BLOCK_BYTES],
    /// Sums of the two blocks (or half blocks) in flight.
    sums: [[i32; 256]; 2],
    partial: [f32; MAX_ROWS * LANES],
}

/// The contract of [`gemm::gemm_blocks`], on a machine for which [`usable`] holds.
///
/// # Safety
/// The extents of `args` hold, its rows are quantised, and the tile unit is usable.
pub unsafe fn gemm_blocks(args: &Args, kind: BlockKind) {
    // SAFETY: passed on to the caller; the rows of each call are inside those of `args`.
    unsafe {
        let tiled = args.m & !(MIN_ROWS - 1);
        if tiled > 0 {
            let config = TileConfig::new(if kind.halves { 16 } else { 32 });
            asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly));
            for first in (0..tiled).step_by(MAX_ROWS) {
                let part = args.rows(first, MAX_ROWS.min(tiled - first));
                match (kind.halves, kind.min) {
                    (false, false) => panels::<false, false>(&part, kind),
                    (false, true) => panels::<false, true>(&part, kind),
                    (true, false) => panels::<true, false>(&part, kind),
                    (true, true) => unreachable!("no format has these blocks"),
                }
            }
            // a thread that holds no tile state is cheap to switch
            asm!("tilerelease", options(nostack, nomem));
        }
        if tiled < args.m {
            gemm::gemm_blocks(Isa::Avx512, &args.rows(tiled, args.m - tiled), kind);
        }
    }
}

/// # Safety
/// As for [`gemm_blocks`], tiles are configured, `args.m` is a multiple of 8 and at most [`MAX_ROWS`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")]
unsafe fn panels<const HALVES: bool, const MIN: bool>(args: &Args, kind: BlockKind) {
    let mut work = MaybeUninit::<Work>::uninit();
    let work = work.as_mut_ptr();
    let n_blocks = args.k / 32;
    // SAFETY: panels, blocks and rows stay below their counts; every part of `work` is written before it is read.
    unsafe {
        for panel in 0..args.n_panels {
            let w = args.w.add(panel * args.panel_bytes);
            for first in (0..n_blocks).step_by(CHUNK) {
                let chunk =
                    Chunk { first, n: CHUNK.min(n_blocks - first), w: w.add(first * kind.bytes()), kind };
                chunk.unpack(&raw mut (*work).weights);
                let mut row = 0;
                while row + 16 <= args.m {
                    rows::<16, HALVES, MIN>(args, &chunk, work, row, panel);
                    row += 16;
                }
                if row < args.m {
                    rows::<8, HALVES, MIN>(args, &chunk, work, row, panel);
                }
            }
        }
    }
}

/// Neighbouring blocks of a panel.
struct Chunk {
    first: usize,
    n: usize,
    w: *const u8,
    kind: BlockKind,
}

impl Chunk {
    /// Writes `q - zero` as signed bytes, group after group.
    ///
    /// # Safety
    /// The chunk's blocks are there, and `out` takes [`CHUNK`] blocks.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")]
    unsafe fn unpack(&self, out: *mut [i8; CHUNK * BLOCK_BYTES]) {
        let zero = _mm512_set1_epi8(self.kind.zero as u8 as i8);
        let low = _mm512_set1_epi8(0x0f);
        // SAFETY: offsets stay inside the block and inside its place in `out`.
        unsafe {
            for b in 0..self.n {
                let from = self.w.add(b * self.kind.bytes() + self.kind.quants_at());
                let to = out.cast::<i8>().add(b * BLOCK_BYTES);
                let put = |group: usize, q: __m512i| {
                    _mm512_store_si512(to.add(group * 64).cast(), _mm512_sub_epi8(q, zero));
                };
                if self.kind.nibbles {
                    for g in 0..4 {
                        let pair = _mm512_loadu_si512(from.add(g * 64).cast());
                        put(g, _mm512_and_si512(pair, low));
                        put(g + 4, _mm512_and_si512(_mm512_srli_epi16::<4>(pair), low));
                    }
                } else {
                    for g in 0..8 {
                        put(g, _mm512_loadu_si512(from.add(g * 64).cast()));
                    }
                }
            }
        }
    }
}

/// `R` rows against one chunk of one panel: 16 or 8.
///
/// # Safety
/// As for [`panels`]; the rows from `row` exist and `work` holds the unpacked chunk.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,fma")]
unsafe fn rows<const R: usize, const HALVES: bool, const MIN: bool>(
    args: &Args,
    chunk: &Chunk,
    work: *mut Work,
    row: usize,
    panel: usize,
) {
    // SAFETY: all offsets address the rows, blocks and panel that the caller vouches for.
    unsafe {
        let n_blocks = args.k / 32;
        let parts = if HALVES { 2 } else { 1 };
        let x = args.q.bytes.add(row * args.k + chunk.first * 32);
        let scales = args.q.scales.add(row * n_blocks + chunk.first);
        let weighted = args.q.weighted_sums.add(row * n_blocks + chunk.first);
        let weights = (&raw const (*work).weights).cast::<i8>();
        let sums = (&raw mut (*work).sums).cast::<[i32; 256]>();
        let partial = (&raw mut (*work).partial).cast::<f32>().add(row * LANES);
        let mut acc = [_mm512_setzero_ps(); R];
        if chunk.first > 0 {
            for r in 0..R {
                acc[r] = _mm512_load_ps(partial.add(r * LANES));
            }
        }
        let tile = |i: usize| {
            let x = x.add(i * 32 / parts);
            multiply::<R>(
                i % 2 == 1,
                x,
                args.k,
                weights.add(i * BLOCK_BYTES / parts),
                sums.add(i % 2).cast(),
            );
        };
        let n = chunk.n * parts;
        tile(0);
        for i in 0..n {
            if i + 1 < n {
                tile(i + 1);
            }
            let b = i / parts;
            let w = chunk.w.add(b * chunk.kind.bytes()).cast::<f32>();
            let d = _mm512_loadu_ps(w.add(i % parts * LANES));
            let int = sums.add(i % 2).cast::<i32>();
            for r in 0..R {
                let scale = _mm512_mul_ps(d, _mm512_set1_ps(*scales.add(r * n_blocks + b)));
                let value = _mm512_cvtepi32_ps(_mm512_load_si512(int.add(r * LANES).cast()));
                acc[r] = _mm512_fmadd_ps(value, scale, acc[r]);
            }
            if MIN {
                let m = _mm512_loadu_ps(w.add(LANES));
                for r in 0..R {
                    acc[r] = _mm512_fmadd_ps(m, _mm512_set1_ps(*weighted.add(r * n_blocks + b)), acc[r]);
                }
            }
        }
        let last = chunk.first + chunk.n == n_blocks;
        for r in 0..R {
            if last {
                put::<Avx512>(args, row + r, panel, acc[r]);
            } else {
                _mm512_store_ps(partial.add(r * LANES), acc[r]);
            }
        }
    }
}

/// `sums[R, 16] = x[R, k] · w[k, 16]` of one tile; `odd` names the registers, so that two may be in flight.
///
/// # Safety
/// Tiles are configured; `R` rows `stride` bytes apart, one tile of weights and 16 rows of sums are there.
#[inline(always)]
unsafe fn multiply<const R: usize>(odd: bool, x: *const i8, stride: usize, w: *const i8, sums: *mut i32) {
    macro_rules! tiles {
        ($sums:literal, $rows:literal, $weights:literal) => {
            asm!(
                concat!("tilezero ", $sums),
                concat!("tileloadd ", $rows, ", [{x} + {stride}*1]"),
                concat!("tileloadd ", $weights, ", [{w} + {line}*1]"),
                concat!("tdpbssd ", $sums, ", ", $rows, ", ", $weights),
                concat!("tilestored [{sums} + {line}*1], ", $sums),
                x = in(reg) x, stride = in(reg) stride, w = in(reg) w, line = in(reg) 64usize, sums = in(reg) sums,
                options(nostack, preserves_flags)
            )
        };
    }
    // SAFETY: passed on to the caller. Nothing but this file uses tile registers.
    unsafe {
        match (R, odd) {
            (16, false) => tiles!("tmm0", "tmm2", "tmm4"),
            (16, true) => tiles!("tmm1", "tmm3", "tmm5"),
            (_, false) => tiles!("tmm6", "tmm7", "tmm4"),
            (_, true) => tiles!("tmm6", "tmm7", "tmm5"),
        }
    }
}
