//! How many items one claim should hold: some seconds of work at the rate measured so far.

use std::time::{Duration, Instant};

use crate::config::settings;

/// Memory of the measurement: older work counts for less.
const MEMORY: Duration = Duration::from_secs(60);

/// Items per second of busy time, recent work weighing most.
#[derive(Debug)]
pub struct Pace {
    items: f64,
    busy_s: f64,
    since: Option<Instant>,
    running: u32,
}

impl Pace {
    pub fn new() -> Self {
        Self { items: 0.0, busy_s: 0.0, since: None, running: 0 }
    }

    /// A bundle has been handed out.
    pub fn begin(&mut self, now: Instant) {
        self.pass(now);
        self.running += 1;
    }

    /// A bundle has been given back.
    pub fn end(&mut self, now: Instant) {
        self.pass(now);
        self.running = self.running.saturating_sub(1);
    }

    /// Bundles that are out.
    pub fn running(&self) -> u32 {
        self.running
    }

    /// Items have ended.
    pub fn add(&mut self, items: usize, now: Instant) {
        self.pass(now);
        self.items += items as f64;
    }

    /// Lets time pass: it counts as busy while a bundle is out.
    fn pass(&mut self, now: Instant) {
        let passed_s = self.since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
        self.since = Some(now);
        if self.running > 0 {
            let kept = (-passed_s / MEMORY.as_secs_f64()).exp();
            self.items *= kept;
            self.busy_s = self.busy_s * kept + passed_s;
        }
    }

    /// `None` until there is something to go by.
    pub fn items_per_s(&self) -> Option<f64> {
        (self.items > 0.0 && self.busy_s > 0.0).then(|| self.items / self.busy_s)
    }
}

/// Items of the next claim. The first claims are small, so that the rate is known soon.
pub fn budget(items_per_s: Option<f64>, queue: &settings::Queue) -> i32 {
    let (min, max) = (f64::from(queue.min_bundle_items), f64::from(queue.max_bundle_items));
    let wanted = items_per_s.map_or(min, |rate| rate * queue.bundle_target_s);
    wanted.clamp(min, max.max(min)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_is_some_seconds_of_work_within_bounds() {
        let queue = settings::Queue::default();
        assert_eq!(budget(None, &queue), 16);
        assert_eq!(budget(Some(10.0), &queue), 150);
        assert_eq!(budget(Some(0.1), &queue), 16);
        assert_eq!(budget(Some(1e9), &queue), 4096);
    }

    #[test]
    fn pace_counts_busy_time_only_and_follows_change() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut pace = Pace::new();
        assert_eq!(pace.items_per_s(), None);
        pace.begin(at(0));
        pace.add(100, at(10));
        let first = pace.items_per_s().unwrap();
        assert!((first - 10.0).abs() < 0.5, "{first}");
        pace.end(at(10));
        pace.begin(at(1000));
        assert!((pace.items_per_s().unwrap() - first).abs() < 0.01, "idle time does not count");
        for s in 1..=300 {
            pace.add(50, at(1000 + s));
        }
        let later = pace.items_per_s().unwrap();
        assert!(later > 45.0, "{later}");
    }
}
