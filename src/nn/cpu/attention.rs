//! Causal attention of a few neighbouring rows of one sequence, for the heads that share one KV head.
//!
//! Scores of all positions are kept (a tile of rows × context), then softmax, then the weighted sum of V:
//! per row, every sum runs over positions in ascending order, whatever rows share the tile: what lies before
//! a row's window, or behind its own position, is weighed 0. Rows of a group read each K and V block once;
//! nothing is repeated per query head.

use super::LANES;
use super::isa::dispatch;
use super::simd::Simd;

/// Query vectors (rows × heads of a group) that share a pass over the keys.
pub const TILE: usize = 16;

/// One tile.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    /// Queries, scaled by 1/√head_dim: `[n_queries, head_dim]`, row after row, head after head.
    pub queries: &'a [f32],
    pub n_queries: usize,
    /// Heads per row: query `i` belongs to row `i / group`.
    pub group: usize,
    /// Positions up to the first row's, its own included; each further row has one more.
    pub first_length: usize,
    /// How many of them a row sees, the last ones; `usize::MAX` for all.
    pub window: usize,
    pub head_dim: usize,
    pub block_tokens: usize,
    /// The layer's first K and, per block, the distance to the next; V lies `head_dim·block_tokens` after K.
    pub pool: &'a [f32],
    pub block_stride: usize,
    pub blocks: &'a [u32],
}

impl Args<'_> {
    /// First position that some row sees, rounded down to a whole vector: where scores begin.
    fn start(&self) -> usize {
        self.first_length.saturating_sub(self.window) / LANES * LANES
    }
}

dispatch! {
    /// `out[n_queries, head_dim]`. `scores` has `n_queries` rows of `score_stride` values, a multiple of 16
    /// that covers the last row's positions. `head_dim` is a multiple of 16; blocks cover the positions.
    pub fn attend(args: &Args, scores: &mut [f32], score_stride: usize, out: &mut [f32]) = attend_any;
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn attend_any<S: Simd>(args: &Args, scores: &mut [f32], score_stride: usize, out: &mut [f32]) {
    let rows = args.n_queries / args.group;
    let length = args.first_length + rows - 1;
    let start = args.start();
    let half = args.head_dim * args.block_tokens;
    assert!(args.window > 0 && args.queries.len() >= args.n_queries * args.head_dim);
    assert!(out.len() >= args.n_queries * args.head_dim);
    assert!(scores.len() >= args.n_queries * score_stride && score_stride >= length.next_multiple_of(LANES));
    assert!(args.blocks.len() * args.block_tokens >= length && args.head_dim.is_multiple_of(LANES));
    for block in &args.blocks[..length.div_ceil(args.block_tokens)] {
        assert!(*block as usize * args.block_stride + 2 * half <= args.pool.len());
    }
    // SAFETY: the extents asserted above.
    unsafe {
        for chunk in start / LANES..length.div_ceil(LANES) {
            let position = chunk * LANES;
            let k = args
                .pool
                .as_ptr()
                .add(args.blocks[position / args.block_tokens] as usize * args.block_stride)
                .add(position % args.block_tokens);
            let mut query = 0;
            while query + 8 <= args.n_queries {
                score::<S, 8>(args, k, query, scores.as_mut_ptr().add(position), score_stride);
                query += 8;
            }
            let to = scores.as_mut_ptr().add(position);
            // the rest in one pass: a decoded row has as many queries as its group has heads
            match args.n_queries - query {
                0 => (),
                1 => score::<S, 1>(args, k, query, to, score_stride),
                2 => score::<S, 2>(args, k, query, to, score_stride),
                3 => score::<S, 3>(args, k, query, to, score_stride),
                4 => score::<S, 4>(args, k, query, to, score_stride),
                5 => score::<S, 5>(args, k, query, to, score_stride),
                6 => score::<S, 6>(args, k, query, to, score_stride),
                _ => score::<S, 7>(args, k, query, to, score_stride),
            }
        }
        for query in 0..args.n_queries {
            let valid = args.first_length + query / args.group;
            let first = valid.saturating_sub(args.window);
            let row = &mut scores[query * score_stride..(query + 1) * score_stride];
            softmax::<S>(&mut row[start..length.next_multiple_of(LANES)], first - start, valid - start);
        }
        let mut query = 0;
        while query + 4 <= args.n_queries {
            weigh_all::<S, 4>(args, length, query, scores.as_ptr(), score_stride, out.as_mut_ptr());
            query += 4;
        }
        let (from, to) = (scores.as_ptr(), out.as_mut_ptr());
        match args.n_queries - query {
            0 => (),
            1 => weigh_all::<S, 1>(args, length, query, from, score_stride, to),
            2 => weigh_all::<S, 2>(args, length, query, from, score_stride, to),
            _ => weigh_all::<S, 3>(args, length, query, from, score_stride, to),
        }
    }
}

/// Scores of `Q` queries at 16 positions.
/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn score<S: Simd, const Q: usize>(
    args: &Args,
    k: *const f32,
    query: usize,
    scores: *mut f32,
    stride: usize,
) {
    // SAFETY: `attend_any` asserted the extents.
    unsafe {
        let queries = args.queries.as_ptr().add(query * args.head_dim);
        let mut acc = [S::splat(0.0); Q];
        for d in 0..args.head_dim {
            let keys = S::load(k.add(d * args.block_tokens));
            for q in 0..Q {
                acc[q] = S::fma(S::splat(*queries.add(q * args.head_dim + d)), keys, acc[q]);
            }
        }
        for q in 0..Q {
            S::store(scores.add((query + q) * stride), acc[q]);
        }
    }
}

/// Softmax over the scores from `first` to `valid`; the others become 0.
/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn softmax<S: Simd>(row: &mut [f32], first: usize, valid: usize) {
    row[..first].fill(f32::NEG_INFINITY);
    row[valid..].fill(f32::NEG_INFINITY);
    let n = valid.next_multiple_of(LANES);
    // SAFETY: whole vectors inside the row, whose length is a multiple of 16.
    unsafe {
        let mut largest = S::splat(f32::NEG_INFINITY);
        for i in (0..n).step_by(LANES) {
            largest = S::max(largest, S::load(row.as_ptr().add(i)));
        }
        let largest = S::splat(S::largest(largest));
        let mut sum = S::splat(0.0);
        for i in (0..n).step_by(LANES) {
            let p = row.as_mut_ptr().add(i);
            let e = S::exp(S::sub(S::load(p), largest));
            S::store(p, e);
            sum = S::add(sum, e);
        }
        let inverse = S::splat(1.0 / S::sum(sum));
        for i in (0..n).step_by(LANES) {
            let p = row.as_mut_ptr().add(i);
            S::store(p, S::mul(S::load(p), inverse));
        }
        row[n..].fill(0.0);
    }
}

/// Weighted sums of V for `Q` queries, up to four vectors of the head at a time.
/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn weigh_all<S: Simd, const Q: usize>(
    args: &Args,
    length: usize,
    query: usize,
    scores: *const f32,
    stride: usize,
    out: *mut f32,
) {
    // SAFETY: `attend_any` asserted the extents.
    unsafe {
        let mut d = 0;
        while d + 4 * LANES <= args.head_dim {
            weigh::<S, Q, 4>(args, length, query, d, scores, stride, out);
            d += 4 * LANES;
        }
        while d < args.head_dim {
            weigh::<S, Q, 1>(args, length, query, d, scores, stride, out);
            d += LANES;
        }
    }
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn weigh<S: Simd, const Q: usize, const N: usize>(
    args: &Args,
    length: usize,
    query: usize,
    d: usize,
    scores: *const f32,
    stride: usize,
    out: *mut f32,
) {
    // SAFETY: `attend_any` asserted the extents.
    unsafe {
        let mut acc = [[S::splat(0.0); N]; Q];
        let half = args.head_dim * args.block_tokens;
        let start = args.start();
        let mut position = start / args.block_tokens * args.block_tokens;
        for block in &args.blocks[start / args.block_tokens..] {
            if position >= length {
                break;
            }
            let v = args.pool.as_ptr().add(*block as usize * args.block_stride + half + d);
            for slot in start.saturating_sub(position)..args.block_tokens.min(length - position) {
                let mut values = [S::splat(0.0); N];
                for n in 0..N {
                    values[n] = S::load(v.add(slot * args.head_dim + n * LANES));
                }
                for q in 0..Q {
                    let weight = S::splat(*scores.add((query + q) * stride + position + slot));
                    for n in 0..N {
                        acc[q][n] = S::fma(weight, values[n], acc[q][n]);
                    }
                }
            }
            position += args.block_tokens;
        }
        for q in 0..Q {
            for n in 0..N {
                S::store(out.add((query + q) * args.head_dim + d + n * LANES), acc[q][n]);
            }
        }
    }
}
