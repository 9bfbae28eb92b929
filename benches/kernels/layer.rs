//! All ops of a 14B layer one after the other, as a step has them: what 48 of them and the head would take.

use super::attention::Ready;
use super::lora::{self, SITES};
use super::{Bench, DIM, FFN, HEADS, HIDDEN, KV_HEADS, VOCAB};
use adit::nn::cuda::activation::silu_mul;
use adit::nn::cuda::gemm::{product, product_f32};
use adit::nn::cuda::norm::add_rms_norm;
use adit::nn::cuda::rope::{Args, Table, rotate_and_write};

pub fn run(bench: &Bench) {
    let card = &bench.card;
    let width = (HEADS + 2 * KV_HEADS) * DIM;
    let weights =
        [width * HIDDEN, HIDDEN * HEADS * DIM, 2 * FFN * HIDDEN, HIDDEN * FFN].map(|n| bench.random(n));
    let head = bench.random(VOCAB * HIDDEN);
    let norm = card.upload(&vec![1f32; HIDDEN], "bench").unwrap();
    let bias = card.upload(&vec![0.5f32; width], "bench").unwrap();
    let frequencies: Vec<f64> = (0..DIM / 2).map(|i| 1e6f64.powf(-2.0 * i as f64 / DIM as f64)).collect();
    let table = Table::new(card, &frequencies, 4096).unwrap();
    for (what, n, past, new, shared, cascade, adapters) in [
        ("W1 decode", 256, 575, 1, 384, false, false),
        ("W1 decode, cascade", 256, 575, 1, 384, true, false),
        ("W1 decode, cascade, adapters", 256, 575, 1, 384, true, true),
        ("W1 decode of 1024, cascade", 1024, 575, 1, 384, true, false),
        ("the same with adapters", 1024, 575, 1, 384, true, true),
        ("W1 prefill of 64 after the head", 64, 384, 128, 384, false, false),
        ("the same with adapters", 64, 384, 128, 384, false, true),
        ("W2 prefill of 4", 4, 0, 2048, 0, false, false),
        ("W3 decode", 256, 319, 1, 0, false, false),
        ("W4 decode", 1, 575, 1, 0, false, false),
    ] {
        let mut ready = Ready::new(bench, n, (past, new), shared, cascade, [HEADS, KV_HEADS, DIM], 128);
        let m = n * new;
        let mut h = bench.random(m * HIDDEN);
        let [mut normed, mut qkv, mut attended, mut gate_up, mut activated] =
            [HIDDEN, width, HEADS * DIM, 2 * FFN, FFN].map(|columns| bench.random(m * columns));
        let stretch = new;
        let mut loras: Vec<lora::Ready> = SITES
            .iter()
            .map(|(_, inputs, modules, outputs)| {
                lora::Ready::new(bench, (*inputs, modules, *outputs), m, stretch)
            })
            .collect();
        let scale = (norm.all(), 1e-6);
        let [w_qkv, w_o, w_gate_up, w_down] = &weights;
        let s = bench.seconds(4, |_| {
            add_rms_norm(card, None, h.all_mut(), scale, normed.all_mut())?;
            let mut lora = loras.iter_mut().filter(|_| adapters);
            lora::Ready::linear(lora.next(), card, (&normed, HIDDEN), w_qkv, &mut qkv, false)?;
            let args = Args {
                bias: Some(bias.all()),
                norms: None,
                eps: 1e-6,
                positions: ready.lists[5].all(),
                slots: ready.slots.all(),
                table: &table,
            };
            let pool = ready.pool.all_mut();
            rotate_and_write(card, &args, HEADS, &ready.shape, qkv.all_mut(), pool)?;
            ready.attend(card, &qkv, &mut attended)?;
            lora::Ready::linear(lora.next(), card, (&attended, HEADS * DIM), w_o, &mut h, true)?;
            add_rms_norm(card, None, h.all_mut(), scale, normed.all_mut())?;
            match lora.next() {
                Some(lora) => {
                    lora.gate(card, (&normed, w_gate_up, HIDDEN), &mut gate_up, &mut activated)?;
                }
                None => {
                    product(card, normed.all(), w_gate_up.all(), gate_up.all_mut(), HIDDEN, false)?;
                    silu_mul(card, gate_up.all(), activated.all_mut(), FFN)?;
                }
            }
            lora::Ready::linear(lora.next(), card, (&activated, FFN), w_down, &mut h, true)
        });
        let mut logits = card.zeroed::<f32>(n * VOCAB, "bench").unwrap();
        let s_head = bench.seconds(2, |_| {
            product_f32(card, normed.part(0..n * HIDDEN), head.all(), logits.all_mut(), HIDDEN)
        });
        let seen: usize = (past + 1..=past + new).sum::<usize>() * n;
        let parameters = weights.iter().map(|w| w.len()).sum::<usize>();
        let flops = 2.0 * (m * parameters) as f64 + (4 * seen * HEADS * DIM) as f64;
        let positions = if cascade { shared + n * (past + new - shared) } else { n * (past + new) };
        let bytes = 2 * parameters + positions * KV_HEADS * DIM * 4;
        bench.line(&format!("{what}: {n} × {new} after {past}"), s, bytes as f64, flops);
        println!("    48 layers and the head: {:.2} ms", 1e3 * (48.0 * s + s_head));
    }
}
