//! A ragged batch: append n tokens to each of these sequences and give the logits of these rows.
//!
//! Prefill is n = many, decode n = 1, a prefix hit n = the rest, forced tokens n = 1 + k. No padding.

/// Index of a KV block in the pool.
pub type BlockId = u32;

/// One step's input. Vectors are reused from step to step.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Token ids of all sequences, back to back: `[n_rows]`.
    pub tokens: Vec<u32>,
    pub spans: Vec<Span>,
    /// Block tables of all spans, back to back; a span's part covers `past + n_tokens` positions.
    pub blocks: Vec<BlockId>,
    /// Rows (indices into `tokens`) whose logits are wanted, ascending: `[n_logits]`.
    pub logit_rows: Vec<u32>,
}

/// One sequence's part of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First row in `tokens`.
    pub first_row: u32,
    /// Rows of this sequence, at least 1.
    pub n_tokens: u32,
    /// Positions already in the KV cache; the first new token has this position (from 0).
    pub past: u32,
    /// First entry in `Batch::blocks`.
    pub first_block: u32,
    pub n_blocks: u32,
    /// Slot of the LoRA adapter; `None` runs the base.
    pub adapter: Option<u32>,
}

impl Batch {
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.spans.clear();
        self.blocks.clear();
        self.logit_rows.clear();
    }

    pub fn n_rows(&self) -> usize {
        self.tokens.len()
    }

    /// Block table of a span.
    pub fn blocks_of(&self, span: &Span) -> &[BlockId] {
        let first = span.first_block as usize;
        &self.blocks[first..first + span.n_blocks as usize]
    }
}
