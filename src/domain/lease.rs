//! A claim on a chunk and the fence that guards every write made under it.

use super::id::{ChunkId, JobId, Seq, WorkerId};
use super::task::Stage;

/// The fence: a write names it, and changes nothing once another claim has replaced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    pub chunk: ChunkId,
    pub worker: WorkerId,
    /// Claims of this chunk so far; grows with every claim and never goes back.
    pub attempt: i32,
}

/// Which items of its job a chunk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemRange {
    /// `lo..hi`.
    Span { lo: Seq, hi: Seq },
    /// Single items, of a retry or of a split.
    List(Vec<Seq>),
}

impl ItemRange {
    pub fn len(&self) -> usize {
        match self {
            ItemRange::Span { lo, hi } => (hi - lo).max(0) as usize,
            ItemRange::List(seqs) => seqs.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A chunk that this worker holds until its lease ends.
#[derive(Clone, Debug)]
pub struct Claim {
    pub fence: Fence,
    pub job: JobId,
    pub stage: Stage,
    pub range: ItemRange,
    /// Tries that these items have behind them, each failed in a way that may pass.
    pub tries: i16,
}
