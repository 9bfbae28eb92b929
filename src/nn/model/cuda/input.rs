//! What a step has to know of its batch, laid out as words that go up in one copy.

use std::ops::Range;

use super::adapters;
use crate::nn::Error;
use crate::nn::batch::Batch;
use crate::nn::cuda::attention::Planned;
use crate::nn::cuda::attention::plan::{Plan, Sizes, Tile};
use crate::nn::cuda::card::{Buffer, Card, View};
use crate::nn::cuda::lora;

/// The sections, in their order.
#[derive(Clone, Copy)]
pub(super) enum Section {
    Counts,
    Tokens,
    Positions,
    Slots,
    Parts,
    Rows,
    Split,
    SplitCounts,
    LogitRows,
    LoraRows,
    Wide,
    Narrow,
    LoraTiles,
    Tables,
}

const SECTIONS: usize = 14;
/// Sections begin on boundaries of as many words.
const ALIGN: usize = 4;

pub(super) struct Input {
    plan: Plan,
    lora_rows: Vec<u32>,
    lora_tiles: Vec<lora::Tile>,
    words: Vec<u32>,
    ranges: [Range<usize>; SECTIONS],
    on_card: Buffer<u32>,
    wide_queries: usize,
}

impl Input {
    pub fn new(card: &Card) -> Result<Self, Error> {
        Ok(Self {
            plan: Plan::default(),
            lora_rows: Vec::new(),
            lora_tiles: Vec::new(),
            words: Vec::new(),
            ranges: std::array::from_fn(|_| 0..0),
            on_card: card.zeroed(1 << 16, "step inputs")?,
            wide_queries: 128,
        })
    }

    pub fn bytes(&self) -> u64 {
        self.on_card.bytes()
    }

    /// Plans a batch and brings everything onto the card.
    pub fn fill(&mut self, card: &Card, batch: &Batch, sizes: &Sizes) -> Result<(), Error> {
        self.plan.fill(batch, sizes);
        self.wide_queries = sizes.wide;
        adapters::plan(batch, &mut self.lora_rows, &mut self.lora_tiles);
        let Self { plan, words, ranges, lora_rows, lora_tiles, .. } = self;
        let counts =
            [plan.wide.len(), plan.narrow.len(), plan.split.len(), lora_tiles.len()].map(|n| n as u32);
        words.clear();
        let tile = |t: &Tile| [t.first_query, t.n_queries, t.first_block, t.begin, t.end, t.part];
        let (wide, narrow): (Vec<u32>, Vec<u32>) =
            (plan.wide.iter().flat_map(tile).collect(), plan.narrow.iter().flat_map(tile).collect());
        let lora: Vec<u32> = lora_tiles.iter().flat_map(|t| [t.first, t.n, t.slot]).collect();
        let sections: [&[u32]; SECTIONS] = [
            &counts,
            &batch.tokens,
            &plan.positions,
            &plan.slots,
            &plan.parts,
            &plan.rows,
            &plan.split,
            &plan.split_counts,
            &batch.logit_rows,
            lora_rows,
            &wide,
            &narrow,
            &lora,
            &batch.blocks,
        ];
        for (range, section) in ranges.iter_mut().zip(sections) {
            *range = words.len()..words.len() + section.len();
            words.extend_from_slice(section);
            words.resize(words.len().next_multiple_of(ALIGN), 0);
        }
        if self.on_card.len() < words.len() {
            self.on_card = card.zeroed(words.len().next_power_of_two(), "step inputs")?;
        }
        card.write(words, &mut self.on_card)
    }

    pub fn section(&self, section: Section) -> View<'_, u32> {
        self.on_card.part(self.ranges[section as usize].clone())
    }

    pub fn planned(&self) -> Planned<'_> {
        Planned {
            wide: self.section(Section::Wide).of(),
            narrow: self.section(Section::Narrow).of(),
            split: self.section(Section::Split),
            split_counts: self.section(Section::SplitCounts),
            counts: self.section(Section::Counts).part(0..3),
            rows: self.section(Section::Rows),
            tables: self.section(Section::Tables),
            positions: self.section(Section::Positions),
            parts: self.section(Section::Parts),
            wide_queries: self.wide_queries,
        }
    }

    /// Rows that use adapters; none: no row does.
    pub fn lora(&self) -> Option<lora::Rows<'_>> {
        (!self.lora_tiles.is_empty()).then(|| lora::Rows {
            tiles: self.section(Section::LoraTiles).of(),
            n_tiles: self.section(Section::Counts).part(3..4),
            rows: self.section(Section::LoraRows),
        })
    }
}
