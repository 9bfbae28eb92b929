//! Kernels of the card against their CPU twins or plain sums, on odd shapes; and the model on the card against the
//! model on the CPU.
//!
//! `cargo test --features cuda --test cuda`. Without a card every test says so and passes.
#![allow(clippy::unwrap_used)]

#[path = "kernels/activation.rs"]
mod activation;
#[path = "kernels/attention.rs"]
mod attention;
#[path = "kernels/embedding.rs"]
mod embedding;
#[path = "kernels/gemm.rs"]
mod gemm;
#[path = "kernels/graph.rs"]
mod graph;
#[path = "kernels/lora.rs"]
mod lora;
#[path = "nn/card.rs"]
mod model;
#[path = "kernels/norm.rs"]
mod norm;
#[path = "kernels/rope.rs"]
mod rope;
#[path = "kernels/sample.rs"]
mod sample;

use adit::nn::cuda::Element;
use adit::nn::cuda::card::{Buffer, Card};

/// The first card, or a notice.
fn card() -> Option<Card> {
    if Card::count() == 0 {
        println!("no CUDA device: nothing was tested");
        return None;
    }
    Some(Card::open(0).unwrap())
}

/// Values in -1..1 from a counter.
fn values(seed: u32, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 * 2.0 - 1.0
        })
        .collect()
}

/// As the type holds them.
fn rounded<T: Element>(values: &[f32]) -> Vec<f32> {
    values.iter().map(|v| T::from_f32(*v).to_f32()).collect()
}

fn upload<T: Element>(card: &Card, values: &[f32]) -> Buffer<T> {
    let values: Vec<T> = values.iter().map(|v| T::from_f32(*v)).collect();
    card.upload(&values, "test").unwrap()
}

/// Memory full of NaN, so that what a kernel does not write shows.
fn poisoned<T: Element>(card: &Card, n: usize) -> Buffer<T> {
    upload(card, &vec![f32::NAN; n])
}

fn download<T: Element>(card: &Card, buffer: &Buffer<T>) -> Vec<f32> {
    card.read(buffer, buffer.len()).unwrap().into_iter().map(T::to_f32).collect()
}

/// Rounding of a type: half a unit in the last place of a value just above a power of two.
fn unit<T: Element>() -> f32 {
    match T::NAME {
        "bf16" => 1.0 / 256.0,
        _ => 1.0 / 2048.0,
    }
}

/// Elements differ by at most `tolerance` of the largest, and all together by a third of it.
fn near(a: &[f32], b: &[f32], tolerance: f32, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    let scale = b.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
    let (mut off, mut all) = (0f64, 0f64);
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!(
            (a - b).abs() <= tolerance * scale,
            "{what}: element {i} is {a}, its twin {b}, the largest {scale}"
        );
        off += f64::from(a - b).powi(2);
        all += f64::from(*b).powi(2);
    }
    let relative = (off / all.max(1e-30)).sqrt();
    assert!(relative <= f64::from(tolerance), "{what}: off by {relative} altogether");
}
