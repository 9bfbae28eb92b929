//! Adapters on the card: A and B of each linear layer, and a table of them by slot that the kernels read.

use std::sync::Arc;

use crate::nn::Error;
use crate::nn::arch::ModelConfig;
use crate::nn::arch::names::Module;
use crate::nn::batch::Batch;
use crate::nn::cuda::Element;
use crate::nn::cuda::card::{Buffer, Card, View, ViewMut};
use crate::nn::cuda::lora::{Pair, Site, TILE, Tile};
use crate::nn::weights::adapter::{Adapter, Pair as Matrices};

/// The linear layers of a block, in the order of a step.
const SITES: [&[Module]; 4] =
    [&[Module::Q, Module::K, Module::V], &[Module::O], &[Module::Gate, Module::Up], &[Module::Down]];

/// Adapters at most; the tables are as long.
const MAX_ADAPTERS: usize = 64;

pub(super) struct Adapters<T> {
    slots: Vec<Option<OnCard<T>>>,
    /// `[layer][site][slot]`
    table: Vec<Pair>,
    on_card: Buffer<Pair>,
    /// `[rows, modules · rank]`
    low: Buffer<T>,
    /// Widest padded rank so far; `low` has room for it.
    rank: usize,
}

struct OnCard<T> {
    matrices: Vec<[Buffer<T>; 2]>,
}

impl<T: Element> Adapters<T> {
    pub fn new(card: &Card, config: &ModelConfig) -> Result<Self, Error> {
        let table = vec![Pair::default(); config.n_layers * SITES.len() * MAX_ADAPTERS];
        let on_card = card.upload(&table, "adapters")?;
        Ok(Self { slots: Vec::new(), table, on_card, low: card.zeroed(0, "activations")?, rank: 0 })
    }

    pub fn has(&self, slot: u32) -> bool {
        matches!(self.slots.get(slot as usize), Some(Some(_)))
    }

    pub fn bytes(&self) -> u64 {
        let of = |one: &OnCard<T>| one.matrices.iter().flatten().map(Buffer::bytes).sum::<u64>();
        self.slots.iter().flatten().map(of).sum::<u64>() + self.low.bytes() + self.on_card.bytes()
    }

    pub fn add(
        &mut self,
        card: &Card,
        config: &ModelConfig,
        adapter: &Arc<Adapter>,
        max_rows: usize,
    ) -> Result<u32, Error> {
        let refuse = |cause: String| Err(Error::Option { option: "adapter", cause });
        if adapter.n_layers() != config.n_layers {
            return refuse(format!("made for {} layers", adapter.n_layers()));
        }
        if !config.q_dim().is_multiple_of(32) || !config.kv_dim().is_multiple_of(32) {
            return refuse("heads of less than 32 values in all have no kernel".into());
        }
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if slot >= MAX_ADAPTERS {
            return refuse(format!("{MAX_ADAPTERS} are there already"));
        }
        let rank = adapter.rank().next_multiple_of(TILE);
        if rank > self.rank {
            self.low = card.zeroed(max_rows * 3 * rank, "activations")?;
            self.rank = rank;
        }
        let mut matrices = Vec::new();
        for layer in 0..config.n_layers {
            for (site, modules) in SITES.iter().enumerate() {
                if modules.iter().all(|module| adapter.pair(layer, *module).is_none()) {
                    continue;
                }
                let pairs: Vec<Option<&Matrices>> = modules.iter().map(|m| adapter.pair(layer, *m)).collect();
                let [a, b] =
                    stack::<T>(config, modules, &pairs, rank).map(|values| card.upload(&values, "adapters"));
                let (a, b) = (a?, b?);
                self.table[(layer * SITES.len() + site) * MAX_ADAPTERS + slot] = Pair::new(&a, &b, rank);
                matrices.push([a, b]);
            }
        }
        card.write(&self.table, &mut self.on_card)?;
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(OnCard { matrices });
        Ok(slot as u32)
    }

    /// The table on the card keeps its entries until the slot is used again: no row names it.
    pub fn remove(&mut self, slot: u32) {
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = None;
            for entry in self.table.iter_mut().skip(slot as usize).step_by(MAX_ADAPTERS) {
                *entry = Pair::default();
            }
        }
    }

    /// Changes whenever launches over rows with adapters do.
    pub fn layout(&self) -> u64 {
        self.low.all().address()
    }

    /// The pairs of a linear layer by slot, and room for what comes between A and B: one layer at a time uses it.
    pub fn of(&mut self, layer: usize, site: usize) -> (View<'_, Pair>, ViewMut<'_, T>) {
        let first = (layer * SITES.len() + site) * MAX_ADAPTERS;
        (self.on_card.part(first..first + MAX_ADAPTERS), self.low.all_mut())
    }

    pub fn site(&self, config: &ModelConfig, site: usize) -> Site {
        let widths: Vec<usize> = SITES[site].iter().map(|module| module.shape(config)[0]).collect();
        let first = |module: usize| widths.iter().take(module).sum::<usize>();
        Site {
            inputs: SITES[site][0].shape(config)[1],
            outputs: widths.iter().sum(),
            modules: [0, first(1), first(2)],
            n_modules: widths.len(),
            rank: self.rank,
        }
    }
}

/// A's of the modules one below the other, each padded to `rank` rows, and B's with rows padded to `rank` values.
fn stack<T: Element>(
    config: &ModelConfig,
    modules: &[Module],
    pairs: &[Option<&Matrices>],
    rank: usize,
) -> [Vec<T>; 2] {
    let inputs = modules[0].shape(config)[1];
    let outputs: usize = modules.iter().map(|module| module.shape(config)[0]).sum();
    let zero = T::from_f32(0.0);
    let (mut a, mut b) = (vec![zero; modules.len() * rank * inputs], vec![zero; outputs * rank]);
    let mut first = 0;
    for (i, (module, pair)) in modules.iter().zip(pairs).enumerate() {
        let n = module.shape(config)[0];
        if let Some(Matrices { a: own_a, b: own_b }) = pair {
            let mut row = vec![0f32; inputs];
            for r in 0..own_a.n() {
                own_a.unpack_row(r, &mut row);
                let to = &mut a[(i * rank + r) * inputs..][..inputs];
                to.iter_mut().zip(&row).for_each(|(to, v)| *to = T::from_f32(*v));
            }
            let mut row = vec![0f32; own_b.k()];
            for column in 0..n {
                own_b.unpack_row(column, &mut row);
                let to = &mut b[(first + column) * rank..][..row.len()];
                to.iter_mut().zip(&row).for_each(|(to, v)| *to = T::from_f32(*v));
            }
        }
        first += n;
    }
    [a, b]
}

/// All rows, sorted by their adapter, and their tiles; nothing if no row has one.
pub(super) fn plan(batch: &Batch, rows: &mut Vec<u32>, tiles: &mut Vec<Tile>) {
    rows.clear();
    tiles.clear();
    let slots = batch.spans.iter().filter_map(|span| span.adapter);
    let Some(last) = slots.max() else { return };
    for own in (0..=last).map(Some).chain([None]) {
        let slot = own.unwrap_or(u32::MAX);
        for span in batch.spans.iter().filter(|span| span.adapter == own) {
            for row in span.first_row..span.first_row + span.n_tokens {
                match tiles.last_mut() {
                    Some(tile) if tile.slot == slot && (tile.n as usize) < TILE => tile.n += 1,
                    _ => tiles.push(Tile { first: rows.len() as u32, n: 1, slot }),
                }
                rows.push(row);
            }
        }
    }
}
