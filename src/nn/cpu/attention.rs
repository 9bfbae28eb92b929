//! Causal attention of a tile: neighbouring rows of one sequence, or rows of several sequences whose block
//! tables begin alike, for the heads that share one KV head.
//!
//! What the sequences of a tile share (a job's common head) is read once for all of their rows, the rest
//! sequence by sequence. Scores of all positions are kept (a tile of rows × context), then softmax, then the
//! weighted sum of V: per row, every sum runs over positions in ascending order, whatever rows share the
//! tile: what lies before a row's window, or behind its own position, is weighed 0. Nothing is repeated per
//! query head.

use std::ops::Range;

use half::f16;

use super::LANES;
use super::buffer::Plain;
use super::isa::dispatch;
use super::simd::Simd;

/// Query vectors (rows × heads of a group) that share a pass over the keys.
pub const TILE: usize = 24;

/// How K and V are stored.
pub trait Stored: Plain {
    /// # Safety
    /// That of [`Simd`]; `p` is good for 16 values.
    unsafe fn load<S: Simd>(p: *const Self) -> S::V;
    /// # Safety
    /// That of [`Simd`]; `p` is good for 16 values.
    unsafe fn store<S: Simd>(p: *mut Self, v: S::V);
}

impl Stored for f32 {
    /// # Safety
    /// That of the trait.
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: passed on to the caller.
        unsafe { S::load(p) }
    }
    /// # Safety
    /// That of the trait.
    #[inline(always)]
    unsafe fn store<S: Simd>(p: *mut Self, v: S::V) {
        // SAFETY: passed on to the caller.
        unsafe { S::store(p, v) }
    }
}

impl Stored for f16 {
    /// # Safety
    /// That of the trait.
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::V {
        // SAFETY: passed on to the caller; an f16 is its 16 bits.
        unsafe { S::load_f16(p.cast()) }
    }
    /// # Safety
    /// That of the trait.
    #[inline(always)]
    unsafe fn store<S: Simd>(p: *mut Self, v: S::V) {
        // SAFETY: passed on to the caller; an f16 is its 16 bits.
        unsafe { S::store_f16(p.cast(), v) }
    }
}

/// One tile.
#[derive(Clone, Copy)]
pub struct Args<'a, T> {
    /// Queries, scaled by 1/√head_dim: `[n_queries, head_dim]`, segment after segment, row after row, head
    /// after head.
    pub queries: &'a [f32],
    /// Heads per row.
    pub group: usize,
    pub segments: &'a [Segment],
    /// Block tables of the batch, back to back.
    pub tables: &'a [u32],
    /// Positions from the start that lie in the same blocks for all segments, and that all rows see as far as
    /// the window lets them: whole blocks. 0 is always right.
    pub shared: usize,
    /// How many positions a row sees, the last ones; `usize::MAX` for all.
    pub window: usize,
    pub head_dim: usize,
    pub block_tokens: usize,
    /// The layer's first K and, per block, the distance to the next; V lies `head_dim·block_tokens` after K.
    pub pool: &'a [T],
    pub block_stride: usize,
}

/// Neighbouring rows of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub rows: usize,
    /// Positions up to the first row's, its own included; each further row has one more.
    pub first_length: usize,
    /// Where the sequence's block table begins in `tables`; it covers the last row's position.
    pub first_block: usize,
}

impl Segment {
    fn length(&self) -> usize {
        self.first_length + self.rows - 1
    }

    /// First position that some row sees, rounded down to a whole vector: where scores begin.
    fn start(&self, window: usize) -> usize {
        self.first_length.saturating_sub(window) / LANES * LANES
    }
}

impl<T> Args<'_, T> {
    pub fn n_queries(&self) -> usize {
        self.segments.iter().map(|segment| segment.rows * self.group).sum()
    }

    fn half(&self) -> usize {
        self.head_dim * self.block_tokens
    }

    /// Where the scores of all rows begin.
    fn start(&self) -> usize {
        self.segments.iter().map(|segment| segment.start(self.window)).min().unwrap_or(0)
    }

    /// K of the block that holds a position, at that position.
    /// # Safety
    /// The table covers the position, and its blocks lie in the pool.
    unsafe fn keys_at(&self, first_block: usize, position: usize) -> *const T {
        // SAFETY: the caller's contract.
        unsafe {
            let block = *self.tables.get_unchecked(first_block + position / self.block_tokens) as usize;
            self.pool.as_ptr().add(block * self.block_stride + position % self.block_tokens)
        }
    }
}

dispatch! {
    /// `out[n_queries, head_dim]`. `scores` has `n_queries` rows of `score_stride` values, a multiple of 16
    /// that covers the longest segment. `head_dim` is a multiple of 16.
    pub fn attend_f32(args: &Args<f32>, scores: &mut [f32], score_stride: usize, out: &mut [f32]) = attend_any_f32;
    /// The same over halves.
    pub fn attend_f16(args: &Args<f16>, scores: &mut [f32], score_stride: usize, out: &mut [f32]) = attend_any_f16;
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn attend_any_f32<S: Simd>(args: &Args<f32>, scores: &mut [f32], stride: usize, out: &mut [f32]) {
    // SAFETY: passed on to the caller.
    unsafe { attend::<S, f32>(args, scores, stride, out) }
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn attend_any_f16<S: Simd>(args: &Args<f16>, scores: &mut [f32], stride: usize, out: &mut [f32]) {
    // SAFETY: passed on to the caller.
    unsafe { attend::<S, f16>(args, scores, stride, out) }
}

fn check<T>(args: &Args<T>, scores: &[f32], stride: usize, out: &[f32]) {
    let n_queries = args.n_queries();
    assert!(args.window > 0 && args.queries.len() >= n_queries * args.head_dim);
    assert!(out.len() >= n_queries * args.head_dim && args.head_dim.is_multiple_of(LANES));
    assert!(scores.len() >= n_queries * stride && args.block_tokens.is_multiple_of(LANES));
    assert!(args.shared.is_multiple_of(args.block_tokens));
    let shared = |segment: &Segment| &args.tables[segment.first_block..][..args.shared / args.block_tokens];
    for segment in args.segments {
        let length = segment.length();
        assert!(segment.first_length >= args.shared && stride >= length.next_multiple_of(LANES));
        assert!(shared(segment) == shared(&args.segments[0]), "shared blocks are the same blocks");
        for block in &args.tables[segment.first_block..][..length.div_ceil(args.block_tokens)] {
            assert!(*block as usize * args.block_stride + 2 * args.half() <= args.pool.len());
        }
    }
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn attend<S: Simd, T: Stored>(args: &Args<T>, scores: &mut [f32], stride: usize, out: &mut [f32]) {
    check(args, scores, stride, out);
    let Some(first) = args.segments.first() else { return };
    let (n_queries, start) = (args.n_queries(), args.start());
    let part = |segment: &Segment| (args.shared.max(segment.start(args.window)), segment.length());
    // SAFETY: `check` asserted the extents.
    unsafe {
        let to = scores.as_mut_ptr();
        score_range::<S, T>(args, first.first_block, start..args.shared, 0..n_queries, to, stride, false);
        let mut query = 0;
        for (i, segment) in args.segments.iter().enumerate() {
            let queries = query..query + segment.rows * args.group;
            let (from, length) = part(segment);
            let range = from..length.next_multiple_of(LANES);
            if let Some(next) = args.segments.get(i + 1) {
                let (from, length) = part(next);
                prefetch::<S, T>(args, next.first_block, from..length.min(from + 2 * LANES));
            }
            score_range::<S, T>(args, segment.first_block, range, queries.clone(), to, stride, true);
            for q in queries.clone() {
                let valid = segment.first_length + (q - query) / args.group;
                let seen = valid.saturating_sub(args.window) - start..valid - start;
                let row = &mut scores[q * stride + start..q * stride + length.next_multiple_of(LANES)];
                softmax::<S>(row, seen.start, seen.end);
            }
            query = queries.end;
        }
        out[..n_queries * args.head_dim].fill(0.0);
        let (from, out) = (scores.as_ptr(), out.as_mut_ptr());
        weigh_range::<S, T>(args, first.first_block, start..args.shared, 0..n_queries, (from, stride), out);
        let mut query = 0;
        for segment in args.segments {
            let queries = query..query + segment.rows * args.group;
            let (first, length) = part(segment);
            weigh_range::<S, T>(
                args,
                segment.first_block,
                first..length,
                queries.clone(),
                (from, stride),
                out,
            );
            query = queries.end;
        }
    }
}

/// Calls a kernel for `N` queries at a time and the rest in one call; `N` and the rest are constants of it.
macro_rules! by_queries {
    ($queries:expr, $n:literal, [$($rest:literal)*], |$query:ident, $q:ident| $call:expr) => {{
        let mut $query = $queries.start;
        while $query + $n <= $queries.end {
            const $q: usize = $n;
            $call;
            $query += $n;
        }
        match $queries.end - $query {
            $($rest => {
                const $q: usize = $rest;
                $call
            })*
            _ => (),
        }
    }};
}

/// Scores at the positions of `range`, whole vectors, of one block table. What is not shared has to come from far.
/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn score_range<S: Simd, T: Stored>(
    args: &Args<T>,
    first_block: usize,
    range: Range<usize>,
    queries: Range<usize>,
    scores: *mut f32,
    stride: usize,
    is_own: bool,
) {
    // SAFETY: `check` asserted the extents.
    unsafe {
        let mut position = range.start;
        while position < range.end {
            let to = scores.add(position);
            if is_own {
                let ahead = position + 2 * LANES..range.end.min(position + 4 * LANES);
                prefetch::<S, T>(args, first_block, ahead);
            }
            if S::WIDE && position + 2 * LANES <= range.end {
                let keys = [position, position + LANES].map(|at| args.keys_at(first_block, at));
                by_queries!(queries, 8, [1 2 3 4 5 6 7], |query, Q| {
                    score::<S, T, Q, 2>(args, keys, query, to, stride);
                });
                position += 2 * LANES;
            } else {
                let keys = [args.keys_at(first_block, position)];
                by_queries!(queries, 4, [1 2 3], |query, Q| {
                    score::<S, T, Q, 1>(args, keys, query, to, stride);
                });
                position += LANES;
            }
        }
    }
}

/// Asks for K and V of the blocks from the start of a range on: blocks lie scattered over the pool, so the
/// machine does not foresee the next one.
/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn prefetch<S: Simd, T>(args: &Args<T>, first_block: usize, range: Range<usize>) {
    // SAFETY: `check` asserted the extents.
    unsafe {
        let mut position = range.start / args.block_tokens * args.block_tokens;
        while position < range.end {
            let keys = args.keys_at(first_block, position).cast::<u8>();
            for line in (0..2 * args.half() * size_of::<T>()).step_by(64) {
                S::prefetch(keys.add(line));
            }
            position += args.block_tokens;
        }
    }
}

/// Scores of `Q` queries at `P` times 16 positions.
/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn score<S: Simd, T: Stored, const Q: usize, const P: usize>(
    args: &Args<T>,
    keys: [*const T; P],
    query: usize,
    scores: *mut f32,
    stride: usize,
) {
    // SAFETY: `check` asserted the extents.
    unsafe {
        let queries = args.queries.as_ptr().add(query * args.head_dim);
        let mut acc = [[S::splat(0.0); P]; Q];
        for d in 0..args.head_dim {
            let mut k = [S::splat(0.0); P];
            for p in 0..P {
                k[p] = T::load::<S>(keys[p].add(d * args.block_tokens));
            }
            for q in 0..Q {
                let value = S::splat(*queries.add(q * args.head_dim + d));
                for p in 0..P {
                    acc[q][p] = S::fma(value, k[p], acc[q][p]);
                }
            }
        }
        for q in 0..Q {
            for p in 0..P {
                S::store(scores.add((query + q) * stride + p * LANES), acc[q][p]);
            }
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

/// Adds the weighted V at the positions of `range` to `out`, for queries of one block table.
/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn weigh_range<S: Simd, T: Stored>(
    args: &Args<T>,
    first_block: usize,
    range: Range<usize>,
    queries: Range<usize>,
    scores: (*const f32, usize),
    out: *mut f32,
) {
    if range.is_empty() {
        return;
    }
    // SAFETY: `check` asserted the extents.
    unsafe {
        let mut d = 0;
        while S::WIDE && d + 4 * LANES <= args.head_dim {
            by_queries!(queries, 6, [1 2 3 4 5], |query, Q| {
                weigh::<S, T, Q, 4>(args, first_block, range.clone(), query, d, scores, out);
            });
            d += 4 * LANES;
        }
        while d < args.head_dim {
            by_queries!(queries, 4, [1 2 3], |query, Q| {
                weigh::<S, T, Q, 1>(args, first_block, range.clone(), query, d, scores, out);
            });
            d += LANES;
        }
    }
}

/// # Safety
/// The pointers and sizes are those of the kernel it is part of, and the machine has `S`.
#[inline(always)]
unsafe fn weigh<S: Simd, T: Stored, const Q: usize, const N: usize>(
    args: &Args<T>,
    first_block: usize,
    range: Range<usize>,
    query: usize,
    d: usize,
    (scores, stride): (*const f32, usize),
    out: *mut f32,
) {
    // SAFETY: `check` asserted the extents.
    unsafe {
        let out = out.add(query * args.head_dim + d);
        let scores = scores.add(query * stride);
        let mut acc = [[S::splat(0.0); N]; Q];
        for q in 0..Q {
            for n in 0..N {
                acc[q][n] = S::load(out.add(q * args.head_dim + n * LANES));
            }
        }
        let mut position = range.start;
        while position < range.end {
            let slot = position % args.block_tokens;
            let end = range.end.min(position - slot + args.block_tokens);
            let mut v =
                args.keys_at(first_block, position - slot).add(args.half() + slot * args.head_dim + d);
            while position < end {
                let mut values = [S::splat(0.0); N];
                for n in 0..N {
                    values[n] = T::load::<S>(v.add(n * LANES));
                }
                for q in 0..Q {
                    let weight = S::splat(*scores.add(q * stride + position));
                    for n in 0..N {
                        acc[q][n] = S::fma(weight, values[n], acc[q][n]);
                    }
                }
                v = v.add(args.head_dim);
                position += 1;
            }
        }
        for q in 0..Q {
            for n in 0..N {
                S::store(out.add(q * args.head_dim + n * LANES), acc[q][n]);
            }
        }
    }
}
