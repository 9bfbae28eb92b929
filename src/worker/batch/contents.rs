//! What a batch's file holds: read from the results line by line, as long as anybody reads, also before the
//! batch has ended. The same results give the same bytes.

use std::collections::VecDeque;

use super::render;
use crate::domain::batch::FileRole;
use crate::domain::id::{BatchId, Seq};
use crate::domain::item::OutcomeKind;
use crate::store::result::ResultRow;
use crate::store::{Store, StoreError};

/// Results read at once.
const PAGE: u32 = 100;

/// A file on its way: one page of rows in memory at most.
pub struct Contents {
    store: Store,
    batch: BatchId,
    /// What is still to be read, one after the other: failed results have an index of their own, and those that
    /// never ran are found by their chunks.
    outcomes: VecDeque<OutcomeKind>,
    after: Option<Seq>,
    rows: VecDeque<ResultRow>,
}

impl Contents {
    pub fn new(store: Store, batch: BatchId, role: FileRole) -> Self {
        let outcomes: &[OutcomeKind] = match role {
            FileRole::Input => &[],
            FileRole::Output => &[OutcomeKind::Succeeded],
            FileRole::Errors => &[OutcomeKind::Failed, OutcomeKind::Expired, OutcomeKind::Cancelled],
        };
        let outcomes = outcomes.iter().copied().collect();
        Self { store, batch, outcomes, after: None, rows: VecDeque::new() }
    }

    /// The next line with its end; `None` after the last there is now.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        loop {
            if let Some(row) = self.rows.pop_front() {
                self.after = Some(row.seq);
                return Ok(Some(render::line(self.batch, row)));
            }
            let Some(outcome) = self.outcomes.front() else { return Ok(None) };
            let page = self.store.results(self.batch.job(), self.after, PAGE, Some(*outcome)).await?;
            self.rows = page.rows.into();
            if self.rows.is_empty() {
                self.outcomes.pop_front();
                self.after = None;
            }
        }
    }
}
