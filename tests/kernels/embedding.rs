//! Rows of a table.

use adit::nn::cuda::Element;
use adit::nn::cuda::embedding::gather;
use half::{bf16, f16};

use super::{card, download, near, poisoned, rounded, unit, upload, values};

fn check<T: Element>() {
    let Some(card) = card() else { return };
    for (n, width) in [(3, 16), (1000, 64), (97, 5120)] {
        let table = rounded::<T>(&values(1, n * width));
        let on_card = upload::<T>(&card, &table);
        let tokens: Vec<u32> = (0..45).map(|i| (i * 7919 % n) as u32).collect();
        let indices = card.upload(&tokens, "test").unwrap();
        for scale in [1.0, 71.5] {
            let mut out = poisoned::<T>(&card, tokens.len() * width);
            gather(&card, on_card.all(), indices.all(), scale, out.all_mut()).unwrap();
            let rows = tokens.iter().flat_map(|t| table[*t as usize * width..][..width].iter());
            let want: Vec<f32> = rows.map(|v| v * scale).collect();
            let tolerance = if scale == 1.0 { 0.0 } else { unit::<T>() };
            near(&download(&card, &out), &want, tolerance, &format!("{} {n}×{width} by {scale}", T::NAME));
        }
    }
}

#[test]
fn gather_agrees_in_bf16() {
    check::<bf16>();
}

#[test]
fn gather_agrees_in_f16() {
    check::<f16>();
}
