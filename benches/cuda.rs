//! The card's kernels beside what the card can do: a large copy and a large product, measured in the same run.
//!
//! `cargo bench --features cuda --bench cuda [-- SECTION…]` prints tables. GB/s counts each byte that an op must
//! move once; TFLOP/s counts two operations a multiply-add. Times are medians over replays of a recorded graph.
#![allow(clippy::unwrap_used)]

#[path = "kernels/attention.rs"]
mod attention;
#[path = "kernels/gemm.rs"]
mod gemm;
#[path = "kernels/layer.rs"]
mod layer;
#[path = "kernels/lora.rs"]
mod lora;
#[path = "kernels/rows.rs"]
mod rows;
#[path = "kernels/sample.rs"]
mod sample;

use adit::nn::Error;
use adit::nn::cuda::card::{Buffer, Card};
use adit::nn::cuda::gemm::product;
use adit::nn::cuda::graph::{Graph, time_ms};
use half::bf16;

/// Qwen2.5-14B.
pub const HIDDEN: usize = 5120;
pub const FFN: usize = 13_824;
pub const HEADS: usize = 40;
pub const KV_HEADS: usize = 8;
pub const DIM: usize = 128;
pub const VOCAB: usize = 152_064;

fn main() {
    if Card::count() == 0 {
        println!("no CUDA device: nothing was measured");
        return;
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let bench = Bench::new();
    for (name, section) in [
        ("rows", rows::run as fn(&Bench)),
        ("gemm", gemm::run),
        ("attention", attention::run),
        ("lora", lora::run),
        ("sample", sample::run),
        ("layer", layer::run),
    ] {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            println!("\n{name}");
            section(&bench);
        }
    }
}

/// The card and its ceilings.
pub struct Bench {
    pub card: Card,
    copy_gb_s: f64,
    product_tflop_s: f64,
}

impl Bench {
    fn new() -> Self {
        let card = Card::open(0).unwrap();
        let mut bench = Self { card, copy_gb_s: 1.0, product_tflop_s: 1.0 };
        let n = 1 << 30;
        let (from, mut to) = (bench.random(n), bench.card.zeroed::<bf16>(n, "bench").unwrap());
        let copy_s = bench.seconds(3, |_| bench.card.copy(from.all(), &to.all_mut()));
        bench.copy_gb_s = 4.0 * n as f64 / copy_s / 1e9;
        let (m, card) = (8192, &bench.card);
        let (x, w) = (bench.random(m * m), bench.random(m * m));
        let mut out = card.zeroed::<bf16>(m * m, "bench").unwrap();
        let s = bench.seconds(3, |_| product(card, x.all(), w.all(), out.all_mut(), m, false));
        bench.product_tflop_s = 2.0 * (m as f64).powi(3) / s / 1e12;
        let (free, total) = card.memory().unwrap();
        println!(
            "{}, {} multiprocessors, {:.1} of {:.1} GB free; copy {:.0} GB/s, product of {m}³ {:.0} TFLOP/s",
            card.name(),
            card.n_multiprocessors(),
            free as f64 / 1e9,
            total as f64 / 1e9,
            bench.copy_gb_s,
            bench.product_tflop_s
        );
        bench
    }

    /// Random values: products of zeros run faster than real ones.
    pub fn random(&self, n: usize) -> Buffer<bf16> {
        const PERIOD: usize = 1 << 20;
        let mut state = 0x9e37_79b9u32;
        let period: Vec<bf16> = (0..PERIOD)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                bf16::from_f32(state as f32 / u32::MAX as f32 * 2.0 - 1.0)
            })
            .collect();
        let period = self.card.upload(&period, "bench").unwrap();
        let mut all = self.card.zeroed::<bf16>(n, "bench").unwrap();
        for first in (0..n).step_by(PERIOD) {
            let end = n.min(first + PERIOD);
            self.card.copy(period.part(0..end - first), &all.part_mut(first..end)).unwrap();
        }
        all
    }

    /// Seconds of one call: `n` calls are recorded, each with its number, and replayed.
    pub fn seconds(&self, n: usize, mut call: impl FnMut(usize) -> Result<(), Error>) -> f64 {
        let card = &self.card;
        // the first launch of a kernel loads it, which cannot be recorded
        call(0).unwrap();
        card.wait().unwrap();
        let mut all = || (0..n).try_for_each(&mut call);
        let mut times: Vec<f64> = match Graph::record(card, &mut all) {
            Ok(graph) => {
                graph.replay().unwrap();
                (0..7).map(|_| f64::from(time_ms(card, || graph.replay()).unwrap())).collect()
            }
            Err(error) => {
                println!("(not recorded: {error})");
                (0..7).map(|_| f64::from(time_ms(card, &mut all).unwrap())).collect()
            }
        };
        times.sort_by(f64::total_cmp);
        times[times.len() / 2] / 1e3 / n as f64
    }

    /// A line: what, time, and the better of the two shares of the ceilings.
    pub fn line(&self, what: &str, seconds: f64, bytes: f64, flops: f64) {
        let (gb_s, tflop_s) = (bytes / seconds / 1e9, flops / seconds / 1e12);
        println!(
            "{what:<58} {:>9.1} µs {gb_s:>7.0} GB/s {:>4.0} % {tflop_s:>6.1} TFLOP/s {:>4.0} %",
            seconds * 1e6,
            100.0 * gb_s / self.copy_gb_s,
            100.0 * tflop_s / self.product_tflop_s
        );
    }
}
