//! Attention: prompts, decoding, and decoding of sequences that share their beginning.

use adit::nn::batch::{Batch, Span};
use adit::nn::cache::KvShape;
use adit::nn::cuda::attention::plan::{Plan, Sizes, Tile};
use adit::nn::cuda::attention::{Parts, Planned, attend};
use adit::nn::cuda::card::{Buffer, Card};
use half::bf16;

use super::{Bench, DIM, HEADS, KV_HEADS};

const BLOCK: usize = 16;
const MAX_PARTS: usize = 8192;

/// A batch ready to be attended, over a pool of one layer.
pub struct Ready {
    pub shape: KvShape,
    pub n_heads: usize,
    pub n_rows: usize,
    pub pool: Buffer<bf16>,
    parts: Parts,
    wide: Buffer<Tile>,
    narrow: Buffer<Tile>,
    /// Counts, split rows and their parts, rows, tables, positions, parts.
    pub lists: Vec<Buffer<u32>>,
    pub slots: Buffer<u32>,
    wide_queries: usize,
    n_tiles: [usize; 3],
}

impl Ready {
    /// `n` spans of (past, new), sharing their first `shared` positions.
    pub fn new(
        bench: &Bench,
        n: usize,
        (past, new): (usize, usize),
        shared: usize,
        cascade: bool,
        [n_heads, n_kv_heads, dim]: [usize; 3],
        wide_queries: usize,
    ) -> Self {
        let card = &bench.card;
        let mut batch = Batch::default();
        let mut next = (shared / BLOCK) as u32;
        for _ in 0..n {
            let n_blocks = (past + new).div_ceil(BLOCK);
            batch.spans.push(Span {
                first_row: batch.tokens.len() as u32,
                n_tokens: new as u32,
                past: past as u32,
                first_block: batch.blocks.len() as u32,
                n_blocks: n_blocks as u32,
                adapter: None,
            });
            batch.tokens.extend((0..new).map(|_| 0));
            for block in 0..n_blocks {
                let is_shared = block < shared / BLOCK;
                batch.blocks.push(if is_shared { block as u32 } else { next });
                next += u32::from(!is_shared);
            }
        }
        // scattered over the pool
        let n_blocks = (next as usize).next_multiple_of(7) + 1;
        batch.blocks.iter_mut().for_each(|block| *block = *block * 7 % n_blocks as u32);
        let shape = KvShape { n_layers: 1, n_blocks, n_kv_heads, head_dim: dim, block_tokens: BLOCK };
        let mut plan = Plan::default();
        let group = n_heads / n_kv_heads;
        plan.fill(
            &batch,
            &Sizes { group, block_tokens: BLOCK, wide: wide_queries, max_parts: MAX_PARTS, cascade },
        );
        let n_tiles = [plan.wide.len(), plan.narrow.len(), plan.split.len()];
        let counts = n_tiles.map(|n| n as u32);
        let or_one = |list: &[u32]| card.upload(if list.is_empty() { &[0] } else { list }, "bench").unwrap();
        let lists =
            [&counts[..], &plan.split, &plan.split_counts, &plan.rows, &batch.blocks, &plan.positions];
        let mut lists: Vec<Buffer<u32>> = lists.into_iter().map(or_one).collect();
        lists.push(or_one(&plan.parts));
        plan.wide.push(Tile::default());
        plan.narrow.push(Tile::default());
        Self {
            shape,
            n_heads,
            n_rows: batch.n_rows(),
            pool: bench.random(shape.layer(0).len()),
            parts: Parts::new(card, MAX_PARTS, n_heads, dim).unwrap(),
            wide: card.upload(&plan.wide, "bench").unwrap(),
            narrow: card.upload(&plan.narrow, "bench").unwrap(),
            slots: or_one(&plan.slots),
            lists,
            wide_queries,
            n_tiles,
        }
    }

    pub fn attend(
        &mut self,
        card: &Card,
        qkv: &Buffer<bf16>,
        attended: &mut Buffer<bf16>,
    ) -> Result<(), adit::nn::Error> {
        let [wide, narrow, split] = self.n_tiles;
        let planned = Planned {
            wide: self.wide.part(0..wide),
            narrow: self.narrow.part(0..narrow),
            split: self.lists[1].part(0..split),
            split_counts: self.lists[2].part(0..split),
            counts: self.lists[0].all(),
            rows: self.lists[3].all(),
            tables: self.lists[4].all(),
            positions: self.lists[5].all(),
            parts: self.lists[6].all(),
            wide_queries: self.wide_queries,
        };
        let how = (None, 1.0 / (self.shape.head_dim as f32).sqrt());
        let (n_heads, shape) = (self.n_heads, self.shape);
        attend(
            card,
            &planned,
            &mut self.parts,
            &shape,
            n_heads,
            how,
            qkv.all(),
            self.pool.all(),
            &attended.all_mut(),
        )
    }
}

pub fn run(bench: &Bench) {
    let ours = [HEADS, KV_HEADS, DIM];
    for (heads, n, past, new) in [
        (ours, 16, 0, 512),
        (ours, 8, 0, 2048),
        (ours, 2, 0, 8192),
        (ours, 64, 384, 128),
        (ours, 1, 30_000, 512),
        ([14, 2, 64], 8, 0, 2048),
        ([32, 8, 96], 8, 0, 2048),
        ([16, 8, 256], 8, 0, 2048),
    ] {
        for wide in [128, 64] {
            one(
                bench,
                &format!("prefill of {n} × {new} after {past}, tiles of {wide}"),
                n,
                (past, new),
                0,
                false,
                heads,
                wide,
            );
        }
    }
    for (heads, n, past) in [
        (ours, 256, 575),
        (ours, 1024, 575),
        (ours, 64, 2111),
        (ours, 16, 8191),
        (ours, 1, 575),
        (ours, 1, 32_000),
        ([14, 2, 64], 256, 575),
        ([32, 8, 96], 256, 575),
        ([16, 8, 256], 256, 575),
    ] {
        one(bench, &format!("decode of {n} at {past}"), n, (past, 1), 0, false, heads, 128);
    }
    for (n, past, new, cascade) in [
        (256, 575, 1, false),
        (256, 575, 1, true),
        (1024, 575, 1, true),
        (256, 575, 3, false),
        (256, 575, 3, true),
    ] {
        for wide in if cascade { &[128, 64][..] } else { &[128] } {
            let what =
                format!("decode of {n} × {new} at {past}, 384 shared, cascade {cascade}, tiles of {wide}");
            one(bench, &what, n, (past, new), 384, cascade, ours, *wide);
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn one(
    bench: &Bench,
    what: &str,
    n: usize,
    (past, new): (usize, usize),
    shared: usize,
    cascade: bool,
    heads: [usize; 3],
    wide: usize,
) {
    let mut ready = Ready::new(bench, n, (past, new), shared, cascade, heads, wide);
    let [n_heads, n_kv_heads, dim] = heads;
    let qkv = bench.random(ready.n_rows * (n_heads + 2 * n_kv_heads) * dim);
    let mut attended = bench.random(ready.n_rows * n_heads * dim);
    let s = bench.seconds(4, |_| ready.attend(&bench.card, &qkv, &mut attended));
    // each position's keys and values once: of a sequence, or of all that share it
    let positions = if cascade { shared + n * (past + new - shared) } else { n * (past + new) };
    let bytes = positions * n_kv_heads * dim * 4 + ready.n_rows * n_heads * dim * 4;
    let seen: usize = (past + 1..=past + new).sum::<usize>() * n;
    let what = format!("{what}, {n_heads}/{n_kv_heads}×{dim}");
    bench.line(&what, s, bytes as f64, (4 * seen * n_heads * dim) as f64);
}
