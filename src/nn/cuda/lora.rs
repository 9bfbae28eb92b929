//! What adapters add to a linear layer, for rows of many adapters in one launch.

use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, ValidAsZeroBits};

use super::Element;
use super::card::{Arg, Buffer, Card, Launch, View, ViewMut};
use crate::nn::Error;

/// Rows of a tile, and the multiple to which ranks are padded.
pub const TILE: usize = 16;

/// Up to [`TILE`] rows of one adapter: neighbours in a list of rows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tile {
    pub first: u32,
    pub n: u32,
    /// Or `u32::MAX`: rows without an adapter.
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

/// Matrices by slot, and the rows that use them.
#[derive(Clone, Copy)]
pub struct Tables<'a> {
    pub pairs: View<'a, Pair>,
    pub rows: Rows<'a>,
}

/// `out += B·(A·x)`. `low` holds `[rows, modules · rank]`; `pairs` one entry per slot.
pub fn add<T: Element>(
    card: &Card,
    site: &Site,
    tables: &Tables,
    x: View<T>,
    low: &ViewMut<T>,
    out: &ViewMut<T>,
) -> Result<(), Error> {
    begin(card, site, tables, x, low)?;
    finish(card, site, tables, low, out)
}

/// `low = A·x`, beside what is launched up to [`finish`] or [`finish_gate`], which must follow; none of that writes `x`.
pub fn begin<T: Element>(
    card: &Card,
    site: &Site,
    tables: &Tables,
    x: View<T>,
    low: &ViewMut<T>,
) -> Result<(), Error> {
    let stride = check(site, tables, low);
    assert!(x.len().is_multiple_of(site.inputs));
    let name = format!("lora_shrink_{}", T::NAME);
    let grid = [tables.rows.tiles.len(), stride / TILE];
    let launch = Launch { file: "lora", name: &name, grid, threads: 512, shared_bytes: 0 };
    let [pairs, tiles, n_tiles, rows] = tables.args();
    let (inputs, modules) = (site.inputs.into(), site.n_modules.into());
    let args = [x.into(), low.into(), pairs, tiles, n_tiles, rows, inputs, modules, stride.into()];
    card.fork()?;
    // SAFETY: the sizes were checked; rows and slots are those of a checked batch; `low` is used again after the join
    // alone.
    unsafe { card.launch_beside(&launch, &args) }
}

/// `out += B·low`, once what was begun has ended.
pub fn finish<T: Element>(
    card: &Card,
    site: &Site,
    tables: &Tables,
    low: &ViewMut<T>,
    out: &ViewMut<T>,
) -> Result<(), Error> {
    card.join()?;
    let stride = check(site, tables, low);
    assert!(site.outputs.is_multiple_of(8) && out.len().is_multiple_of(site.outputs));
    let name = format!("lora_expand_{}", T::NAME);
    let grid = [tables.rows.tiles.len(), site.outputs.div_ceil(256)];
    let launch = Launch { file: "lora", name: &name, grid, threads: 256, shared_bytes: 0 };
    let first = |module: usize| if module < site.n_modules { site.modules[module] } else { usize::MAX >> 33 };
    let [pairs, tiles, n_tiles, rows] = tables.args();
    let (outputs, second, third) = (site.outputs.into(), first(1).into(), first(2).into());
    let args = [low.into(), out.into(), pairs, tiles, n_tiles, rows, outputs, second, third, stride.into()];
    // SAFETY: as above; each row is in one tile.
    unsafe { card.launch(&launch, &args) }
}

/// The gate of a feed-forward block over `gate_up + B·low`, which is not written: `activated = gate · up`. Every row is
/// in a tile.
pub fn finish_gate<T: Element>(
    card: &Card,
    site: &Site,
    tables: &Tables,
    low: &ViewMut<T>,
    gate_up: View<T>,
    (activated, is_gelu): (&ViewMut<T>, bool),
) -> Result<(), Error> {
    card.join()?;
    let stride = check(site, tables, low);
    let ffn = site.outputs / 2;
    assert!(site.n_modules == 2 && site.modules[1] == ffn && ffn.is_multiple_of(8));
    assert!(gate_up.len() == 2 * activated.len() && activated.len() == tables.rows.rows.len() * ffn);
    let name = format!("lora_{}_{}", if is_gelu { "gelu" } else { "silu" }, T::NAME);
    let grid = [tables.rows.tiles.len(), ffn.div_ceil(256)];
    let launch = Launch { file: "lora", name: &name, grid, threads: 256, shared_bytes: 0 };
    let [pairs, tiles, n_tiles, rows] = tables.args();
    let to = activated.into();
    let args = [low.into(), gate_up.into(), to, pairs, tiles, n_tiles, rows, ffn.into(), stride.into()];
    // SAFETY: as above.
    unsafe { card.launch(&launch, &args) }
}

impl Tables<'_> {
    fn args(&self) -> [Arg; 4] {
        [self.pairs.into(), self.rows.tiles.into(), self.rows.n_tiles.into(), self.rows.rows.into()]
    }
}

/// Values of a row of `low`.
fn check<T>(site: &Site, tables: &Tables, low: &ViewMut<T>) -> usize {
    let stride = site.n_modules * site.rank;
    assert!(site.inputs.is_multiple_of(8) && (1..=3).contains(&site.n_modules));
    let begins = &site.modules[..site.n_modules];
    assert!(begins.iter().all(|first| first.is_multiple_of(32)) && site.rank.is_multiple_of(TILE));
    assert!(low.len() >= tables.rows.rows.len() * stride);
    stride
}
