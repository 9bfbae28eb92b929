//! How a batch is cut into tiles: a pure function of its spans and block tables.
//!
//! Rows that decode have narrow tiles over parts of their positions, whose length depends on the sequence alone, so
//! that a row's numbers do not depend on its neighbours. Sequences that share the beginning of their tables have it
//! read once for all of them, in wide tiles over rows of many sequences (cascade); where it is cut then depends on
//! who shares it.

use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, ValidAsZeroBits};

use crate::nn::batch::{Batch, Span};

/// Of a row: its result comes from one tile.
pub const NONE: u32 = u32::MAX;
/// Queries of a narrow tile.
pub const NARROW: usize = 16;
/// Positions of a part of a decoding row, at least.
const PART: usize = 256;
/// A row's positions are cut into this many parts at most (and one more where the cut is not even).
const MOST_PARTS: usize = 16;
/// Positions that several sequences must share for a cascade.
const SHARED: usize = 128;
/// And sequences that must share them.
const SHARERS: usize = 4;
/// Positions of a part of what is shared.
const SHARED_PART: usize = 512;
/// From this many positions on, rows that are read in one go have theirs cut too.
const LONG: usize = 4096;
const LONG_PART: usize = 2048;

/// Neighbouring packed queries over a range of positions of one block table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tile {
    /// Query `q` is head `q % group` (of a KV head's group) of row `rows[q / group]`.
    pub first_query: u32,
    pub n_queries: u32,
    pub first_block: u32,
    pub begin: u32,
    pub end: u32,
    /// Which part of its rows' results this is.
    pub part: u32,
}

// SAFETY: plain words in the order of the kernel's struct; a tile of zeros has no queries.
unsafe impl DeviceRepr for Tile {}
// SAFETY: as above.
unsafe impl ValidAsZeroBits for Tile {}

/// What the kernels need to know of a batch. Vectors are reused from step to step.
#[derive(Debug, Default)]
pub struct Plan {
    /// Rows of the batch in the order of packed queries: all of them, then those of each cascade.
    pub rows: Vec<u32>,
    pub wide: Vec<Tile>,
    pub narrow: Vec<Tile>,
    /// Position of each row.
    pub positions: Vec<u32>,
    /// Where each row's key and value go: block · block_tokens + place.
    pub slots: Vec<u32>,
    /// Where the parts of each row begin, or [`NONE`].
    pub parts: Vec<u32>,
    pub n_parts: usize,
    /// Rows with several parts, and how many.
    pub split: Vec<u32>,
    pub split_counts: Vec<u32>,
    order: Vec<u32>,
}

/// What the cutting depends on besides the batch.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Query heads of a KV head.
    pub group: usize,
    pub block_tokens: usize,
    /// Queries of a wide tile.
    pub wide: usize,
    /// Parts that there is room for; rows beyond them are not cut.
    pub max_parts: usize,
    /// Sequences that share a beginning have it read once.
    pub cascade: bool,
}

impl Plan {
    pub fn fill(&mut self, batch: &Batch, sizes: &Sizes) {
        let n_rows = batch.n_rows();
        self.rows.clear();
        self.rows.extend(0..n_rows as u32);
        for list in [&mut self.positions, &mut self.slots, &mut self.parts] {
            list.clear();
        }
        self.parts.resize(n_rows, NONE);
        self.wide.clear();
        self.narrow.clear();
        self.split.clear();
        self.split_counts.clear();
        self.n_parts = 0;
        for span in &batch.spans {
            let blocks = batch.blocks_of(span);
            for position in span.past..span.past + span.n_tokens {
                let at = position as usize;
                self.positions.push(position);
                let place = at % sizes.block_tokens;
                self.slots.push(blocks[at / sizes.block_tokens] * sizes.block_tokens as u32 + place as u32);
            }
        }
        self.order.clear();
        for (i, span) in batch.spans.iter().enumerate() {
            if is_narrow(span, sizes) {
                self.order.push(i as u32);
            } else {
                self.cut_wide(span, sizes);
            }
        }
        let mut order = std::mem::take(&mut self.order);
        if sizes.cascade {
            order.sort_unstable_by(|a, b| {
                let of = |i: u32| whole_blocks(batch, &batch.spans[i as usize], sizes);
                of(*a).cmp(of(*b)).then(a.cmp(b))
            });
        }
        let mut rest = &order[..];
        while let Some(first) = rest.first() {
            let (n, shared) = match sizes.cascade {
                true => sharers(batch, rest, sizes),
                false => (1, 0),
            };
            if n >= SHARERS {
                self.cut_cascade(batch, &rest[..n], shared, sizes);
                rest = &rest[n..];
            } else {
                self.cut_narrow(&batch.spans[*first as usize], 0, 0, sizes);
                rest = &rest[1..];
            }
        }
        self.order = order;
        // the longest first, so that none begins when all others end
        let cost = |tile: &Tile| std::cmp::Reverse(tile.end - tile.begin);
        self.wide.sort_by_key(cost);
        self.narrow.sort_by_key(cost);
    }

    /// Sets `n` parts aside for each of the rows; fewer than two, or too many, are none.
    fn take_parts(&mut self, first_row: u32, n_rows: u32, n: usize, max_parts: usize) -> bool {
        if n < 2 || self.n_parts + n * n_rows as usize > max_parts {
            return false;
        }
        for row in first_row..first_row + n_rows {
            self.parts[row as usize] = self.n_parts as u32;
            self.n_parts += n;
            self.split.push(row);
            self.split_counts.push(n as u32);
        }
        true
    }

    fn cut_wide(&mut self, span: &Span, sizes: &Sizes) {
        let end = span.past + span.n_tokens;
        let n_parts = match end as usize {
            length if length > LONG => length.div_ceil(LONG_PART),
            _ => 1,
        };
        let is_cut = self.take_parts(span.first_row, span.n_tokens, n_parts, sizes.max_parts);
        let first_query = span.first_row as usize * sizes.group;
        let n_queries = span.n_tokens as usize * sizes.group;
        for first in (0..n_queries).step_by(sizes.wide) {
            let n = sizes.wide.min(n_queries - first);
            // the last row of the tile sees the most
            let seen = span.past + ((first + n - 1) / sizes.group) as u32 + 1;
            for part in 0..if is_cut { n_parts } else { 1 } {
                let range = if is_cut { LONG_PART as u32 } else { u32::MAX };
                let begin = range.saturating_mul(part as u32).min(seen);
                self.wide.push(Tile {
                    first_query: (first_query + first) as u32,
                    n_queries: n as u32,
                    first_block: span.first_block,
                    begin,
                    end: begin.saturating_add(range).min(seen),
                    part: part as u32,
                });
            }
        }
    }

    /// Positions from `begin` on; `before` parts lie before them.
    fn cut_narrow(&mut self, span: &Span, begin: u32, before: usize, sizes: &Sizes) {
        let end = span.past + span.n_tokens;
        let length = (end - begin) as usize;
        let part_tokens = length.div_ceil(MOST_PARTS).next_multiple_of(PART);
        let mut n_parts = length.div_ceil(part_tokens);
        if before == 0 && !self.take_parts(span.first_row, span.n_tokens, n_parts, sizes.max_parts) {
            n_parts = 1;
        }
        let part_tokens = if n_parts == 1 { length } else { part_tokens };
        let first_query = span.first_row as usize * sizes.group;
        let n_queries = span.n_tokens as usize * sizes.group;
        for first in (0..n_queries).step_by(NARROW) {
            for part in 0..n_parts {
                let from = begin + (part * part_tokens) as u32;
                self.narrow.push(Tile {
                    first_query: (first_query + first) as u32,
                    n_queries: NARROW.min(n_queries - first) as u32,
                    first_block: span.first_block,
                    begin: from,
                    end: (from + part_tokens as u32).min(end),
                    part: (before + part) as u32,
                });
            }
        }
    }

    fn cut_cascade(&mut self, batch: &Batch, group: &[u32], shared: usize, sizes: &Sizes) {
        let spans = || group.iter().map(|i| &batch.spans[*i as usize]);
        let shared_parts = shared.div_ceil(SHARED_PART);
        let own_parts = |span: &Span| {
            let length = (span.past + span.n_tokens) as usize - shared;
            length.div_ceil(length.div_ceil(MOST_PARTS).next_multiple_of(PART))
        };
        let wanted: usize = spans().map(|s| (shared_parts + own_parts(s)) * s.n_tokens as usize).sum();
        if self.n_parts + wanted > sizes.max_parts {
            spans().for_each(|span| self.cut_narrow(span, 0, 0, sizes));
            return;
        }
        let first_row = self.rows.len();
        for span in spans() {
            self.take_parts(span.first_row, span.n_tokens, shared_parts + own_parts(span), sizes.max_parts);
            self.rows.extend(span.first_row..span.first_row + span.n_tokens);
            self.cut_narrow(span, shared as u32, shared_parts, sizes);
        }
        let (first_query, n_queries) = (first_row * sizes.group, (self.rows.len() - first_row) * sizes.group);
        let first_block = batch.spans[group[0] as usize].first_block;
        for first in (0..n_queries).step_by(sizes.wide) {
            for part in 0..shared_parts {
                self.wide.push(Tile {
                    first_query: (first_query + first) as u32,
                    n_queries: sizes.wide.min(n_queries - first) as u32,
                    first_block,
                    begin: (part * SHARED_PART) as u32,
                    end: ((part + 1) * SHARED_PART).min(shared) as u32,
                    part: part as u32,
                });
            }
        }
    }
}

/// One row, or as many as fit a narrow tile with their heads.
fn is_narrow(span: &Span, sizes: &Sizes) -> bool {
    span.n_tokens == 1 || span.n_tokens as usize * sizes.group <= NARROW
}

/// Blocks that were complete before this step.
fn whole_blocks<'a>(batch: &'a Batch, span: &Span, sizes: &Sizes) -> &'a [u32] {
    &batch.blocks_of(span)[..span.past as usize / sizes.block_tokens]
}

/// How many of the spans, from the first on, share a beginning worth a cascade, and its positions.
fn sharers(batch: &Batch, spans: &[u32], sizes: &Sizes) -> (usize, usize) {
    let of = |i: u32| whole_blocks(batch, &batch.spans[i as usize], sizes);
    let (mut n, mut common) = (1, of(spans[0]));
    for next in &spans[1..] {
        let shared = common.iter().zip(of(*next)).take_while(|(a, b)| a == b).count();
        // who shares much less would cost the others more than it gains
        if shared * sizes.block_tokens < SHARED || (n > 1 && 2 * shared < common.len()) {
            break;
        }
        common = &common[..shared];
        n += 1;
    }
    (n, common.len() * sizes.block_tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spans of (past, new tokens); the first `shared` positions of all lie in the same blocks.
    fn batch(spans: &[(u32, u32)], shared: u32) -> Batch {
        let mut batch = Batch::default();
        let mut next = 1000;
        for &(past, n_tokens) in spans {
            let n_blocks = (past + n_tokens).div_ceil(16);
            batch.spans.push(Span {
                first_row: batch.tokens.len() as u32,
                n_tokens,
                past,
                first_block: batch.blocks.len() as u32,
                n_blocks,
                adapter: None,
            });
            batch.tokens.extend((0..n_tokens).map(|_| 0));
            for block in 0..n_blocks {
                batch.blocks.push(if block < shared / 16 { block } else { next });
                next += 1;
            }
        }
        batch
    }

    fn sizes(cascade: bool) -> Sizes {
        Sizes { group: 5, block_tokens: 16, wide: 128, max_parts: 4096, cascade }
    }

    /// Each query is in tiles whose ranges, by ascending part, cover its positions once.
    fn check(batch: &Batch, sizes: &Sizes) -> Plan {
        let mut plan = Plan::default();
        plan.fill(batch, sizes);
        let mut seen = vec![Vec::new(); batch.n_rows() * sizes.group];
        for tile in plan.wide.iter().chain(&plan.narrow) {
            assert!(tile.n_queries > 0 && tile.n_queries as usize <= sizes.wide);
            for query in tile.first_query..tile.first_query + tile.n_queries {
                let row = plan.rows[query as usize / sizes.group] as usize;
                let span = batch.spans.iter().rfind(|s| s.first_row as usize <= row).unwrap();
                let own = &batch.blocks[tile.first_block as usize..][..tile.end.div_ceil(16) as usize];
                assert_eq!(own, &batch.blocks_of(span)[..own.len()], "of the row's own table");
                seen[row * sizes.group + query as usize % sizes.group]
                    .push((tile.part, tile.begin, tile.end));
            }
        }
        for (query, mut parts) in seen.into_iter().enumerate() {
            let row = query / sizes.group;
            parts.sort_unstable();
            assert!(parts.iter().map(|(part, ..)| *part).eq(0..parts.len() as u32), "parts are numbered");
            let mut at = 0;
            for (_, begin, end) in &parts {
                assert!(*begin == at || begin == end, "ranges follow each other");
                at = at.max(*end);
            }
            assert!(at > plan.positions[row], "the row's own position is seen");
            let split = plan.split.iter().position(|r| *r as usize == row);
            assert_eq!(split.is_some(), parts.len() > 1);
            assert_eq!(split.is_some(), plan.parts[row] != NONE);
            if let Some(split) = split {
                assert_eq!(plan.split_counts[split] as usize, parts.len());
                assert!(plan.parts[row] as usize + parts.len() <= plan.n_parts);
            }
        }
        plan
    }

    #[test]
    fn every_row_sees_its_positions_once() {
        let mixed = [(0, 1), (700, 1), (4095, 1), (30, 3), (0, 700), (5000, 200), (9000, 1), (17, 4)];
        for cascade in [false, true] {
            check(&batch(&mixed, 0), &sizes(cascade));
            check(&batch(&mixed, 0), &Sizes { max_parts: 7, ..sizes(cascade) });
            check(&batch(&mixed, 0), &Sizes { group: 1, ..sizes(cascade) });
            check(&batch(&mixed, 0), &Sizes { group: 24, ..sizes(cascade) });
        }
    }

    #[test]
    fn a_shared_beginning_is_read_once() {
        let spans: Vec<(u32, u32)> = (0..40).map(|i| (1000 + 16 * i, 1 + i % 3)).collect();
        let plan = check(&batch(&spans, 640), &sizes(true));
        assert!(plan.narrow.iter().all(|tile| tile.begin >= 640));
        let queries: u32 = plan.wide.iter().filter(|tile| tile.begin == 0).map(|tile| tile.n_queries).sum();
        assert_eq!(queries as usize, batch(&spans, 640).n_rows() * 5);
        let apart = check(&batch(&spans, 640), &sizes(false));
        assert!(apart.wide.is_empty());
        // three are too few, and so are some positions
        assert!(check(&batch(&spans[..3], 640), &sizes(true)).wide.is_empty());
        assert!(check(&batch(&spans, 64), &sizes(true)).wide.is_empty());
        check(&batch(&spans, 640), &Sizes { max_parts: 50, ..sizes(true) });
    }

    #[test]
    fn a_row_is_cut_the_same_in_any_batch() {
        let alone = check(&batch(&[(3000, 1)], 0), &sizes(true));
        let among = check(&batch(&[(20, 1), (5, 900), (3000, 1), (8, 2)], 0), &sizes(true));
        let ranges = |plan: &Plan, row: u32| {
            let mine = |tile: &&Tile| tile.first_query / 5 == row;
            let mut ranges: Vec<_> =
                plan.narrow.iter().filter(mine).map(|tile| (tile.begin, tile.end)).collect();
            ranges.sort_unstable();
            ranges
        };
        assert_eq!(ranges(&alone, 0), ranges(&among, 901));
        assert_eq!(ranges(&alone, 0).len(), 12);
    }
}
