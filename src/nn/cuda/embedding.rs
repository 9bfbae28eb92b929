//! Rows of a table by index.

use super::Element;
use super::card::{Card, Launch, View, ViewMut};
use crate::nn::Error;

/// `out[i] = scale · table[indices[i]]`; indices are below the table's rows.
pub fn gather<T: Element>(
    card: &Card,
    table: View<T>,
    indices: View<u32>,
    scale: f32,
    out: ViewMut<T>,
) -> Result<(), Error> {
    if indices.is_empty() {
        return Ok(());
    }
    let width = out.len() / indices.len();
    assert!(
        width.is_multiple_of(8) && out.len() == indices.len() * width && table.len().is_multiple_of(width)
    );
    let name = format!("gather_{}", T::NAME);
    let threads = (width / 8).next_multiple_of(32).clamp(32, 256);
    let launch =
        Launch { file: "embedding", name: &name, grid: [indices.len(), 1], threads, shared_bytes: 0 };
    // SAFETY: the sizes were checked; that indices lie in the table is the caller's contract, checked for tokens
    // with the batch.
    unsafe {
        card.launch(&launch, &[table.into(), indices.into(), (&out).into(), width.into(), scale.into()])
    }
}
