//! Biases, head norms and rotary positions of q and k, and new keys and values into the pool, in one pass.

use super::Element;
use super::card::{Buffer, Card, Launch, View, ViewMut};
use crate::nn::Error;
use crate::nn::cache::KvShape;

/// Head sizes that the kernels of rope and attention were made for.
pub const HEAD_DIMS: [usize; 6] = [16, 32, 64, 96, 128, 256];

/// Cosines and sines of every position: `[positions, head_dim/2]` each.
pub struct Table {
    cos: Buffer<f32>,
    sin: Buffer<f32>,
}

impl Table {
    /// `inverse_frequencies[i]` is the angle per position of pair `i`.
    pub fn new(card: &Card, inverse_frequencies: &[f64], positions: usize) -> Result<Self, Error> {
        let angle = |position: usize, frequency: f64| f64::from(position as f32 * frequency as f32);
        let values = |of: fn(f64) -> f64| -> Vec<f32> {
            (0..positions)
                .flat_map(|p| inverse_frequencies.iter().map(move |f| of(angle(p, *f)) as f32))
                .collect()
        };
        let cos = card.upload(&values(f64::cos), "rope tables")?;
        let sin = card.upload(&values(f64::sin), "rope tables")?;
        Ok(Self { cos, sin })
    }

    pub fn bytes(&self) -> u64 {
        self.cos.bytes() + self.sin.bytes()
    }
}

/// What turns and where it goes.
pub struct Args<'a> {
    /// `[q|k|v]`
    pub bias: Option<View<'a, f32>>,
    /// Norms of the heads of q and of k, and their epsilon: `[head_dim]`.
    pub norms: Option<(View<'a, f32>, View<'a, f32>)>,
    pub eps: f32,
    /// Per row; inside the table.
    pub positions: View<'a, u32>,
    /// Per row: block · block_tokens + place in the block, inside the pool and no two alike; or `u32::MAX`: nowhere.
    pub slots: View<'a, u32>,
    pub table: &'a Table,
}

/// Turns q in place and writes k and v: `qkv` is `[rows, q|k|v]`, `pool` one layer of a pool of this shape.
pub fn rotate_and_write<T: Element>(
    card: &Card,
    args: &Args,
    n_heads: usize,
    shape: &KvShape,
    qkv: ViewMut<T>,
    pool: ViewMut<T>,
) -> Result<(), Error> {
    let (dim, rows) = (shape.head_dim, args.positions.len());
    let width = (n_heads + 2 * shape.n_kv_heads) * dim;
    assert!(HEAD_DIMS.contains(&dim), "the head size was checked at load");
    assert!(qkv.len() == rows * width && args.slots.len() == rows);
    assert!(pool.len() == shape.layer(0).len());
    assert!(args.bias.is_none_or(|bias| bias.len() == width));
    assert!(args.norms.is_none_or(|(q, k)| q.len() == dim && k.len() == dim));
    let (q_norm, k_norm) = args.norms.unwrap_or((View::NULL, View::NULL));
    let name = format!("rope_{dim}_{}", T::NAME);
    let launch = Launch { file: "rope", name: &name, grid: [rows, 1], threads: 256, shared_bytes: 0 };
    let args = [
        (&qkv).into(),
        (&pool).into(),
        args.bias.unwrap_or(View::NULL).into(),
        q_norm.into(),
        k_norm.into(),
        args.positions.into(),
        args.slots.into(),
        args.table.cos.all().into(),
        args.table.sin.all().into(),
        n_heads.into(),
        shape.n_kv_heads.into(),
        shape.block_tokens.into(),
        args.eps.into(),
    ];
    // SAFETY: the sizes were checked; positions and slots are those of a checked batch.
    unsafe { card.launch(&launch, &args) }
}
