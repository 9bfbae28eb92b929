//! What adapters add to a linear layer, for rows of many adapters in one launch.

use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, ValidAsZeroBits};

use super::Element;
use super::card::{Buffer, Card, Launch, View, ViewMut};
use crate::nn::Error;

/// Rows of a tile, and the multiple to which ranks are padded.
pub const TILE: usize = 16;

/// Up to [`TILE`] rows of one adapter: neighbours in a list of rows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tile {
    pub first: u32,
    pub n: u32,
    pub slot: u32,
}

/// A and B of one adapter for one linear layer, as the kernel finds them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// `[modules · rank, inputs]`; 0: the adapter leaves the layer alone.
    a: u64,
    /// `[outputs, rank]`
    b: u64,
    rank: u32,
    unused: u32,
}

// SAFETY: plain words in the order of the kernel's struct; all zeros is an adapter that does nothing.
unsafe impl DeviceRepr for Tile {}
// SAFETY: as above.
unsafe impl ValidAsZeroBits for Tile {}
// SAFETY: as above.
unsafe impl DeviceRepr for Pair {}
// SAFETY: as above.
unsafe impl ValidAsZeroBits for Pair {}

impl Pair {
    /// `rank` is the modules' common one, padded with zeros to a multiple of 16. The buffers must outlive the pair.
    pub fn new<T>(a: &Buffer<T>, b: &Buffer<T>, rank: usize) -> Self {
        assert!(rank.is_multiple_of(TILE) && a.len().is_multiple_of(rank) && b.len().is_multiple_of(rank));
        Self { a: a.all().address(), b: b.all().address(), rank: rank as u32, unused: 0 }
    }
}

/// The linear layer that is changed.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    pub inputs: usize,
    pub outputs: usize,
    /// First columns of its modules; the first is 0. At most three, at multiples of 32.
    pub modules: [usize; 3],
    pub n_modules: usize,
    /// Widest padded rank of a module over the adapters.
    pub rank: usize,
}

/// Which rows use which adapter.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub tiles: View<'a, Tile>,
    /// How many of the tiles there are.
    pub n_tiles: View<'a, u32>,
    /// Rows, sorted by adapter.
    pub rows: View<'a, u32>,
}

/// `out += B·(A·x)`. `low` holds `[rows, modules · rank]`; `pairs` one entry per slot.
pub fn add<T: Element>(
    card: &Card,
    site: &Site,
    pairs: View<Pair>,
    rows: Rows,
    x: View<T>,
    low: &ViewMut<T>,
    out: &ViewMut<T>,
) -> Result<(), Error> {
    let stride = site.n_modules * site.rank;
    assert!(
        site.inputs.is_multiple_of(8) && site.outputs.is_multiple_of(8) && (1..=3).contains(&site.n_modules)
    );
    let begins = &site.modules[..site.n_modules];
    assert!(begins.iter().all(|first| first.is_multiple_of(32)) && site.rank.is_multiple_of(TILE));
    assert!(x.len() / site.inputs == out.len() / site.outputs && low.len() >= rows.rows.len() * stride);
    let name = format!("lora_shrink_{}", T::NAME);
    let grid = [rows.tiles.len(), stride / TILE];
    let launch = Launch { file: "lora", name: &name, grid, threads: 512, shared_bytes: 0 };
    let shared = [pairs.into(), rows.tiles.into(), rows.n_tiles.into(), rows.rows.into()];
    let [pairs, tiles, n_tiles, list] = shared;
    let args = [
        x.into(),
        low.into(),
        pairs,
        tiles,
        n_tiles,
        list,
        site.inputs.into(),
        site.n_modules.into(),
        stride.into(),
    ];
    // SAFETY: the sizes were checked; rows and slots are those of a checked batch.
    unsafe { card.launch(&launch, &args) }?;
    let name = format!("lora_expand_{}", T::NAME);
    let grid = [rows.tiles.len(), site.outputs.div_ceil(256)];
    let launch = Launch { file: "lora", name: &name, grid, threads: 256, shared_bytes: 0 };
    let first = |module: usize| if module < site.n_modules { site.modules[module] } else { usize::MAX >> 33 };
    let args = [
        low.into(),
        out.into(),
        pairs,
        tiles,
        n_tiles,
        list,
        site.outputs.into(),
        first(1).into(),
        first(2).into(),
        stride.into(),
    ];
    // SAFETY: as above; each row is in one tile.
    unsafe { card.launch(&launch, &args) }
}
