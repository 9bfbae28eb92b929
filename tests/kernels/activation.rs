//! Gated activations against the CPU's portable kernels.

use adit::nn::cpu::activation as cpu;
use adit::nn::cpu::isa::Isa;
use adit::nn::cuda::Element;
use adit::nn::cuda::activation::{gelu_mul, silu_mul};
use half::{bf16, f16};

use super::{card, download, near, poisoned, rounded, unit, upload, values};

fn check<T: Element>() {
    let Some(card) = card() else { return };
    for (rows, ffn) in [(1, 16), (3, 144), (70_000, 16), (130, 4864), (5, 13_824)] {
        // up to ±40: far beyond where e^-x is lost beside 1; and one value where e^-x overflows
        let mut both: Vec<f32> = values(1, rows * 2 * ffn).iter().map(|v| v * 40.0).collect();
        both[0] = -120.0;
        let both = rounded::<T>(&both);
        let gate_up = upload::<T>(&card, &both);
        for gelu in [false, true] {
            let mut out = poisoned::<T>(&card, rows * ffn);
            let run = if gelu { gelu_mul::<T> } else { silu_mul::<T> };
            run(&card, gate_up.all(), out.all_mut(), ffn).unwrap();
            let mut want = vec![0.0; rows * ffn];
            for (both, want) in both.chunks(2 * ffn).zip(want.chunks_mut(ffn)) {
                let (gate, up) = both.split_at(ffn);
                // SAFETY: the portable set is on every machine; rows are multiples of 16.
                unsafe {
                    match gelu {
                        true => cpu::gelu_mul(Isa::Portable, gate, up, want),
                        false => cpu::silu_mul(Isa::Portable, gate, up, want),
                    }
                }
            }
            let what = format!("{} {rows}×{ffn} gelu {gelu}", T::NAME);
            near(&download(&card, &out), &want, 1.5 * unit::<T>(), &what);
        }
    }
}

#[test]
fn activation_agrees_in_bf16() {
    check::<bf16>();
}

#[test]
fn activation_agrees_in_f16() {
    check::<f16>();
}
