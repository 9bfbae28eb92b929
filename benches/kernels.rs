//! The numeric kernels alone: matrix products by format and rows, attention, and what is done to single rows.
//!
//! `cargo bench --bench kernels [-- THREADS]` prints tables; each row has the best instruction set of this machine
//! and the portable twin that the tests compare it with. GFLOP/s counts two operations per weight and row; GB/s
//! counts the weights (or keys and values) once per call: what a decoding step reads.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use adit::nn::cache::KvShape;
use adit::nn::cpu::activation::{gelu_mul, silu_mul};
use adit::nn::cpu::attention::{self, Args, Segment};
use adit::nn::cpu::buffer::Shared;
use adit::nn::cpu::isa::Isa;
use adit::nn::cpu::kv_write::{Place, write_f16};
use adit::nn::cpu::linear::{self, Linear, Part, QuantisedRows, Rows};
use adit::nn::cpu::norm::{add_rms_norm, rms_norm};
use adit::nn::cpu::packed::Packed;
use adit::nn::cpu::quant::quantise_row;
use adit::nn::cpu::rope::rotate;
use adit::nn::cpu::threads::Threads;
use adit::nn::weights::dtype::DType;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

/// Columns and depth of the matrix: larger than a core's caches in every format.
const N: usize = 8192;
const K: usize = 2048;
/// Each figure is the fastest call within this time, at least three.
const TIME: Duration = Duration::from_millis(250);

fn main() {
    let threads = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(0);
    let mut threads = Threads::new(threads).unwrap();
    let best = Isa::detect();
    println!("{} threads, {best:?} beside {:?}", threads.count(), Isa::Portable);
    products(best, &mut threads);
    attention(best);
    rows(best);
}

/// Values in -1..1 from a counter.
fn values(seed: u32, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..n).map(next).collect()
}

fn fastest(mut call: impl FnMut()) -> f64 {
    let (begun, mut fastest, mut calls) = (Instant::now(), f64::MAX, 0);
    while calls < 3 || begun.elapsed() < TIME {
        let started = Instant::now();
        call();
        fastest = fastest.min(started.elapsed().as_secs_f64());
        calls += 1;
    }
    fastest
}

fn products(best: Isa, threads: &mut Threads) {
    println!("\nproduct of [rows, {K}] with [{N}, {K}]ᵀ, rows quantised within the time");
    println!(
        "{:>8} {:>6} {:>12} {:>10} {:>14} {:>8}",
        "format", "rows", "GFLOP/s", "GB/s", "twin GFLOP/s", "factor"
    );
    let weights = values(1, N * K);
    for (name, weight) in formats(&weights, threads) {
        let linear = Linear { parts: vec![Part { weight: weight.into(), bias: None, column: 0 }] };
        for m in [1, 4, 16, 64, 256] {
            let flops = 2.0 * (m * N * K) as f64;
            let time = product_s(&linear, m, best, threads);
            let twin = product_s(&linear, m, Isa::Portable, threads);
            println!(
                "{name:>8} {m:>6} {:>12.1} {:>10.2} {:>14.1} {:>8.1}",
                flops / time / 1e9,
                linear.bytes() as f64 / time / 1e9,
                flops / twin / 1e9,
                twin / time
            );
        }
    }
}

fn formats(weights: &[f32], threads: &mut Threads) -> Vec<(String, Packed)> {
    let half = |to: fn(f32) -> [u8; 2]| weights.iter().flat_map(|v| to(*v)).collect::<Vec<u8>>();
    let floats = [
        (DType::F32, weights.iter().flat_map(|v| v.to_le_bytes()).collect()),
        (DType::F16, half(|v| half::f16::from_f32(v).to_le_bytes())),
        (DType::Bf16, half(|v| half::bf16::from_f32(v).to_le_bytes())),
    ];
    let mut all = Vec::new();
    for (dtype, raw) in floats {
        all.push((format!("{dtype:?}"), Packed::pack(dtype, &raw, N, K, &|row| row, threads).unwrap()));
    }
    let tensor = Tensor::from_slice(weights, (N, K), &Device::Cpu).unwrap();
    for ggml in [GgmlDType::Q4_0, GgmlDType::Q4_1, GgmlDType::Q8_0, GgmlDType::Q4K, GgmlDType::Q6K] {
        let raw = QTensor::quantize(&tensor, ggml).unwrap();
        let raw = raw.data().unwrap();
        let packed = Packed::pack(DType::Quantised(ggml), &raw, N, K, &|row| row, threads).unwrap();
        all.push((format!("{ggml:?}"), packed));
    }
    all
}

/// Seconds of the fastest call.
fn product_s(weight: &Linear, m: usize, isa: Isa, threads: &mut Threads) -> f64 {
    let x = values(2, m * K);
    let mut quantised = QuantisedRows::new(m, K).unwrap();
    let mut out = vec![0.0; m * N];
    fastest(|| {
        if weight.wants_quantised() {
            quantised.fill(&x, m, K, isa, threads);
        }
        let rows = Rows { x: &x, quantised: Some(&quantised), m };
        linear::forward(weight, &rows, &mut out, N, false, isa, threads);
        std::hint::black_box(&mut out);
    })
}

/// One tile on one thread, as a task of a step is: one row of a sequence, some rows of one, or one row each of some
/// sequences that share all but the last 128 positions.
fn attention(best: Isa) {
    const GROUP: usize = 3;
    const DIM: usize = 64;
    const BLOCK: usize = 16;
    const ROWS: usize = attention::TILE / GROUP;
    println!("\nattention of one tile over halves, one thread: {GROUP} heads of {DIM} over one KV head");
    println!(
        "{:>8} {:>20} {:>12} {:>10} {:>14} {:>8}",
        "tokens", "rows", "GFLOP/s", "GB/s", "twin GFLOP/s", "factor"
    );
    for length in [128, 512, 2048, 8192] {
        for (name, n_segments, rows) in [("1", 1, 1), ("a sequence's 8", 1, ROWS), ("8 that share", ROWS, 1)]
        {
            let n_queries = n_segments * rows * GROUP;
            let n_blocks = (length + rows).div_ceil(BLOCK);
            let shared = if n_segments > 1 { length - 128 } else { 0 };
            let n_own = n_blocks - shared / BLOCK;
            let n_all = shared / BLOCK + n_segments * n_own;
            let queries = values(3, n_queries * DIM);
            let pool: Vec<half::f16> =
                values(4, n_all * 2 * BLOCK * DIM).into_iter().map(half::f16::from_f32).collect();
            let table = |segment: usize| {
                let own = shared / BLOCK + segment * n_own;
                (0..shared / BLOCK).chain(own..own + n_own).map(|block| block as u32)
            };
            let tables: Vec<u32> = (0..n_segments).flat_map(table).collect();
            let segment = |i| Segment { rows, first_length: length, first_block: i * n_blocks };
            let segments: Vec<Segment> = (0..n_segments).map(segment).collect();
            let args = Args {
                queries: &queries,
                group: GROUP,
                segments: &segments,
                tables: &tables,
                shared,
                window: usize::MAX,
                head_dim: DIM,
                block_tokens: BLOCK,
                pool: &pool,
                block_stride: 2 * BLOCK * DIM,
            };
            let stride = (length + rows).next_multiple_of(16);
            let (mut scores, mut out) = (vec![0.0; n_queries * stride], vec![0.0; n_queries * DIM]);
            let mut time_of = |isa| {
                fastest(|| {
                    // SAFETY: the set was detected, or is the portable one; the kernel asserts its extents.
                    unsafe { attention::attend_f16(isa, &args, &mut scores, stride, &mut out) }
                    std::hint::black_box(&mut out);
                })
            };
            let (time, twin) = (time_of(best), time_of(Isa::Portable));
            let flops = (4 * n_queries * length * DIM) as f64;
            println!(
                "{length:>8} {name:>20} {:>12.1} {:>10.2} {:>14.1} {:>8.1}",
                flops / time / 1e9,
                (n_all * 2 * BLOCK * DIM * 2) as f64 / time / 1e9,
                flops / twin / 1e9,
                twin / time
            );
        }
    }
}

/// What a step does to single rows.
fn rows(best: Isa) {
    println!("\nrows of {K}, one thread");
    println!("{:>14} {:>10} {:>10} {:>8}", "", "GB/s", "twin GB/s", "factor");
    let (x, w) = (values(5, K), values(6, K));
    let f32s = |n: usize| (n * K * 4 * CALLS) as f64;
    // SAFETY of the calls below: the set was detected, or is the portable one; lengths are equal multiples of 16.
    both("rms_norm", f32s(3), best, |isa, out| unsafe { rms_norm(isa, &x, &w, 1e-5, out) });
    both("add_rms_norm", f32s(4), best, |isa, out| unsafe { add_rms_norm(isa, &x, &w, 1e-5, out) });
    both("silu_mul", f32s(3), best, |isa, out| unsafe { silu_mul(isa, &x, &w, out) });
    both("gelu_mul", f32s(3), best, |isa, out| unsafe { gelu_mul(isa, &x, &w, out) });
    let (cos, sin) = (values(7, 32), values(8, 32));
    both("rope", f32s(2), best, |isa, out| unsafe { rotate(isa, out, &cos, &sin) });
    let (mut bytes, mut scales, mut sums, mut weighted) =
        (vec![0i8; K], vec![0f32; K / 32], vec![0i32; K / 16], vec![0f32; K / 32]);
    both("quantise", f32s(1) * 1.25, best, |isa, _| unsafe {
        quantise_row(isa, &x, &mut bytes, &mut scales, &mut sums, &mut weighted);
    });
    let shape = KvShape { n_layers: 1, n_blocks: 4, n_kv_heads: K / 64, head_dim: 64, block_tokens: 16 };
    let mut pool = vec![half::f16::ZERO; shape.layer(0).end];
    let pool = Shared::new(&mut pool);
    let mut slot = 0;
    both("kv_write", f32s(2) * 1.5, best, |isa, _| unsafe {
        slot = (slot + 1) % 16;
        write_f16(isa, &pool, &shape, Place { layer: 0, block: 2, slot }, &x, &w);
    });
}

/// Calls of a timed round.
const CALLS: usize = 64;

/// Times an operation on one set and its twin; `bytes` are those of a round.
fn both(name: &str, bytes: f64, best: Isa, mut call: impl FnMut(Isa, &mut [f32])) {
    let mut out = vec![0.5; K];
    let mut time_of = |isa| fastest(|| (0..CALLS).for_each(|_| call(isa, std::hint::black_box(&mut out))));
    let (time, twin) = (time_of(best), time_of(Isa::Portable));
    println!("{name:>14} {:>10.2} {:>10.2} {:>8.1}", bytes / time / 1e9, bytes / twin / 1e9, twin / time);
}
