//! A forecast as it is told: seconds with bounds, what they rest on, and what is not known.

use super::record::Bounds;

/// When a job will end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forecast {
    /// `None`: nobody can tell, for the reasons in `unknown`.
    pub left: Option<Left>,
    /// What it rests on, in words.
    pub basis: Vec<String>,
    pub unknown: Vec<String>,
}

/// Seconds from now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Left {
    pub seconds: f64,
    /// One in ten ends sooner, one in ten later.
    pub low_s: f64,
    pub high_s: f64,
}

impl Left {
    pub fn new(seconds: f64, bounds: &Bounds) -> Self {
        Self { seconds, low_s: seconds * bounds.low, high_s: seconds * bounds.high }
    }

    /// The same, some time later.
    pub fn after(self, passed_s: f64) -> Self {
        let less = |seconds: f64| (seconds - passed_s).max(0.0);
        Self { seconds: less(self.seconds), low_s: less(self.low_s), high_s: less(self.high_s) }
    }
}

impl Forecast {
    pub fn after(&self, passed_s: f64) -> Self {
        Self { left: self.left.map(|left| left.after(passed_s)), ..self.clone() }
    }
}

/// What bounds rest on.
pub fn of_bounds(bounds: &Bounds) -> String {
    match bounds.proved {
        0 => "no forecast has been proved yet in this process: the bounds are a guess".into(),
        n => format!("bounds by how far off {n} earlier forecasts were, 8 of 10 within"),
    }
}

/// "1 item", "2 items".
pub fn plural(n: f64, one: &str) -> String {
    let n = n.round();
    format!("{n} {one}{}", if n == 1.0 { "" } else { "s" })
}
