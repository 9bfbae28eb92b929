//! Products of the shapes of a 14B layer, by cuBLAS: what the kernels stand beside.

use adit::nn::cuda::gemm::{product, product_f32};

use super::{Bench, DIM, FFN, HEADS, HIDDEN, KV_HEADS, VOCAB};

pub fn run(bench: &Bench) {
    let card = &bench.card;
    let shapes = [
        ("q|k|v", (HEADS + 2 * KV_HEADS) * DIM, HIDDEN),
        ("o, accumulated", HIDDEN, HEADS * DIM),
        ("gate|up", 2 * FFN, HIDDEN),
        ("down, accumulated", HIDDEN, FFN),
    ];
    for (name, n, k) in shapes {
        let weight = bench.random(n * k);
        for m in [1, 8, 32, 128, 256, 512, 2048, 8192] {
            let (x, mut out) = (bench.random(m * k), bench.random(m * n));
            let accumulate = name.ends_with("accumulated");
            let s = bench.seconds(4, |_| product(card, x.all(), weight.all(), out.all_mut(), k, accumulate));
            let bytes = 2 * (m * k + n * k + m * n * if accumulate { 2 } else { 1 });
            bench.line(&format!("{name}: {m}×{n}×{k}"), s, bytes as f64, 2.0 * (m * n * k) as f64);
        }
    }
    let head = bench.random(VOCAB * HIDDEN);
    for m in [1, 32, 256] {
        let (x, mut out) = (bench.random(m * HIDDEN), card.zeroed::<f32>(m * VOCAB, "bench").unwrap());
        let s = bench.seconds(4, |_| product_f32(card, x.all(), head.all(), out.all_mut(), HIDDEN));
        let bytes = 2 * (m * HIDDEN + VOCAB * HIDDEN) + 4 * m * VOCAB;
        bench.line(
            &format!("head in f32: {m}×{VOCAB}×{HIDDEN}"),
            s,
            bytes as f64,
            2.0 * (m * VOCAB * HIDDEN) as f64,
        );
    }
}
