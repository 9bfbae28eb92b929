//! RMS norm against the CPU's portable kernel.

use adit::nn::cpu::isa::Isa;
use adit::nn::cuda::Element;
use adit::nn::cuda::norm::{Added, add_rms_norm, rms_norm_rows};
use half::{bf16, f16};

use super::{card, download, near, poisoned, rounded, unit, upload, values};

const EPS: f32 = 1e-6;

/// Rows through the CPU's kernel.
fn twin(x: &[f32], weight: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    for (x, out) in x.chunks(weight.len()).zip(out.chunks_mut(weight.len())) {
        // SAFETY: the portable set is on every machine; rows are multiples of 16.
        unsafe { adit::nn::cpu::norm::rms_norm(Isa::Portable, x, weight, EPS, out) }
    }
    out
}

fn check<T: Element>() {
    let Some(card) = card() else { return };
    for (rows, hidden) in [(1, 16), (3, 64), (33, 896), (7, 2048), (5, 5120), (2, 16_384)] {
        let (x, h) = (rounded::<T>(&values(1, rows * hidden)), rounded::<T>(&values(2, rows * hidden)));
        let (w, p) = (values(3, hidden), values(4, hidden));
        let (weight, post) = (card.upload(&w, "test").unwrap(), card.upload(&p, "test").unwrap());
        let added = upload::<T>(&card, &x);
        for (name, adds, goes_through) in
            [("plain", false, false), ("added", true, false), ("post", true, true)]
        {
            let mut stream = upload::<T>(&card, &h);
            let mut out = poisoned::<T>(&card, rows * hidden);
            let post = goes_through.then(|| post.all());
            let added = adds.then(|| Added { x: added.all(), post });
            add_rms_norm(&card, added, stream.all_mut(), (weight.all(), EPS), out.all_mut()).unwrap();
            let joined: Vec<f32> = match (adds, goes_through) {
                (false, _) => h.clone(),
                (true, false) => h.iter().zip(&x).map(|(h, x)| h + x).collect(),
                (true, true) => h.iter().zip(twin(&x, &p)).map(|(h, x)| h + x).collect(),
            };
            let what = format!("{} {name} {rows}×{hidden}", T::NAME);
            let seen = download(&card, &stream);
            near(&seen, &joined, 1.5 * unit::<T>(), &format!("{what}: the stream"));
            near(&download(&card, &out), &twin(&seen, &w), 1.5 * unit::<T>(), &what);
        }
        let picked: Vec<u32> = (0..rows as u32).rev().step_by(2).collect();
        let picks = card.upload(&picked, "test").unwrap();
        let mut stream = upload::<T>(&card, &h);
        let mut out = poisoned::<T>(&card, picked.len() * hidden);
        rms_norm_rows(&card, stream.all_mut(), (weight.all(), EPS), picks.all(), out.all_mut()).unwrap();
        let some: Vec<f32> =
            picked.iter().flat_map(|row| h[*row as usize * hidden..][..hidden].to_vec()).collect();
        near(
            &download(&card, &out),
            &twin(&some, &w),
            1.5 * unit::<T>(),
            &format!("rows of {rows}×{hidden}"),
        );
    }
}

#[test]
fn norm_agrees_in_bf16() {
    check::<bf16>();
}

#[test]
fn norm_agrees_in_f16() {
    check::<f16>();
}
