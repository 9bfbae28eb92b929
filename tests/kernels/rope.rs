//! Bias, head norms, rotation and the way into the pool against the CPU's portable kernels.

use adit::nn::cache::KvShape;
use adit::nn::cpu::isa::Isa;
use adit::nn::cpu::{norm, rope as cpu};
use adit::nn::cuda::Element;
use adit::nn::cuda::rope::{Args, HEAD_DIMS, Table, rotate_and_write};
use half::{bf16, f16};

use super::{card, download, near, poisoned, rounded, unit, upload, values};

const EPS: f32 = 1e-6;

struct Case {
    dim: usize,
    n_heads: usize,
    n_kv_heads: usize,
    block_tokens: usize,
    biased: bool,
    normed: bool,
}

fn check_one<T: Element>(case: &Case) {
    let Some(card) = card() else { return };
    let Case { dim, n_heads, n_kv_heads, block_tokens, .. } = *case;
    let (rows, n_blocks) = (37, 9);
    let (q_dim, kv_dim) = (n_heads * dim, n_kv_heads * dim);
    let width = q_dim + 2 * kv_dim;
    let shape = KvShape { n_layers: 1, n_blocks, n_kv_heads, head_dim: dim, block_tokens };
    let x = rounded::<T>(&values(1, rows * width));
    let (bias, q_norm, k_norm) = (values(2, width), values(3, dim), values(4, dim));
    let positions: Vec<u32> = (0..rows as u32).map(|row| row * 131 % 3000).collect();
    let slots: Vec<u32> = (0..rows as u32).map(|row| row * 5 % (n_blocks * 16) as u32 + 1).collect();
    let frequencies: Vec<f64> = (0..dim / 2).map(|i| 1e6f64.powf(-2.0 * i as f64 / dim as f64)).collect();
    let table = Table::new(&card, &frequencies, 3000).unwrap();
    let [on_bias, on_q, on_k] = [&bias, &q_norm, &k_norm].map(|v| card.upload(v, "test").unwrap());
    let [on_positions, on_slots] = [&positions, &slots].map(|v| card.upload(v, "test").unwrap());
    let args = Args {
        bias: case.biased.then(|| on_bias.all()),
        norms: case.normed.then(|| (on_q.all(), on_k.all())),
        eps: EPS,
        positions: on_positions.all(),
        slots: on_slots.all(),
        table: &table,
    };
    let mut qkv = upload::<T>(&card, &x);
    let mut pool = poisoned::<T>(&card, shape.layer(0).len());
    rotate_and_write(&card, &args, n_heads, &shape, qkv.all_mut(), pool.all_mut()).unwrap();
    let (seen, mut stored) = (download(&card, &qkv), download(&card, &pool));

    let twin_table = cpu::Table::new(&frequencies, 3000).unwrap();
    let what = format!(
        "{} dim {dim}, {n_heads} over {n_kv_heads}, blocks of {block_tokens}, bias {}, norms {}",
        T::NAME,
        case.biased,
        case.normed
    );
    for row in 0..rows {
        let mut own: Vec<f32> = x[row * width..][..width].to_vec();
        if case.biased {
            own.iter_mut().zip(&bias).for_each(|(v, b)| *v += b);
        }
        let (cos, sin) = twin_table.at(positions[row] as usize);
        for (head, values) in own[..q_dim + kv_dim].chunks_mut(dim).enumerate() {
            // SAFETY: the portable set is on every machine; heads are multiples of 16.
            unsafe {
                if case.normed {
                    let weight = if head < n_heads { &q_norm } else { &k_norm };
                    norm::rms_norm(Isa::Portable, &values.to_vec(), weight, EPS, values);
                }
                cpu::rotate(Isa::Portable, values, cos, sin);
            }
        }
        near(
            &seen[row * width..][..q_dim],
            &own[..q_dim],
            1.5 * unit::<T>(),
            &format!("{what}: q of row {row}"),
        );
        let (block, place) = (slots[row] as usize / block_tokens, slots[row] as usize % block_tokens);
        for head in 0..n_kv_heads {
            let keys = shape.offset(0, block, head) + place * dim;
            for (side, at) in [("k", keys), ("v", keys + shape.half())] {
                let column = q_dim + head * dim + if side == "v" { kv_dim } else { 0 };
                let want = &own[column..column + dim];
                near(&stored[at..at + dim], want, 1.5 * unit::<T>(), &format!("{what}: {side} of row {row}"));
                stored[at..at + dim].fill(f32::NAN);
            }
        }
    }
    assert!(stored.iter().all(|v| v.is_nan()), "{what}: and nothing else is written");
}

fn check<T: Element>() {
    for dim in HEAD_DIMS {
        for (n_heads, n_kv_heads, block_tokens, biased, normed) in [
            (4, 2, 16, true, false),
            (7, 1, 32, false, true),
            (40, 8, 16, true, true),
            (3, 3, 16, false, false),
        ] {
            check_one::<T>(&Case { dim, n_heads, n_kv_heads, block_tokens, biased, normed });
        }
    }
}

#[test]
fn rope_agrees_in_bf16() {
    check::<bf16>();
}

#[test]
fn rope_agrees_in_f16() {
    check::<f16>();
}
