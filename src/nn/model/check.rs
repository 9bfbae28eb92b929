//! The contract of a batch, checked before a kernel sees it.

use super::Model;
use crate::nn::Error;
use crate::nn::batch::{Batch, Span};

impl Model {
    pub(super) fn check_batch(&mut self, batch: &Batch) -> Result<(), Error> {
        let fail = |cause: String| Err(Error::Batch(cause));
        let n_rows = batch.n_rows();
        if n_rows == 0 || n_rows > self.max_rows {
            return fail(format!("{n_rows} rows (1 to {})", self.max_rows));
        }
        if let Some(token) = batch.tokens.iter().find(|t| **t as usize >= self.config.vocab) {
            return fail(format!("token {token} in a vocabulary of {}", self.config.vocab));
        }
        let mut next = 0u32;
        for (i, span) in batch.spans.iter().enumerate() {
            if span.first_row != next || span.n_tokens == 0 {
                return fail(format!("span {i} begins at row {} instead of {next}", span.first_row));
            }
            next = next.saturating_add(span.n_tokens);
            self.check_span(batch, i, span)?;
        }
        if next as usize != n_rows {
            return fail(format!("spans cover {next} of {n_rows} rows"));
        }
        let ascending = batch.logit_rows.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || batch.logit_rows.last().is_some_and(|row| *row as usize >= n_rows) {
            return fail("logit rows are not ascending rows of the batch".into());
        }
        self.check_writers(batch)
    }

    fn check_span(&self, batch: &Batch, i: usize, span: &Span) -> Result<(), Error> {
        let fail = |cause: String| Err(Error::Batch(format!("span {i}: {cause}")));
        let length = span.past as usize + span.n_tokens as usize;
        if length > self.context_tokens {
            return fail(format!("{length} positions in a context of {}", self.context_tokens));
        }
        let end = span.first_block as usize + span.n_blocks as usize;
        if end > batch.blocks.len() || (span.n_blocks as usize) * self.block_tokens() < length {
            return fail(format!("{} blocks for {length} positions", span.n_blocks));
        }
        if let Some(block) = batch.blocks_of(span).iter().find(|b| **b as usize >= self.n_blocks()) {
            return fail(format!("block {block} of a pool of {}", self.n_blocks()));
        }
        match span.adapter {
            Some(slot) if !matches!(self.adapters.get(slot as usize), Some(Some(_))) => {
                fail(format!("no adapter in slot {slot}"))
            }
            _ => Ok(()),
        }
    }

    /// A block is written by one span at most: tasks write without locks.
    fn check_writers(&mut self, batch: &Batch) -> Result<(), Error> {
        let block_tokens = self.block_tokens();
        let written = |span: &Span| {
            let length = (span.past + span.n_tokens) as usize;
            span.past as usize / block_tokens..length.div_ceil(block_tokens)
        };
        let writers = &mut self.scratch.writers;
        let mut twice = None;
        for (i, span) in batch.spans.iter().enumerate() {
            for block in &batch.blocks_of(span)[written(span)] {
                if writers[*block as usize] != 0 {
                    twice = Some(*block);
                }
                writers[*block as usize] = i as u32 + 1;
            }
        }
        for span in &batch.spans {
            for block in &batch.blocks_of(span)[written(span)] {
                writers[*block as usize] = 0;
            }
        }
        match twice {
            Some(block) => Err(Error::Batch(format!("block {block} is written twice"))),
            None => Ok(()),
        }
    }
}
