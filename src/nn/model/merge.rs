//! A copy of the base with one adapter merged in: `W + s·B·A`, for batches in which every row uses that adapter.
//!
//! The base stays as it is, so going back costs nothing. What an adapter leaves alone is not copied.

use std::sync::Arc;

use super::Model;
use crate::nn::Error;
use crate::nn::arch::names::Module;
use crate::nn::cpu::linear::{Linear, Part};
use crate::nn::weights::adapter::{Adapter, Pair};

/// The linear layers of a block, in the order in which a step uses them.
const SITES: [&[Module]; 4] =
    [&[Module::Q, Module::K, Module::V], &[Module::O], &[Module::Gate, Module::Up], &[Module::Down]];

/// Which of a block's linear layers.
#[derive(Clone, Copy)]
pub(super) enum SiteIndex {
    Qkv = 0,
    O = 1,
    GateUp = 2,
    Down = 3,
}

pub(super) struct Merged {
    slot: u32,
    /// Per layer and site; `None` where the adapter changes nothing.
    layers: Vec<[Option<Linear>; 4]>,
    /// Of the weights that were changed; what the adapter leaves alone is the base's own.
    bytes: u64,
}

impl Merged {
    pub fn slot(&self) -> u32 {
        self.slot
    }

    pub fn site(&self, layer: usize, site: SiteIndex) -> Option<&Linear> {
        self.layers[layer][site as usize].as_ref()
    }
}

impl Model {
    /// Merges the adapter of a slot, in place of one that was merged before. Takes about as long as reading
    /// the weights did.
    pub fn merge(&mut self, slot: u32) -> Result<(), Error> {
        self.merged = None;
        let Some(Some(adapter)) = self.adapters.get(slot as usize) else {
            return Err(Error::Option { option: "adapter", cause: format!("none in slot {slot}") });
        };
        let adapter = adapter.clone();
        let mut layers = Vec::with_capacity(self.layers.len());
        let mut bytes = 0;
        for index in 0..self.layers.len() {
            let layer = &self.layers[index];
            let mut sites: [Option<Linear>; 4] = Default::default();
            for ((merged, modules), linear) in
                sites.iter_mut().zip(SITES).zip([&layer.qkv, &layer.o, &layer.gate_up, &layer.down])
            {
                if modules.iter().any(|module| adapter.pair(index, *module).is_some()) {
                    let (linear, n) = merge_site(linear, modules, index, &adapter, &mut self.threads)?;
                    *merged = Some(linear);
                    bytes += n;
                }
            }
            layers.push(sites);
        }
        self.merged = Some(Merged { slot, layers, bytes });
        Ok(())
    }

    /// Gives the merged copy's memory back.
    pub fn unmerge(&mut self) {
        self.merged = None;
    }

    /// Slot of the adapter that is merged.
    pub fn merged_slot(&self) -> Option<u32> {
        self.merged.as_ref().map(Merged::slot)
    }

    /// Bytes of the merged copy.
    pub(super) fn merged_bytes(&self) -> u64 {
        self.merged.as_ref().map_or(0, |merged| merged.bytes)
    }
}

/// The layer with the adapter merged in, and the bytes that were allocated for it.
fn merge_site(
    linear: &Linear,
    modules: &[Module],
    layer: usize,
    adapter: &Adapter,
    threads: &mut crate::nn::cpu::threads::Threads,
) -> Result<(Linear, u64), Error> {
    let mut parts = Vec::with_capacity(linear.parts.len());
    let mut bytes = 0;
    for (part, module) in linear.parts.iter().zip(modules) {
        let weight = match adapter.pair(layer, *module) {
            None => part.weight.clone(),
            Some(pair) => {
                let a = rows_of(pair);
                let changed =
                    Arc::new(part.weight.changed(&|row, values| add_row(pair, &a, row, values), threads)?);
                bytes += changed.bytes();
                changed
            }
        };
        parts.push(Part { weight, bias: part.bias.clone(), column: part.column });
    }
    Ok((Linear { parts }, bytes))
}

/// A as rows of f32: `[rank, inputs]`.
fn rows_of(pair: &Pair) -> Vec<f32> {
    let k = pair.a.k();
    let mut rows = vec![0f32; pair.a.n() * k];
    rows.chunks_exact_mut(k).enumerate().for_each(|(row, values)| pair.a.unpack_row(row, values));
    rows
}

/// Adds row `row` of B·A.
fn add_row(pair: &Pair, a: &[f32], row: usize, values: &mut [f32]) {
    let mut b = vec![0f32; pair.b.k()];
    pair.b.unpack_row(row, &mut b);
    for (scale, a) in b.iter().zip(a.chunks_exact(values.len())) {
        values.iter_mut().zip(a).for_each(|(value, a)| *value += scale * a);
    }
}
