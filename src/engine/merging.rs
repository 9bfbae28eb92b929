//! When an adapter is merged into a copy of the base: a decision over what has run, without effects.

use super::request::AdapterId;

/// Rows that one adapter has to have run alone before it is merged. A merge takes about as long as some
/// thousand rows do, and saves a fifth to a half of what a row costs.
const ROWS_ALONE: u64 = 8_192;

#[derive(Debug, Default)]
pub(super) struct Merging {
    /// Whose sequences alone have waited and run lately, and in how many rows.
    alone: Option<AdapterId>,
    rows: u64,
    /// Merged, or tried without success.
    settled: Option<AdapterId>,
}

impl Merging {
    /// After a step of so many rows in which only one adapter had sequences, or several (`None`): the adapter
    /// to merge now. The copy stays until another adapter is worth it: while several run, it costs nothing.
    pub fn saw_step(&mut self, only: Option<AdapterId>, rows: u64) -> Option<AdapterId> {
        if only != self.alone {
            (self.alone, self.rows) = (only, 0);
        }
        self.rows += rows;
        let due = only.filter(|id| self.rows >= ROWS_ALONE && self.settled != Some(*id))?;
        self.settled = Some(due);
        Some(due)
    }

    /// An adapter is gone, and with it what was merged of it. Ids are not used again.
    pub fn forget(&mut self, id: AdapterId) {
        if self.settled == Some(id) {
            self.settled = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: AdapterId = AdapterId(0);
    const B: AdapterId = AdapterId(1);

    #[test]
    fn an_adapter_is_merged_once_when_it_has_run_alone_for_long() {
        let mut merging = Merging::default();
        assert_eq!(merging.saw_step(Some(A), ROWS_ALONE - 1), None);
        assert_eq!(merging.saw_step(None, 4), None, "somebody else came by");
        assert_eq!(merging.saw_step(Some(A), ROWS_ALONE - 1), None, "counting began anew");
        assert_eq!(merging.saw_step(Some(A), 1), Some(A));
        assert_eq!(merging.saw_step(Some(A), ROWS_ALONE), None, "it is merged");
        assert_eq!(merging.saw_step(None, ROWS_ALONE), None, "several, or the base, have nothing to merge");
        assert_eq!(merging.saw_step(Some(A), ROWS_ALONE), None, "the copy is still there");
        assert_eq!(merging.saw_step(Some(B), ROWS_ALONE), Some(B), "another one takes its place");
        assert_eq!(merging.saw_step(Some(A), ROWS_ALONE), Some(A));
        merging.forget(A);
        assert_eq!(merging.saw_step(Some(A), 1), Some(A), "gone with its adapter");
    }
}
