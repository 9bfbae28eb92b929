//! The contract of a batch, checked before a kernel sees it.

use crate::nn::Error;
use crate::nn::batch::{Batch, Span};

/// What a model can take.
pub(super) struct Limits<'a> {
    pub max_rows: usize,
    pub vocab: usize,
    pub context_tokens: usize,
    pub block_tokens: usize,
    pub n_blocks: usize,
    pub has_adapter: &'a dyn Fn(u32) -> bool,
}

/// `writers` has a 0 per block of the pool, before and after.
pub(super) fn check(batch: &Batch, limits: &Limits, writers: &mut [u32]) -> Result<(), Error> {
    let fail = |cause: String| Err(Error::Batch(cause));
    let n_rows = batch.n_rows();
    if n_rows == 0 || n_rows > limits.max_rows {
        return fail(format!("{n_rows} rows (1 to {})", limits.max_rows));
    }
    if let Some(token) = batch.tokens.iter().find(|t| **t as usize >= limits.vocab) {
        return fail(format!("token {token} in a vocabulary of {}", limits.vocab));
    }
    let mut next = 0u32;
    for (i, span) in batch.spans.iter().enumerate() {
        if span.first_row != next || span.n_tokens == 0 {
            return fail(format!("span {i} begins at row {} instead of {next}", span.first_row));
        }
        next = next.saturating_add(span.n_tokens);
        check_span(batch, limits, i, span)?;
    }
    if next as usize != n_rows {
        return fail(format!("spans cover {next} of {n_rows} rows"));
    }
    let ascending = batch.logit_rows.windows(2).all(|pair| pair[0] < pair[1]);
    if !ascending || batch.logit_rows.last().is_some_and(|row| *row as usize >= n_rows) {
        return fail("logit rows are not ascending rows of the batch".into());
    }
    check_writers(batch, limits.block_tokens, writers)
}

fn check_span(batch: &Batch, limits: &Limits, i: usize, span: &Span) -> Result<(), Error> {
    let fail = |cause: String| Err(Error::Batch(format!("span {i}: {cause}")));
    let length = span.past as usize + span.n_tokens as usize;
    if length > limits.context_tokens {
        return fail(format!("{length} positions in a context of {}", limits.context_tokens));
    }
    let end = span.first_block as usize + span.n_blocks as usize;
    if end > batch.blocks.len() || (span.n_blocks as usize) * limits.block_tokens < length {
        return fail(format!("{} blocks for {length} positions", span.n_blocks));
    }
    if let Some(block) = batch.blocks_of(span).iter().find(|b| **b as usize >= limits.n_blocks) {
        return fail(format!("block {block} of a pool of {}", limits.n_blocks));
    }
    match span.adapter {
        Some(slot) if !(limits.has_adapter)(slot) => fail(format!("no adapter in slot {slot}")),
        _ => Ok(()),
    }
}

/// A block is written by one span at most: tasks write without locks.
fn check_writers(batch: &Batch, block_tokens: usize, writers: &mut [u32]) -> Result<(), Error> {
    let written = |span: &Span| {
        let length = (span.past + span.n_tokens) as usize;
        span.past as usize / block_tokens..length.div_ceil(block_tokens)
    };
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
