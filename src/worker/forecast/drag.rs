//! What the fluid does not see: evictions, heads that are waited for, long contexts, a busy machine. It shows in how
//! long parts of jobs took against what had been foreseen of them, and slows what is foreseen next.

/// Older parts fade with this much newer work.
const MEMORY_S: f64 = 60.0;
/// Work without drag that is taken for granted at first.
const PRIOR_S: f64 = 15.0;
const RANGE: (f64, f64) = (0.3, 1.5);

/// Work of an engine: what was foreseen to be done while parts of jobs ran, and what it came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drag {
    foreseen_s: f64,
    came_s: f64,
}

impl Drag {
    /// A part has ended: work that was foreseen to be done in its time, without any drag, and its work.
    pub fn add(&mut self, foreseen_s: f64, came_s: f64) {
        let kept = (-came_s / MEMORY_S).exp();
        // one part alone does not say that much
        let foreseen_s = foreseen_s.clamp(came_s / 5.0, came_s * 5.0);
        self.foreseen_s = self.foreseen_s * kept + foreseen_s;
        self.came_s = self.came_s * kept + came_s;
    }

    /// The speed that is left: of what costs say, this share.
    pub fn speed(&self) -> f64 {
        ((self.came_s + PRIOR_S) / (self.foreseen_s + PRIOR_S)).clamp(RANGE.0, RANGE.1)
    }
}

/// How far a part of a job is: items that run say nothing until they end, but how fast they are worked on is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flight {
    pub at_s: f64,
    /// Items that have ended, and that have not.
    pub ended: f64,
    pub left: f64,
    /// Work done on items that run, in whole items.
    pub done: f64,
    /// Items per second from here on, and the same without drag.
    pub rate: f64,
    pub rate_without: f64,
    /// Items foreseen to be done so far, without drag, and those that came.
    pub foreseen: f64,
    pub came: f64,
    /// Seconds that an engine full of such items takes for one.
    pub work_s: f64,
}

/// Of items that run, no more than this share is held to be done: what has not ended may take longer than expected.
const MAX_DONE: f64 = 0.8;

impl Flight {
    pub fn begins(at_s: f64, ended: f64) -> Self {
        Self { at_s, ended, ..Self::default() }
    }

    /// Time has passed. Items that ended take what had been done on them with them.
    pub fn goes_on(&mut self, at_s: f64, ended: f64, running: f64, left: f64) {
        let passed_s = (at_s - self.at_s).max(0.0);
        let came = (ended - self.ended).max(0.0);
        self.done = (self.done + self.rate * passed_s - came).clamp(0.0, MAX_DONE * running);
        self.foreseen += self.rate_without * passed_s;
        self.came += came;
        (self.at_s, self.ended, self.left) = (at_s, ended, left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_comes_slower_than_foreseen_slows_what_is_foreseen() {
        let mut drag = Drag::default();
        assert_eq!(drag.speed(), 1.0);
        (0..50).for_each(|_| drag.add(6.0, 3.0));
        assert!((0.5..0.6).contains(&drag.speed()), "{}", drag.speed());
        (0..50).for_each(|_| drag.add(3.0, 3.0));
        assert!((0.9..1.0).contains(&drag.speed()), "{}", drag.speed());
    }

    #[test]
    fn items_that_run_are_on_their_way_and_end() {
        let mut flight = Flight::begins(0.0, 0.0);
        (flight.rate, flight.rate_without) = (2.0, 4.0);
        flight.goes_on(3.0, 0.0, 10.0, 10.0);
        assert_eq!((flight.done, flight.foreseen), (6.0, 12.0));
        flight.goes_on(3.0, 5.0, 5.0, 5.0);
        assert_eq!((flight.done, flight.came), (1.0, 5.0));
        flight.goes_on(100.0, 5.0, 5.0, 5.0);
        assert_eq!(flight.done, 4.0, "never altogether done");
    }
}
