//! Whether a draft pays: what a row costs in time, and how often the n-th token of a draft comes true.

use super::MAX_DRAFT;

/// A row whose logits are wanted counts for one and a half: the head is a good part of a small model.
const LOGIT_WEIGHT: f64 = 0.5;
/// What a step loses of its weight in the cost model with every later step.
const STEP_MEMORY: f64 = 0.98;
/// Drafts judged before the counts are halved, so that new work is soon seen for what it is.
const DRAFTS_REMEMBERED: f64 = 512.0;
/// Drafts judged before any is run.
const DRAFTS_TO_JUDGE: f64 = 24.0;
/// A draft token has to save this much more than it costs.
const MARGIN: f64 = 1.15;

/// Running estimates of one engine.
#[derive(Clone, Debug, Default)]
pub struct Gain {
    cost: StepCost,
    /// Per place in a draft: tokens judged, and those that came true.
    judged: [f64; MAX_DRAFT],
    came_true: [f64; MAX_DRAFT],
}

/// `ms = fixed + per_row * rows`, by least squares over recent steps.
#[derive(Clone, Copy, Debug, Default)]
struct StepCost {
    weight: f64,
    rows: f64,
    ms: f64,
    rows_rows: f64,
    rows_ms: f64,
}

impl Gain {
    /// One forward pass of `rows` rows, `logit_rows` of which wanted logits, took `ms`.
    pub fn saw_step(&mut self, rows: usize, logit_rows: usize, ms: f64) {
        self.cost.add(rows as f64 + LOGIT_WEIGHT * logit_rows as f64, ms);
    }

    /// Of a draft's `n_tokens`, the first `n_true` came true.
    pub fn saw_draft(&mut self, n_tokens: usize, n_true: usize) {
        for place in 0..n_tokens.min(MAX_DRAFT) {
            self.judged[place] += 1.0;
            self.came_true[place] += f64::from(u8::from(place < n_true));
        }
        if self.judged[0] > DRAFTS_REMEMBERED {
            self.judged.iter_mut().chain(&mut self.came_true).for_each(|count| *count *= 0.5);
        }
    }

    /// Tokens that a draft should have in a step that samples for `n_sampling` sequences; 0: none pays.
    ///
    /// A token that comes true saves its sequence a turn in a later step: its row, and its share of what the
    /// step costs whatever is in it. Any draft token costs a row with logits.
    pub fn draft_tokens(&self, n_sampling: usize) -> usize {
        let Some((fixed, per_row)) = self.cost.line() else { return 0 };
        if self.judged[0] < DRAFTS_TO_JUDGE {
            return 0;
        }
        let row = per_row * (1.0 + LOGIT_WEIGHT);
        let saved = fixed / n_sampling.max(1) as f64 + row;
        let pays = |place: &usize| {
            let share = self.came_true[*place] / self.judged[*place].max(1.0);
            share * saved > MARGIN * row
        };
        (0..MAX_DRAFT).take_while(pays).count()
    }
}

impl StepCost {
    fn add(&mut self, rows: f64, ms: f64) {
        for (sum, value) in [
            (&mut self.weight, 1.0),
            (&mut self.rows, rows),
            (&mut self.ms, ms),
            (&mut self.rows_rows, rows * rows),
            (&mut self.rows_ms, rows * ms),
        ] {
            *sum = *sum * STEP_MEMORY + value;
        }
    }

    /// Fixed part and part per row, neither below 0; `None` before there is anything to go by.
    fn line(&self) -> Option<(f64, f64)> {
        if self.weight < 8.0 || self.rows <= 0.0 {
            return None;
        }
        let (mean_rows, mean_ms) = (self.rows / self.weight, self.ms / self.weight);
        let variance = self.rows_rows / self.weight - mean_rows * mean_rows;
        let covariance = self.rows_ms / self.weight - mean_rows * mean_ms;
        // steps all of one size say nothing of the fixed part: then it counts for nothing
        let per_row =
            if variance > 0.01 * mean_rows * mean_rows { covariance / variance } else { mean_ms / mean_rows };
        let per_row = per_row.clamp(0.0, mean_ms / mean_rows);
        Some((mean_ms - per_row * mean_rows, per_row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of 1 to 40 rows that cost `fixed + per_row * rows`, and drafts of which `n_true` tokens come true.
    fn gain(fixed: f64, per_row: f64, n_true: usize) -> Gain {
        let mut gain = Gain::default();
        for n in 0..200_usize {
            let rows = 1 + n * 7 % 40;
            let ms = fixed + per_row * (rows as f64 + LOGIT_WEIGHT * rows as f64);
            gain.saw_step(rows, rows, ms);
            gain.saw_draft(MAX_DRAFT, n_true);
        }
        gain
    }

    #[test]
    fn drafts_run_only_where_they_save_time() {
        // the time lies in the step itself: rows cost next to nothing, so what comes true is run
        assert_eq!(gain(5.0, 0.01, 3).draft_tokens(1), 3);
        // the time lies in the rows: a certain token saves as much as it costs, which is not enough
        assert_eq!(gain(0.0, 1.0, 8).draft_tokens(1), 0);
        // the fixed part is shared by many
        assert_eq!(gain(4.0, 1.0, 8).draft_tokens(1), 8);
        assert_eq!(gain(4.0, 1.0, 8).draft_tokens(64), 0);
        assert_eq!(gain(5.0, 0.01, 0).draft_tokens(1), 0);
    }

    #[test]
    fn nothing_runs_before_it_was_measured_and_old_work_is_forgotten() {
        let mut gain = gain(5.0, 0.01, 8);
        assert_eq!(gain.draft_tokens(1), 8);
        for _ in 0..3_000 {
            gain.saw_draft(MAX_DRAFT, 0);
        }
        assert_eq!(gain.draft_tokens(1), 0);
        let mut fresh = Gain::default();
        fresh.saw_draft(8, 8);
        assert_eq!(fresh.draft_tokens(1), 0);
    }

    #[test]
    fn steps_of_one_size_have_no_fixed_part() {
        let mut gain = Gain::default();
        for _ in 0..100 {
            gain.saw_step(10, 10, 10.0);
            gain.saw_draft(8, 8);
        }
        assert_eq!(gain.draft_tokens(1), 0);
    }
}
