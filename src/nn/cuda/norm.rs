//! RMS norm, with what joins the residual stream before it.

use super::Element;
use super::card::{Card, Launch, View, ViewMut};
use crate::nn::Error;

/// Longest row.
pub const MAX_HIDDEN: usize = 16_384;

/// What is added to the residual stream before the norm.
#[derive(Clone, Copy)]
pub struct Added<'a, T> {
    /// `[rows, hidden]`
    pub x: View<'a, T>,
    /// Norm that it goes through first: `[hidden]`.
    pub post: Option<View<'a, f32>>,
}

/// `h += x` where there is `added`, then `out = h / sqrt(mean(h²) + eps) · weight`; both `[rows, hidden]`.
pub fn add_rms_norm<T: Element>(
    card: &Card,
    added: Option<Added<T>>,
    h: ViewMut<T>,
    (weight, eps): (View<f32>, f32),
    out: ViewMut<T>,
) -> Result<(), Error> {
    let rows = out.len() / weight.len();
    assert!(h.len() == out.len(), "as many rows out as in");
    norm(card, added, h, (weight, eps), View::NULL, out, rows)
}

/// The same of some rows, without an addition: `out[i] = norm(h[rows[i]])`; rows are below those of `h`.
pub fn rms_norm_rows<T: Element>(
    card: &Card,
    h: ViewMut<T>,
    weight: (View<f32>, f32),
    rows: View<u32>,
    out: ViewMut<T>,
) -> Result<(), Error> {
    norm(card, None, h, weight, rows, out, rows.len())
}

/// `h += x / sqrt(mean(x²) + eps) · weight`; without a norm, products add by themselves.
pub fn add_normed<T: Element>(
    card: &Card,
    x: View<T>,
    (weight, eps): (View<f32>, f32),
    h: ViewMut<T>,
) -> Result<(), Error> {
    let hidden = weight.len();
    assert!(hidden > 0 && hidden.is_multiple_of(8) && hidden <= MAX_HIDDEN, "rows of whole vectors");
    assert!(x.len() == h.len() && h.len().is_multiple_of(hidden));
    let n_rows = h.len() / hidden;
    let name = format!("norm_{}", T::NAME);
    let launch = Launch { file: "norm", name: &name, grid: [n_rows, 1], threads: 256, shared_bytes: 0 };
    let args = [
        x.into(),
        weight.into(),
        (&h).into(),
        View::<f32>::NULL.into(),
        View::<u32>::NULL.into(),
        View::<T>::NULL.into(),
        hidden.into(),
        eps.into(),
    ];
    // SAFETY: the sizes were checked; each block touches its own row.
    unsafe { card.launch(&launch, &args) }
}

fn norm<T: Element>(
    card: &Card,
    added: Option<Added<T>>,
    h: ViewMut<T>,
    (weight, eps): (View<f32>, f32),
    rows: View<u32>,
    out: ViewMut<T>,
    n_rows: usize,
) -> Result<(), Error> {
    let hidden = weight.len();
    assert!(hidden > 0 && hidden.is_multiple_of(8) && hidden <= MAX_HIDDEN, "rows of whole vectors");
    assert!(out.len() == n_rows * hidden && h.len().is_multiple_of(hidden));
    let (x, post) = match added {
        Some(Added { x, post }) => {
            assert!(x.len() == h.len() && post.is_none_or(|post| post.len() == hidden));
            (x, post.unwrap_or(View::NULL))
        }
        None => (View::NULL, View::NULL),
    };
    let name = format!("norm_{}", T::NAME);
    let launch = Launch { file: "norm", name: &name, grid: [n_rows, 1], threads: 256, shared_bytes: 0 };
    let args = [
        x.into(),
        post.into(),
        (&h).into(),
        weight.into(),
        rows.into(),
        (&out).into(),
        hidden.into(),
        eps.into(),
    ];
    // SAFETY: the sizes were checked; each block touches its own row.
    unsafe { card.launch(&launch, &args) }
}
