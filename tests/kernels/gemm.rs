//! The products as they are called, against plain sums: which side is transposed, what is accumulated.

use adit::nn::cuda::Element;
use adit::nn::cuda::gemm::{product, product_f32};
use half::{bf16, f16};

use super::{card, download, near, rounded, unit, upload, values};

fn check<T: Element>() {
    let Some(card) = card() else { return };
    for (m, n, k) in [(1, 16, 16), (7, 48, 32), (33, 200, 896), (130, 64, 520)] {
        let (x, w) = (rounded::<T>(&values(1, m * k)), rounded::<T>(&values(2, n * k)));
        let start = rounded::<T>(&values(3, m * n));
        let plain: Vec<f32> = (0..m * n)
            .map(|i| {
                let (row, column) = (i / n, i % n);
                (0..k).map(|j| f64::from(x[row * k + j]) * f64::from(w[column * k + j])).sum::<f64>() as f32
            })
            .collect();
        let (on_card, weight) = (upload::<T>(&card, &x), upload::<T>(&card, &w));
        let what = format!("{} {m}×{n}×{k}", T::NAME);
        for accumulate in [false, true] {
            let mut out = upload::<T>(&card, &start);
            product(&card, on_card.all(), weight.all(), out.all_mut(), k, accumulate).unwrap();
            let want: Vec<f32> =
                plain.iter().zip(&start).map(|(p, s)| if accumulate { p + s } else { *p }).collect();
            near(
                &download(&card, &out),
                &want,
                1.5 * unit::<T>(),
                &format!("{what}, accumulate {accumulate}"),
            );
        }
        let mut out = card.zeroed::<f32>(m * n, "test").unwrap();
        product_f32(&card, on_card.all(), weight.all(), out.all_mut(), k).unwrap();
        near(&card.read(&out, m * n).unwrap(), &plain, 1e-5, &format!("{what} in f32"));
    }
}

#[test]
fn products_agree_in_bf16() {
    check::<bf16>();
}

#[test]
fn products_agree_in_f16() {
    check::<f16>();
}
