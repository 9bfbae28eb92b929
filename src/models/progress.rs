//! Bytes of a load into rate and time left.

use std::time::{Duration, Instant};

use crate::domain::model::{LoadProgress, LoadStage};

/// Readings closer together than this are not published: a watch wakes everyone who looks.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);

/// Counts one stage's bytes.
#[derive(Debug)]
pub struct Meter {
    stage: LoadStage,
    done: u64,
    total: u64,
    /// Bytes that were there when the stage began: a resumed download did not fetch them.
    start: u64,
    began: Instant,
    published: Option<Instant>,
}

impl Meter {
    pub fn new(stage: LoadStage, total: u64, now: Instant) -> Self {
        Self { stage, done: 0, total, start: 0, began: now, published: None }
    }

    /// Sets bytes that need no work any more.
    pub fn skip(&mut self, bytes: u64) {
        self.done += bytes;
        self.start += bytes;
    }

    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
    }

    pub fn set_done(&mut self, bytes: u64) {
        self.done = bytes;
    }

    /// The progress to publish, if the last one is old enough.
    pub fn due(&mut self, now: Instant) -> Option<LoadProgress> {
        if self.published.is_some_and(|last| now.duration_since(last) < PUBLISH_EVERY) {
            return None;
        }
        self.published = Some(now);
        Some(self.reading(now))
    }

    pub fn reading(&self, now: Instant) -> LoadProgress {
        let elapsed_s = now.duration_since(self.began).as_secs_f64();
        let moved = self.done.saturating_sub(self.start) as f64;
        let bytes_per_s = (moved > 0.0 && elapsed_s > 0.001).then(|| moved / elapsed_s);
        let left = self.total.saturating_sub(self.done) as f64;
        LoadProgress {
            stage: self.stage,
            bytes_done: self.done,
            bytes_total: self.total,
            bytes_per_s,
            eta_s: bytes_per_s.filter(|_| self.total > 0).map(|rate| left / rate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left_follow_from_bytes() {
        let began = Instant::now();
        let mut meter = Meter::new(LoadStage::Download, 1_000, began);
        assert_eq!(meter.reading(began).bytes_per_s, None);
        meter.skip(200);
        meter.add(400);
        let reading = meter.reading(began + Duration::from_secs(2));
        assert_eq!(reading.bytes_done, 600);
        assert_eq!(reading.bytes_per_s, Some(200.0));
        assert_eq!(reading.eta_s, Some(2.0));
    }

    #[test]
    fn readings_are_published_sparingly() {
        let began = Instant::now();
        let mut meter = Meter::new(LoadStage::Read, 10, began);
        assert!(meter.due(began).is_some());
        assert!(meter.due(began + Duration::from_millis(10)).is_none());
        assert!(meter.due(began + Duration::from_millis(60)).is_some());
    }
}
