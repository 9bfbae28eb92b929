//! Work that comes in: what an engine was given of late, and so what it may be given next.

use std::collections::VecDeque;

/// The past is looked at in so many stretches of so many seconds; and the future is held to be like it for as long.
const BINS: usize = 6;
const BIN_S: f64 = 20.0;
pub const HORIZON_S: f64 = BINS as f64 * BIN_S;

/// Jobs that came to an engine.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    /// When, and how long the engine would be busy with it alone.
    jobs: VecDeque<(f64, f64)>,
    /// Since when they are counted.
    since_s: f64,
}

/// A steady stream of jobs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stream {
    pub every_s: f64,
    /// Of each.
    pub work_s: f64,
}

impl Arrivals {
    pub fn since(since_s: f64) -> Self {
        Self { jobs: VecDeque::new(), since_s }
    }

    pub fn come(&mut self, at_s: f64, work_s: f64) {
        self.jobs.push_back((at_s, work_s));
        while self.jobs.front().is_some_and(|(at, _)| *at < at_s - 2.0 * HORIZON_S) {
            self.jobs.pop_front();
        }
    }

    /// What comes steadily, if anything does: the median stretch counts, so that many jobs handed over at once are
    /// not held to be handed over again and again; and of the jobs' work the median, for what one rare large job
    /// would do is not what is to be expected.
    pub fn stream(&self, now_s: f64) -> Option<Stream> {
        if now_s - self.since_s < HORIZON_S / 2.0 {
            return None;
        }
        let mut bins = [0.0; BINS];
        let mut work: Vec<f64> = Vec::new();
        for (at, work_s) in &self.jobs {
            if let Some(bin) = bins.get_mut(((now_s - at) / BIN_S) as usize) {
                *bin += 1.0;
                work.push(*work_s);
            }
        }
        bins.sort_by(f64::total_cmp);
        work.sort_by(f64::total_cmp);
        let n = f64::midpoint(bins[BINS / 2 - 1], bins[BINS / 2]);
        let work_s = work.get(work.len() / 2).copied()?;
        (n > 0.0).then(|| Stream { every_s: BIN_S / n, work_s })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_goes_on_and_a_burst_does_not() {
        let mut steady = Arrivals::since(0.0);
        (0..24).for_each(|n| steady.come(f64::from(n) * 5.0 + 1.0, 2.0));
        let stream = steady.stream(120.0).unwrap();
        assert!((stream.every_s - 5.0).abs() < 0.1 && (stream.work_s - 2.0).abs() < 1e-9, "{stream:?}");
        assert_eq!(steady.stream(400.0), None, "it has ended");
        let mut burst = Arrivals::since(0.0);
        (0..50).for_each(|_| burst.come(100.0, 2.0));
        assert_eq!(burst.stream(120.0), None);
    }
}
