//! What an engine's steps cost, measured while it works.

use super::world::Cost;

/// Work that counts: older measurements fade with this much newer busy time.
const MEMORY_S: f64 = 60.0;
/// Less busy time than this says nothing.
const ENOUGH_S: f64 = 1.5;
/// Pulls towards an even split between steps and tokens, where measurements cannot tell them apart.
const PULL: f64 = 0.02;

/// An engine's counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Seconds on any clock that does not jump.
    pub at_s: f64,
    pub steps: u64,
    pub rows: u64,
    /// Time in steps.
    pub step_s: f64,
    /// Something runs or waits.
    pub is_busy: bool,
}

/// Least squares over stretches of work, `seconds ≈ step_s · steps + row_s · rows`, newer ones weighing more.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    last: Option<Reading>,
    /// Sums of squares and products.
    steps2: f64,
    steps_rows: f64,
    rows2: f64,
    steps_s: f64,
    rows_s: f64,
    steps: f64,
    rows: f64,
    seconds: f64,
}

impl Meter {
    /// Takes the counters in. Counters that went back are those of another engine.
    pub fn read(&mut self, now: Reading) {
        let last = self.last.replace(now).unwrap_or(now);
        if now.steps <= last.steps || now.rows < last.rows || now.at_s <= last.at_s {
            return;
        }
        let (steps, rows) = ((now.steps - last.steps) as f64, (now.rows - last.rows) as f64);
        // between two busy moments all time is the engine's, with what it waits for; else only its steps are
        let seconds =
            if last.is_busy && now.is_busy { now.at_s - last.at_s } else { now.step_s - last.step_s };
        if seconds > 0.0 {
            self.add(steps, rows, seconds);
        }
    }

    fn add(&mut self, steps: f64, rows: f64, seconds: f64) {
        let kept = (-seconds / MEMORY_S).exp();
        // relative errors count, not those of long stretches alone
        let weight = 1.0 / seconds;
        for (sum, new) in [
            (&mut self.steps2, weight * steps * steps),
            (&mut self.steps_rows, weight * steps * rows),
            (&mut self.rows2, weight * rows * rows),
            (&mut self.steps_s, weight * steps * seconds),
            (&mut self.rows_s, weight * rows * seconds),
            (&mut self.steps, steps),
            (&mut self.rows, rows),
            (&mut self.seconds, seconds),
        ] {
            *sum = *sum * kept + new;
        }
    }

    /// `None` until there is something to go by.
    pub fn cost(&self) -> Option<Cost> {
        if self.seconds < ENOUGH_S || self.rows <= 0.0 {
            return None;
        }
        // in units in which steps and rows weigh alike: each as a share of the time it took on average
        let (s, r) = (self.seconds / self.steps, self.seconds / self.rows);
        let (ss, sr, rr) = (self.steps2 * s * s, self.steps_rows * s * r, self.rows2 * r * r);
        let (st, rt) = (self.steps_s * s, self.rows_s * r);
        let pull = PULL * (ss + rr) / 2.0;
        let (ss, rr, st, rt) = (ss + pull, rr + pull, st + pull / 2.0, rt + pull / 2.0);
        let det = ss * rr - sr * sr;
        let mut of_steps = (st * rr - rt * sr) / det;
        let mut of_rows = (rt * ss - st * sr) / det;
        if of_steps < 0.0 {
            (of_steps, of_rows) = (0.0, rt / rr);
        } else if of_rows < 0.0 {
            (of_steps, of_rows) = (st / ss, 0.0);
        }
        Some(Cost { step_s: of_steps * s, row_s: of_rows * r })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(cost: Cost, stretches: &[(u64, u64)]) -> Meter {
        let (mut meter, mut now) = (Meter::default(), Reading { is_busy: true, ..Reading::default() });
        meter.read(now);
        for (steps, rows) in stretches {
            now.steps += steps;
            now.rows += rows;
            now.at_s += cost.step_s * *steps as f64 + cost.row_s * *rows as f64;
            meter.read(now);
        }
        meter
    }

    #[test]
    fn steps_and_rows_are_told_apart() {
        let real = Cost { step_s: 0.02, row_s: 0.001 };
        let found =
            fed(real, &[(20, 400), (5, 2_000), (30, 300), (10, 1_500), (20, 600)].repeat(6)).cost().unwrap();
        assert!((found.step_s / real.step_s - 1.0).abs() < 0.1, "{found:?}");
        assert!((found.row_s / real.row_s - 1.0).abs() < 0.1, "{found:?}");
    }

    #[test]
    fn work_that_is_always_alike_is_told_as_it_is() {
        let real = Cost { step_s: 0.01, row_s: 0.002 };
        let found = fed(real, &[(20, 300); 20]).cost().unwrap();
        let seconds = |cost: Cost| cost.step_s * 20.0 + cost.row_s * 300.0;
        assert!((seconds(found) / seconds(real) - 1.0).abs() < 0.02, "{found:?}");
    }

    #[test]
    fn little_work_and_another_engine_say_nothing() {
        let real = Cost { step_s: 0.01, row_s: 0.001 };
        assert_eq!(fed(real, &[(1, 10)]).cost(), None);
        let mut meter = fed(real, &[(20, 300); 20]);
        let before = meter.cost();
        meter.read(Reading { at_s: 1e6, steps: 1, rows: 10, step_s: 0.1, is_busy: true });
        assert_eq!(meter.cost(), before);
    }
}
