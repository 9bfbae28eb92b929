//! What a step has to know of its batch, laid out as words that go up in one copy.

use std::ops::Range;

use super::adapters;
use crate::nn::Error;
use crate::nn::batch::Batch;
use crate::nn::cuda::attention::Planned;
use crate::nn::cuda::attention::plan::{NONE, Plan, Sizes, Tile};
use crate::nn::cuda::card::{Buffer, Card, Pinned, View};
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
/// Words of an entry of a section, and what fills it up to a rounded length: rows that are there for the sake of the
/// round number write no key and have no tile.
const ENTRIES: [(usize, u32); SECTIONS] = {
    let mut entries = [(1, 0); SECTIONS];
    entries[Section::Slots as usize].1 = NONE;
    entries[Section::Parts as usize].1 = NONE;
    entries[Section::Wide as usize].0 = 6;
    entries[Section::Narrow as usize].0 = 6;
    entries[Section::LoraTiles as usize].0 = 3;
    entries
};
/// Sections begin on boundaries of as many words.
const ALIGN: usize = 4;

pub(super) struct Input {
    plan: Plan,
    lora_rows: Vec<u32>,
    lora_tiles: Vec<lora::Tile>,
    words: Vec<u32>,
    /// The words on their way up.
    pinned: Pinned<u32>,
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
            pinned: card.pinned(1 << 16)?,
            ranges: std::array::from_fn(|_| 0..0),
            on_card: card.zeroed(1 << 16, "step inputs")?,
            wide_queries: 128,
        })
    }

    pub fn bytes(&self) -> u64 {
        self.on_card.bytes()
    }

    /// Plans a batch and brings everything onto the card; the step before has been waited for. `round`: lengths are
    /// rounded, rows up to that many at most, so that many batches have the same.
    pub fn fill(
        &mut self,
        card: &Card,
        batch: &Batch,
        sizes: &Sizes,
        round: Option<usize>,
    ) -> Result<(), Error> {
        self.plan.fill(batch, sizes);
        self.wide_queries = sizes.wide;
        adapters::plan(batch, &mut self.lora_rows, &mut self.lora_tiles);
        let Self { plan, words, pinned, ranges, lora_rows, lora_tiles, .. } = self;
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
        for ((range, section), (width, filling)) in ranges.iter_mut().zip(sections).zip(ENTRIES) {
            let n = section.len() / width;
            let n = round.map_or(n, |most| if n <= most { rounded(n).min(most) } else { rounded(n) });
            *range = words.len()..words.len() + n * width;
            words.extend_from_slice(section);
            words.resize(range.end, filling);
            words.resize(words.len().next_multiple_of(ALIGN), 0);
        }
        if self.on_card.len() < words.len() {
            let n = words.len().next_power_of_two();
            self.on_card = card.zeroed(n, "step inputs")?;
            *pinned = card.pinned(n)?;
        }
        pinned[..words.len()].copy_from_slice(words);
        card.write_pinned(pinned, words.len(), &mut self.on_card)
    }

    /// Rows and rows of logits, as rounded.
    pub fn sizes(&self) -> (usize, usize) {
        (self.section(Section::Tokens).len(), self.section(Section::LogitRows).len())
    }

    /// Two batches with the same layout have the same launches.
    pub fn layout(&self) -> Vec<u64> {
        let ends = self.ranges.iter().map(|range| range.end as u64);
        [self.on_card.all().address(), self.wide_queries as u64].into_iter().chain(ends).collect()
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

/// The next of some eight numbers between each two powers of two.
fn rounded(n: usize) -> usize {
    n.next_multiple_of((n.next_power_of_two() / 8).max(1))
}
