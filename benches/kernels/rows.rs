//! What is done to single rows: norm, activation, rope and KV write, embeddings.

use adit::nn::cache::KvShape;
use adit::nn::cuda::activation::silu_mul;
use adit::nn::cuda::embedding::gather;
use adit::nn::cuda::norm::{Added, add_rms_norm, rms_norm_rows};
use adit::nn::cuda::rope::{Args, Table, rotate_and_write};

use super::{Bench, DIM, FFN, HEADS, HIDDEN, KV_HEADS, VOCAB};

pub fn run(bench: &Bench) {
    let card = &bench.card;
    let weight = card.upload(&vec![1f32; HIDDEN], "bench").unwrap();
    for rows in [16_384, 2048, 256, 1] {
        // several sets where one would stay in the cache
        let n = rows * HIDDEN;
        let sets = (1usize << 27).div_ceil(n).clamp(1, 8);
        let x = bench.random(sets * n);
        let (mut h, mut out) = (bench.random(sets * n), bench.random(sets * n));
        let norm = (weight.all(), 1e-6);
        let s = bench.seconds(8, |i| {
            let at = i % sets * n..(i % sets + 1) * n;
            let added = Some(Added { x: x.part(at.clone()), post: None });
            add_rms_norm(card, added, h.part_mut(at.clone()), norm, out.part_mut(at))
        });
        bench.line(&format!("residual + RMS norm, {rows}×{HIDDEN}"), s, (4 * 2 * n) as f64, 0.0);
        let s = bench.seconds(8, |i| {
            let at = i % sets * n..(i % sets + 1) * n;
            add_rms_norm(card, None, h.part_mut(at.clone()), norm, out.part_mut(at))
        });
        bench.line(&format!("RMS norm, {rows}×{HIDDEN}"), s, (2 * 2 * n) as f64, 0.0);
    }
    let mut h = bench.random(4096 * HIDDEN);
    let mut picked = bench.random(256 * HIDDEN);
    let list: Vec<u32> = (0..256).map(|i| i * 16 + 15).collect();
    let list = card.upload(&list, "bench").unwrap();
    let s = bench
        .seconds(8, |_| rms_norm_rows(card, h.all_mut(), (weight.all(), 1e-6), list.all(), picked.all_mut()));
    bench.line("RMS norm of 256 rows of 4096 (logits gather)", s, (4 * 256 * HIDDEN) as f64, 0.0);
    drop((h, picked));

    for rows in [8192, 256, 1] {
        let gate_up = bench.random(rows * 2 * FFN);
        let mut out = bench.random(rows * FFN);
        let s = bench.seconds(8, |_| silu_mul(card, gate_up.all(), out.all_mut(), FFN));
        bench.line(&format!("SiLU·mul, {rows}×{FFN}"), s, (3 * 2 * rows * FFN) as f64, 0.0);
    }
    let table = bench.random(VOCAB * HIDDEN);
    for rows in [8192, 256] {
        let tokens: Vec<u32> = (0..rows as u32).map(|i| i * 7919 % VOCAB as u32).collect();
        let tokens = card.upload(&tokens, "bench").unwrap();
        let mut out = bench.random(rows * HIDDEN);
        let s = bench.seconds(8, |_| gather(card, table.all(), tokens.all(), 1.0, out.all_mut()));
        bench.line(&format!("embedding gather, {rows}×{HIDDEN}"), s, (2 * 2 * rows * HIDDEN) as f64, 0.0);
    }
    let frequencies: Vec<f64> = (0..DIM / 2).map(|i| 1e6f64.powf(-2.0 * i as f64 / DIM as f64)).collect();
    let turns = Table::new(card, &frequencies, 4096).unwrap();
    for rows in [16_384usize, 256, 1] {
        let shape = KvShape {
            n_layers: 1,
            n_blocks: rows.div_ceil(16),
            n_kv_heads: KV_HEADS,
            head_dim: DIM,
            block_tokens: 16,
        };
        let width = (HEADS + 2 * KV_HEADS) * DIM;
        let (mut qkv, mut pool) = (bench.random(rows * width), bench.random(shape.layer(0).len()));
        let bias = card.upload(&vec![0.5f32; width], "bench").unwrap();
        let positions: Vec<u32> = (0..rows as u32).map(|row| row % 2048).collect();
        let slots: Vec<u32> = (0..rows as u32).collect();
        let (positions, slots) =
            (card.upload(&positions, "bench").unwrap(), card.upload(&slots, "bench").unwrap());
        let args = Args {
            bias: Some(bias.all()),
            norms: None,
            eps: 1e-6,
            positions: positions.all(),
            slots: slots.all(),
            table: &turns,
        };
        let s =
            bench.seconds(8, |_| rotate_and_write(card, &args, HEADS, &shape, qkv.all_mut(), pool.all_mut()));
        bench.line(
            &format!("bias + rope + KV write, {rows} rows, 40/8 heads of 128"),
            s,
            (4 * rows * width) as f64,
            0.0,
        );
    }
}
