//! How far off earlier forecasts were, which is what the next ones' bounds rest on.

use std::collections::{HashMap, VecDeque};

use crate::domain::id::JobId;

/// Forecasts that have been proved, of each quarter of a job.
const MAX_KEPT: usize = 200;
/// Taken for granted before there is a record: what was told held within these factors, 8 times of 10.
const PRIOR: (f64, f64) = (0.6, 2.0);
/// Proved forecasts that weigh as much as the prior.
const PRIOR_WEIGHT: f64 = 8.0;
/// Share of forecasts that end below the lower bound, and above the upper one.
const OUTSIDE: f64 = 0.1;
/// Ends closer than this are told as if they were this far: a write or a look takes as long.
const LEAST_S: f64 = 0.5;

/// By how much a forecast may be off, as factors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    pub low: f64,
    pub high: f64,
    /// Forecasts it rests on.
    pub proved: usize,
}

/// A forecast that waits for its proof.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at_s: f64,
    left_s: f64,
}

/// Forecasts made and proved, by the quarter of the job's work that had been done.
#[derive(Clone, Debug, Default)]
pub struct Record {
    open: HashMap<JobId, [Option<Mark>; 4]>,
    /// Logarithms of true over told.
    proved: [VecDeque<f64>; 4],
}

/// Which quarter of a job is at work.
fn quarter(share: f64) -> usize {
    ((share * 4.0) as usize).min(3)
}

impl Record {
    /// A job's first forecast in each quarter is kept.
    pub fn told(&mut self, job: JobId, share: f64, at_s: f64, left_s: f64) {
        let mark = &mut self.open.entry(job).or_default()[quarter(share)];
        mark.get_or_insert(Mark { at_s, left_s });
    }

    /// A job has come to its end by itself.
    pub fn ended(&mut self, job: JobId, at_s: f64) {
        let Some(marks) = self.open.remove(&job) else { return };
        for (mark, proved) in marks.iter().zip(&mut self.proved) {
            let Some(mark) = mark else { continue };
            let took_s = (at_s - mark.at_s).max(LEAST_S);
            if proved.len() == MAX_KEPT {
                proved.pop_front();
            }
            proved.push_back((took_s / mark.left_s.max(LEAST_S)).ln());
        }
    }

    /// It was cancelled, failed, or its model went away: that proves nothing.
    pub fn forget(&mut self, job: JobId) {
        self.open.remove(&job);
    }

    /// Jobs with forecasts that are to be proved.
    pub fn open(&self) -> Vec<JobId> {
        self.open.keys().copied().collect()
    }

    pub fn bounds(&self, share: f64) -> Bounds {
        let quarter = &self.proved[quarter(share)];
        let mut sorted: Vec<f64> = quarter.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let trust = sorted.len() as f64 / (sorted.len() as f64 + PRIOR_WEIGHT);
        let mix = |at: f64, prior: f64| (quantile(&sorted, at) * trust + prior.ln() * (1.0 - trust)).exp();
        Bounds {
            low: mix(OUTSIDE, PRIOR.0).min(1.0),
            high: mix(1.0 - OUTSIDE, PRIOR.1).max(1.0),
            proved: sorted.len(),
        }
    }
}

/// Between the nearest two; 0 of none.
fn quantile(sorted: &[f64], at: f64) -> f64 {
    // of n values, n + 1 gaps: with few, the ends are further out than the values
    let place = (at * (sorted.len() as f64 + 1.0) - 1.0).clamp(0.0, sorted.len().saturating_sub(1) as f64);
    let (low, part) = (place.floor() as usize, place.fract());
    let value = |at: usize| sorted.get(at).copied();
    match (value(low), value(low + 1)) {
        (Some(a), Some(b)) => a + (b - a) * part,
        (Some(a), None) => a,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_record_the_prior_holds() {
        let bounds = Record::default().bounds(0.0);
        assert_eq!(bounds.proved, 0);
        assert!((bounds.low - 0.6).abs() < 1e-9 && (bounds.high - 2.0).abs() < 1e-9);
    }

    #[test]
    fn errors_bound_what_is_told_next() {
        let mut record = Record::default();
        for n in 0..100 {
            let job = JobId::new();
            record.told(job, 0.1, 0.0, 10.0);
            record.told(job, 0.2, 5.0, 1.0);
            record.ended(job, 12.0 + f64::from(n % 11));
        }
        let bounds = record.bounds(0.0);
        assert!(bounds.low == 1.0 && bounds.high < 2.3 && bounds.high > 2.0, "{bounds:?}");
        assert_eq!(record.bounds(0.9).proved, 0, "each quarter has its own");
        let job = JobId::new();
        record.told(job, 0.9, 0.0, 1.0);
        record.forget(job);
        record.ended(job, 100.0);
        assert_eq!(record.bounds(0.9).proved, 0);
    }
}
