//! Attention over the paged pool against plain sums: prefill, decode, drafts and cascades in one batch.

use adit::nn::batch::{Batch, Span};
use adit::nn::cache::KvShape;
use adit::nn::cuda::Element;
use adit::nn::cuda::attention::plan::{Plan, Sizes};
use adit::nn::cuda::attention::{Parts, Planned, attend};
use adit::nn::cuda::card::Card;
use half::{bf16, f16};

use super::{card, download, near, poisoned, rounded, unit, upload, values};

const MAX_PARTS: usize = 4096;

#[derive(Clone, Copy)]
struct Case {
    dim: usize,
    n_heads: usize,
    n_kv_heads: usize,
    block_tokens: usize,
    window: Option<usize>,
    wide: usize,
    cascade: bool,
}

/// Spans of (past, new); all share the blocks of their first `shared` positions, as far as those are past.
fn batch(spans: &[(usize, usize)], shared: usize, block_tokens: usize) -> (Batch, usize) {
    let mut batch = Batch::default();
    let mut next = shared.div_ceil(block_tokens) as u32;
    for &(past, n_tokens) in spans {
        let n_blocks = (past + n_tokens).div_ceil(block_tokens);
        batch.spans.push(Span {
            first_row: batch.tokens.len() as u32,
            n_tokens: n_tokens as u32,
            past: past as u32,
            first_block: batch.blocks.len() as u32,
            n_blocks: n_blocks as u32,
            adapter: None,
        });
        batch.tokens.extend((0..n_tokens).map(|_| 0));
        for block in 0..n_blocks {
            let is_shared = (block + 1) * block_tokens <= shared.min(past);
            batch.blocks.push(if is_shared { block as u32 } else { next });
            next += u32::from(!is_shared);
        }
    }
    // scattered over the pool: 7 and the size have no divisor in common
    let n_blocks = (next as usize + 1).next_multiple_of(7) + 1;
    batch.blocks.iter_mut().for_each(|block| *block = *block * 7 % n_blocks as u32);
    (batch, n_blocks)
}

/// Runs a batch, with buffers that hold more tiles than there are.
fn run<T: Element>(
    card: &Card,
    case: &Case,
    batch: &Batch,
    n_blocks: usize,
    (qkv, pool): (&[f32], &[f32]),
) -> Vec<f32> {
    let Case { dim, n_heads, n_kv_heads, block_tokens, window, wide, cascade } = *case;
    let shape = KvShape { n_layers: 1, n_blocks, n_kv_heads, head_dim: dim, block_tokens };
    let mut plan = Plan::default();
    plan.fill(
        batch,
        &Sizes { group: n_heads / n_kv_heads, block_tokens, wide, max_parts: MAX_PARTS, cascade },
    );
    let counts = [plan.wide.len() as u32, plan.narrow.len() as u32, plan.split.len() as u32];
    plan.wide.resize(plan.wide.len() + 2, Default::default());
    plan.narrow.resize(plan.narrow.len() + 2, Default::default());
    let lists = [
        &counts[..],
        &plan.split,
        &plan.split_counts,
        &plan.rows,
        &batch.blocks,
        &plan.positions,
        &plan.parts,
    ];
    let lists = lists.map(|list| card.upload(if list.is_empty() { &[0] } else { list }, "test").unwrap());
    let (on_wide, on_narrow) =
        (card.upload(&plan.wide, "test").unwrap(), card.upload(&plan.narrow, "test").unwrap());
    let [counts, split, split_counts, rows, tables, positions, parts] = &lists;
    let planned = Planned {
        wide: on_wide.all(),
        narrow: on_narrow.all(),
        split: split.all(),
        split_counts: split_counts.all(),
        counts: counts.all(),
        rows: rows.all(),
        tables: tables.all(),
        positions: positions.all(),
        parts: parts.all(),
        wide_queries: wide,
    };
    let (qkv, pool) = (upload::<T>(card, qkv), upload::<T>(card, pool));
    let mut attended = poisoned::<T>(card, batch.n_rows() * n_heads * dim);
    let mut space = Parts::new(card, MAX_PARTS, n_heads, dim).unwrap();
    let how = (window, 1.0 / (dim as f32).sqrt());
    attend(card, &planned, &mut space, &shape, n_heads, how, qkv.all(), pool.all(), &attended.all_mut())
        .unwrap();
    download(card, &attended)
}

fn plain(case: &Case, batch: &Batch, n_blocks: usize, qkv: &[f32], pool: &[f32]) -> Vec<f32> {
    let Case { dim, n_heads, n_kv_heads, block_tokens, window, .. } = *case;
    let shape = KvShape { n_layers: 1, n_blocks, n_kv_heads, head_dim: dim, block_tokens };
    let (group, stride) = (n_heads / n_kv_heads, (n_heads + 2 * n_kv_heads) * dim);
    let mut out = Vec::new();
    for span in &batch.spans {
        let blocks = batch.blocks_of(span);
        for i in 0..span.n_tokens as usize {
            let (row, own) = (span.first_row as usize + i, span.past as usize + i);
            let first = window.map_or(0, |window| (own + 1).saturating_sub(window));
            for head in 0..n_heads {
                let query = &qkv[row * stride + head * dim..][..dim];
                let at = |position: usize| {
                    let block = blocks[position / block_tokens] as usize;
                    shape.offset(0, block, head / group) + position % block_tokens * dim
                };
                let dot = |u: &[f32], v: &[f32]| u.iter().zip(v).map(|(u, v)| u * v).sum::<f32>();
                let scores: Vec<f32> =
                    (first..=own).map(|p| dot(query, &pool[at(p)..][..dim]) / (dim as f32).sqrt()).collect();
                let top = scores.iter().copied().fold(f32::MIN, f32::max);
                let weights: Vec<f64> = scores.iter().map(|s| f64::from(s - top).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let mut result = vec![0f64; dim];
                for (position, weight) in (first..=own).zip(&weights) {
                    let values = &pool[at(position) + shape.half()..][..dim];
                    result.iter_mut().zip(values).for_each(|(r, v)| *r += weight * f64::from(*v));
                }
                out.extend(result.iter().map(|r| (r / sum) as f32));
            }
        }
    }
    out
}

/// Queries that single out keys: with plain ones, all weights are about alike and a wrong mask hardly shows.
fn inputs<T: Element>(case: &Case, batch: &Batch, n_blocks: usize) -> (Vec<f32>, Vec<f32>) {
    let stride = (case.n_heads + 2 * case.n_kv_heads) * case.dim;
    let qkv: Vec<f32> = values(1, batch.n_rows() * stride).iter().map(|v| v * 4.0).collect();
    let pool = values(2, n_blocks * case.n_kv_heads * 2 * case.dim * case.block_tokens);
    (rounded::<T>(&qkv), rounded::<T>(&pool))
}

fn check<T: Element>(case: &Case, spans: &[(usize, usize)], shared: usize) {
    let Some(card) = card() else { return };
    let (batch, n_blocks) = batch(spans, shared, case.block_tokens);
    let (qkv, pool) = inputs::<T>(case, &batch, n_blocks);
    let got = run::<T>(&card, case, &batch, n_blocks, (&qkv, &pool));
    let want = plain(case, &batch, n_blocks, &qkv, &pool);
    let Case { dim, n_heads, n_kv_heads, block_tokens, window, wide, cascade } = case;
    let what = format!(
        "{} dim {dim}, {n_heads} over {n_kv_heads}, blocks {block_tokens}, window {window:?}, tiles {wide}, cascade {cascade}, {spans:?}",
        T::NAME
    );
    // weights are rounded to the type on their way to V
    for (row, (got, want)) in got.chunks(n_heads * dim).zip(want.chunks(n_heads * dim)).enumerate() {
        near(got, want, 2.0 * unit::<T>(), &format!("{what}: row {row}"));
    }
}

const PLAIN: Case =
    Case { dim: 128, n_heads: 5, n_kv_heads: 1, block_tokens: 16, window: None, wide: 128, cascade: true };

/// Every head size, in both types, with and without a window: prompts, a chunk, decoding rows and drafts.
fn check_dim<T: Element>(dim: usize) {
    let spans = [(0, 1), (0, 150), (15, 1), (300, 1), (40, 33), (530, 1), (64, 3), (63, 2), (255, 1)];
    for (n_heads, n_kv_heads, block_tokens, window, wide) in
        [(5, 1, 16, None, 128), (6, 2, 32, Some(100), 64), (2, 2, 16, Some(1), 128), (7, 1, 64, Some(17), 64)]
    {
        let case = Case { dim, n_heads, n_kv_heads, block_tokens, window, wide, ..PLAIN };
        check::<T>(&case, &spans, 0);
    }
}

#[test]
fn attention_of_heads_of_16() {
    check_dim::<bf16>(16);
    check_dim::<f16>(16);
}

#[test]
fn attention_of_heads_of_32() {
    check_dim::<bf16>(32);
    check_dim::<f16>(32);
}

#[test]
fn attention_of_heads_of_64() {
    check_dim::<bf16>(64);
    check_dim::<f16>(64);
}

#[test]
fn attention_of_heads_of_96() {
    check_dim::<bf16>(96);
    check_dim::<f16>(96);
}

#[test]
fn attention_of_heads_of_128() {
    check_dim::<bf16>(128);
    check_dim::<f16>(128);
}

#[test]
fn attention_of_heads_of_256() {
    check_dim::<bf16>(256);
    check_dim::<f16>(256);
}

/// Many heads to a KV head: a row alone fills several narrow tiles.
#[test]
fn attention_of_large_groups() {
    for (n_heads, n_kv_heads) in [(24, 1), (64, 1), (17, 1)] {
        let case = Case { dim: 64, n_heads, n_kv_heads, ..PLAIN };
        check::<bf16>(&case, &[(100, 1), (400, 1), (0, 20), (30, 2)], 0);
    }
}

/// Sequences that share their beginning, with and without the cascade, beside some that do not.
#[test]
fn attention_of_cascades() {
    let mut spans: Vec<(usize, usize)> = (0..23).map(|i| (400 + 13 * i, 1 + i % 3)).collect();
    spans.extend([(0, 70), (5, 1), (390, 40)]);
    for (dim, n_heads, n_kv_heads) in [(128, 10, 2), (64, 14, 2), (256, 4, 1)] {
        for (cascade, window) in [(true, None), (false, None), (true, Some(150)), (true, Some(900))] {
            for wide in [64, 128] {
                let case = Case { dim, n_heads, n_kv_heads, cascade, window, wide, ..PLAIN };
                check::<bf16>(&case, &spans, 384);
            }
        }
    }
}

/// Long ones: many parts of a decoding row, and parts of rows that are read in one go.
#[test]
fn attention_of_long_sequences() {
    let case = Case { dim: 64, n_heads: 2, ..PLAIN };
    check::<bf16>(&case, &[(9000, 1), (4090, 30), (5000, 2), (3000, 1)], 0);
    check::<f16>(&Case { window: Some(600), ..case }, &[(9000, 1), (4090, 30), (5000, 2), (3000, 1)], 0);
}

/// Without a cascade, a row's numbers are bitwise the same alone and in any batch, and at every run.
#[test]
fn attention_does_not_depend_on_the_batch() {
    let Some(card) = card() else { return };
    let spans = [(700, 1), (0, 130), (2500, 1), (64, 3), (300, 40)];
    let case = Case { cascade: false, ..PLAIN };
    let (all, n_blocks) = batch(&spans, 0, 16);
    let (qkv, pool) = inputs::<bf16>(&case, &all, n_blocks);
    let together = run::<bf16>(&card, &case, &all, n_blocks, (&qkv, &pool));
    assert_eq!(together, run::<bf16>(&card, &case, &all, n_blocks, (&qkv, &pool)), "the same again");
    let (stride, width) = ((case.n_heads + 2) * case.dim, case.n_heads * case.dim);
    for span in &all.spans {
        let (first, n) = (span.first_row as usize, span.n_tokens as usize);
        let alone = Batch {
            tokens: vec![0; n],
            spans: vec![Span { first_row: 0, first_block: 0, ..*span }],
            blocks: all.blocks_of(span).to_vec(),
            logit_rows: Vec::new(),
        };
        for wide in [64, 128] {
            let case = Case { wide, ..case };
            let own =
                run::<bf16>(&card, &case, &alone, n_blocks, (&qkv[first * stride..][..n * stride], &pool));
            assert_eq!(own, together[first * width..][..n * width], "{span:?}");
        }
    }
}
