//! A recorded step gives what its launches give, with new inputs in the same buffers.

use adit::nn::cuda::activation::silu_mul;
use adit::nn::cuda::gemm::product;
use adit::nn::cuda::graph::{Graph, time_ms};
use half::bf16;

use super::{card, download, poisoned, upload, values};

#[test]
fn a_replay_computes_with_what_the_buffers_hold_then() {
    let Some(card) = card() else { return };
    let (m, ffn, k) = (9, 64, 32);
    let weight = upload::<bf16>(&card, &values(1, 2 * ffn * k));
    let mut x = upload::<bf16>(&card, &values(2, m * k));
    let mut both = poisoned::<bf16>(&card, m * 2 * ffn);
    let mut out = poisoned::<bf16>(&card, m * ffn);
    // the first launch of a kernel loads it, which cannot be recorded
    let mut step = |x: &adit::nn::cuda::card::Buffer<bf16>| {
        product(&card, x.all(), weight.all(), both.all_mut(), k, false)?;
        silu_mul(&card, both.all(), out.all_mut(), ffn)
    };
    step(&x).unwrap();
    let graph = Graph::record(&card, || step(&x)).unwrap();
    let other: Vec<bf16> = values(3, m * k).into_iter().map(bf16::from_f32).collect();
    card.write(&other, &mut x).unwrap();
    let ms = time_ms(&card, || graph.replay()).unwrap();
    let replayed = download(&card, &out);
    let mut again = poisoned::<bf16>(&card, m * ffn);
    product(&card, x.all(), weight.all(), both.all_mut(), k, false).unwrap();
    silu_mul(&card, both.all(), again.all_mut(), ffn).unwrap();
    assert_eq!(replayed, download(&card, &again));
    assert!(replayed.iter().all(|v| v.is_finite()) && ms >= 0.0);
}
