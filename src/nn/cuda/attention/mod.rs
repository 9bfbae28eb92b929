//! Causal attention over the paged pool: wide tiles (prefill, cascade), narrow ones (decode), and their parts put
//! together.

pub mod plan;

use super::Element;
use super::card::{Arg, Buffer, Card, Launch, View, ViewMut};
use super::rope::HEAD_DIMS;
use crate::nn::Error;
use crate::nn::cache::KvShape;
use plan::{NARROW, Tile};

/// Where the parts of cut rows wait to be put together.
pub struct Parts {
    out: Buffer<f32>,
    lse: Buffer<f32>,
    max_parts: usize,
}

impl Parts {
    pub fn new(card: &Card, max_parts: usize, n_heads: usize, head_dim: usize) -> Result<Self, Error> {
        let out = card.zeroed(max_parts * n_heads * head_dim, "attention parts")?;
        let lse = card.zeroed(max_parts * n_heads, "attention parts")?;
        Ok(Self { out, lse, max_parts })
    }

    pub fn max_parts(&self) -> usize {
        self.max_parts
    }

    pub fn bytes(&self) -> u64 {
        self.out.bytes() + self.lse.bytes()
    }
}

/// A plan on the card.
#[derive(Clone, Copy)]
pub struct Planned<'a> {
    pub wide: View<'a, Tile>,
    pub narrow: View<'a, Tile>,
    pub split: View<'a, u32>,
    pub split_counts: View<'a, u32>,
    /// How many wide tiles, narrow tiles and split rows there are: no more than the views hold.
    pub counts: View<'a, u32>,
    pub rows: View<'a, u32>,
    pub tables: View<'a, u32>,
    pub positions: View<'a, u32>,
    pub parts: View<'a, u32>,
    /// Queries of a wide tile: 64 or 128.
    pub wide_queries: usize,
}

/// `attended[rows, heads · head_dim]` of `qkv[rows, q|k|v]` over one layer of the pool. A row sees its last
/// `window` positions (`None`: all up to its own).
#[allow(clippy::too_many_arguments)]
pub fn attend<T: Element>(
    card: &Card,
    planned: &Planned,
    parts: &mut Parts,
    shape: &KvShape,
    n_heads: usize,
    (window, scale): (Option<usize>, f32),
    qkv: View<T>,
    pool: View<T>,
    attended: &ViewMut<T>,
) -> Result<(), Error> {
    let (dim, rows) = (shape.head_dim, planned.positions.len());
    assert!(HEAD_DIMS.contains(&dim), "the head size was checked at load");
    assert!(
        qkv.len() == rows * (n_heads + 2 * shape.n_kv_heads) * dim && attended.len() == rows * n_heads * dim
    );
    assert!(pool.len() == shape.layer(0).len() && planned.counts.len() == 3 && planned.parts.len() == rows);
    let window = window.map_or(u32::MAX, |window| window as u32);
    let args = |tiles: View<Tile>, count: usize| -> [Arg; 16] {
        [
            qkv.into(),
            pool.into(),
            attended.into(),
            tiles.into(),
            planned.counts.part(count..count + 1).into(),
            planned.rows.into(),
            planned.tables.into(),
            planned.positions.into(),
            planned.parts.into(),
            parts.out.all().into(),
            parts.lse.all().into(),
            n_heads.into(),
            shape.n_kv_heads.into(),
            shape.block_tokens.into(),
            window.into(),
            scale.into(),
        ]
    };
    let warps = planned.wide_queries / NARROW;
    assert!(warps == 4 || warps == 8, "wide tiles have 64 or 128 queries");
    let name = format!("attention_prefill_{dim}_{warps}_{}", T::NAME);
    let wide = Launch {
        file: "attention_prefill",
        name: &name,
        grid: [planned.wide.len(), shape.n_kv_heads],
        threads: 32 * warps,
        shared_bytes: wide_bytes(dim),
    };
    // SAFETY: the sizes were checked; tables, rows and positions are those of a checked batch.
    unsafe { card.launch(&wide, &args(planned.wide, 0)) }?;
    let name = format!("attention_decode_{dim}_{}", T::NAME);
    let narrow = Launch {
        file: "attention_decode",
        name: &name,
        grid: [planned.narrow.len(), shape.n_kv_heads],
        threads: 128,
        shared_bytes: narrow_bytes(dim),
    };
    // SAFETY: as above.
    unsafe { card.launch(&narrow, &args(planned.narrow, 1)) }?;
    let name = format!("attention_join_{}", T::NAME);
    let join = Launch {
        file: "attention_decode",
        name: &name,
        grid: [planned.split.len(), (n_heads * dim / 4).div_ceil(256)],
        threads: 256,
        shared_bytes: 0,
    };
    let args = [
        parts.out.all().into(),
        parts.lse.all().into(),
        planned.parts.into(),
        planned.split.into(),
        planned.split_counts.into(),
        planned.counts.part(2..3).into(),
        attended.into(),
        n_heads.into(),
        dim.into(),
    ];
    // SAFETY: the plan holds no more parts than `parts`.
    unsafe { card.launch(&join, &args) }
}

/// Two stages of keys and values, rows padded by 16 bytes.
fn wide_bytes(dim: usize) -> usize {
    let positions = if dim > 128 { 32 } else { 64 };
    2 * 2 * positions * (dim + 8) * 2
}

/// Stages of four warps, as the kernel has them; or their sums at the end, if that is more.
fn narrow_bytes(dim: usize) -> usize {
    let stages = match dim {
        0..=64 => 4,
        65..=128 => 3,
        _ => 2,
    };
    let sums = 3 * NARROW * (dim + 4 + 2) * 4;
    (4 * stages * 2 * NARROW * (dim + 8) * 2).max(sums)
}
