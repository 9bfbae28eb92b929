//! Three adapters of rank 16 over one layer, mixed in a batch.

use adit::nn::Error;
use adit::nn::cuda::card::{Buffer, Card};
use adit::nn::cuda::gemm::product;
use adit::nn::cuda::lora::{Pair, Rows, Site, TILE, Tables, Tile, add, begin, finish, finish_gate};
use half::bf16;

use super::{Bench, DIM, FFN, HEADS, HIDDEN, KV_HEADS};

pub const ADAPTERS: usize = 3;
pub const RANK: usize = 16;

/// The linear layers of a block: inputs, first columns of the modules, outputs.
pub const SITES: [(&str, usize, &[usize], usize); 4] = [
    ("q|k|v", HIDDEN, &[0, HEADS * DIM, (HEADS + KV_HEADS) * DIM], (HEADS + 2 * KV_HEADS) * DIM),
    ("o", HEADS * DIM, &[0], HIDDEN),
    ("gate|up", HIDDEN, &[0, FFN], 2 * FFN),
    ("down", FFN, &[0], HIDDEN),
];

/// Adapters of one linear layer, and which rows use them.
pub struct Ready {
    pub site: Site,
    _kept: Vec<Buffer<bf16>>,
    pairs: Buffer<Pair>,
    tiles: Buffer<Tile>,
    n_tiles: Buffer<u32>,
    rows: Buffer<u32>,
    low: Buffer<bf16>,
}

impl Ready {
    /// Rows take turns by `stretch` rows: as decoding rows do, or as prompts.
    pub fn new(
        bench: &Bench,
        (inputs, modules, outputs): (usize, &[usize], usize),
        rows: usize,
        stretch: usize,
    ) -> Self {
        let card = &bench.card;
        let (mut kept, mut pairs) = (Vec::new(), Vec::new());
        for _ in 0..ADAPTERS {
            let (a, b) = (bench.random(modules.len() * RANK * inputs), bench.random(outputs * RANK));
            pairs.push(Pair::new(&a, &b, RANK));
            kept.extend([a, b]);
        }
        let slot_of = |row: u32| row / stretch as u32 % ADAPTERS as u32;
        let mut list: Vec<u32> = (0..rows as u32).collect();
        list.sort_by_key(|row| slot_of(*row));
        let mut tiles: Vec<Tile> = Vec::new();
        for (at, row) in list.iter().enumerate() {
            match tiles.last_mut() {
                Some(tile) if tile.slot == slot_of(*row) && (tile.n as usize) < TILE => tile.n += 1,
                _ => tiles.push(Tile { first: at as u32, n: 1, slot: slot_of(*row) }),
            }
        }
        let first = |module: usize| modules.get(module).copied().unwrap_or(0);
        let site =
            Site { inputs, outputs, modules: [0, first(1), first(2)], n_modules: modules.len(), rank: RANK };
        Self {
            site,
            _kept: kept,
            pairs: card.upload(&pairs, "bench").unwrap(),
            n_tiles: card.upload(&[tiles.len() as u32], "bench").unwrap(),
            tiles: card.upload(&tiles, "bench").unwrap(),
            rows: card.upload(&list, "bench").unwrap(),
            low: card.zeroed(rows * modules.len() * RANK, "bench").unwrap(),
        }
    }

    /// A product with what the adapters add to it; `None`: the product alone.
    pub fn linear(
        ready: Option<&mut Self>,
        card: &Card,
        (x, k): (&Buffer<bf16>, usize),
        weight: &Buffer<bf16>,
        out: &mut Buffer<bf16>,
        accumulate: bool,
    ) -> Result<(), Error> {
        let Some(ready) = ready else {
            return product(card, x.all(), weight.all(), out.all_mut(), k, accumulate);
        };
        let rows = Rows { tiles: ready.tiles.all(), n_tiles: ready.n_tiles.all(), rows: ready.rows.all() };
        let tables = Tables { pairs: ready.pairs.all(), rows };
        let low = ready.low.all_mut();
        begin(card, &ready.site, &tables, x.all(), &low)?;
        product(card, x.all(), weight.all(), out.all_mut(), k, accumulate)?;
        finish(card, &ready.site, &tables, &low, &out.all_mut())
    }

    pub fn add(&mut self, card: &Card, x: &Buffer<bf16>, out: &mut Buffer<bf16>) -> Result<(), Error> {
        let rows = Rows { tiles: self.tiles.all(), n_tiles: self.n_tiles.all(), rows: self.rows.all() };
        let tables = Tables { pairs: self.pairs.all(), rows };
        add(card, &self.site, &tables, x.all(), &self.low.all_mut(), &out.all_mut())
    }

    /// The product of gate|up and the gate over what the adapters add to it.
    pub fn gate(
        &mut self,
        card: &Card,
        (x, weight, k): (&Buffer<bf16>, &Buffer<bf16>, usize),
        gate_up: &mut Buffer<bf16>,
        activated: &mut Buffer<bf16>,
    ) -> Result<(), Error> {
        let rows = Rows { tiles: self.tiles.all(), n_tiles: self.n_tiles.all(), rows: self.rows.all() };
        let tables = Tables { pairs: self.pairs.all(), rows };
        let low = self.low.all_mut();
        begin(card, &self.site, &tables, x.all(), &low)?;
        product(card, x.all(), weight.all(), gate_up.all_mut(), k, false)?;
        finish_gate(card, &self.site, &tables, &low, gate_up.all(), (&activated.all_mut(), false))
    }
}

pub fn run(bench: &Bench) {
    for (rows, stretch) in [(1, 1), (32, 1), (256, 1), (1024, 1), (8192, 512)] {
        for (name, inputs, modules, outputs) in SITES {
            let mut ready = Ready::new(bench, (inputs, modules, outputs), rows, stretch);
            let (x, mut out) = (bench.random(rows * inputs), bench.random(rows * outputs));
            let s = bench.seconds(8, |_| ready.add(&bench.card, &x, &mut out));
            let weights = ADAPTERS.min(rows) * RANK * (modules.len() * inputs + outputs);
            let bytes = 2 * (weights + rows * inputs + 2 * rows * outputs);
            let flops = 2 * rows * RANK * (modules.len() * inputs + outputs);
            bench.line(
                &format!("shrink + expand of {name}, {rows} rows, {ADAPTERS} adapters"),
                s,
                bytes as f64,
                flops as f64,
            );
        }
    }
}
