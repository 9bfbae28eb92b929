//! A benchmark's report: both sides' runs, their medians, and one over the other.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::figures::{self, COMPARED, Run, median};
use crate::wire::model::Engine;

pub struct Side {
    url: String,
    model: String,
    concurrency: Option<usize>,
    runs: Vec<Run>,
}

impl Side {
    pub fn new(url: &str, model: &str, concurrency: Option<usize>, runs: Vec<Run>) -> Self {
        Self { url: url.into(), model: model.into(), concurrency, runs }
    }

    fn medians(&self) -> BTreeMap<&'static str, f64> {
        figures::medians(&self.runs)
    }

    fn median_of(&self, figure: impl Fn(&Run) -> f64) -> f64 {
        median(self.runs.iter().map(figure).collect())
    }

    /// Errors of all runs by their word.
    fn errors(&self) -> BTreeMap<&str, usize> {
        let mut errors = BTreeMap::new();
        for (word, count) in self.runs.iter().flat_map(|run| &run.errors) {
            *errors.entry(word.as_str()).or_insert(0) += count;
        }
        errors
    }

    fn errors_text(&self) -> String {
        let errors: Vec<String> =
            self.errors().iter().map(|(word, count)| format!("{count} {word}")).collect();
        if errors.is_empty() { "none".into() } else { errors.join(", ") }
    }

    fn to_json(&self) -> Value {
        json!({"url": self.url, "model": self.model, "concurrency": self.concurrency, "median": self.medians(),
               "errors": self.errors(), "runs": self.runs})
    }
}

/// Everything a benchmark found.
pub struct Report {
    pub workload: String,
    pub items: usize,
    pub first_run: u64,
    pub adit: Side,
    pub peer: Option<Side>,
    /// What adit's engine did meanwhile, the warm-up included.
    pub engine: Engine,
}

/// What the engine did between two readings of it.
pub fn worked(before: &Engine, after: Engine) -> Engine {
    Engine {
        steps: after.steps.saturating_sub(before.steps),
        rows: after.rows.saturating_sub(before.rows),
        prompt_tokens: after.prompt_tokens.saturating_sub(before.prompt_tokens),
        prefix_hit_tokens: after.prefix_hit_tokens.saturating_sub(before.prefix_hit_tokens),
        output_tokens: after.output_tokens.saturating_sub(before.output_tokens),
        forced_tokens: after.forced_tokens.saturating_sub(before.forced_tokens),
        drafted_tokens: after.drafted_tokens.saturating_sub(before.drafted_tokens),
        accepted_tokens: after.accepted_tokens.saturating_sub(before.accepted_tokens),
        merged_rows: after.merged_rows.saturating_sub(before.merged_rows),
        preemptions: after.preemptions.saturating_sub(before.preemptions),
        step_s: after.step_s - before.step_s,
        forward_s: after.forward_s - before.forward_s,
        mask_s: after.mask_s - before.mask_s,
        advance_s: after.advance_s - before.advance_s,
        ..after
    }
}

/// The levers, as they are named in the settings.
pub fn levers(engine: &Engine) -> String {
    let word = |is_on| if is_on { "on" } else { "off" };
    format!(
        "prefix_cache {}, jump_forward {}, prompt_lookup {}, max_sequences {}",
        word(engine.prefix_cache),
        word(engine.jump_forward),
        engine.prompt_lookup,
        engine.max_sequences
    )
}

impl Report {
    pub fn all_answered(&self) -> bool {
        let sides = std::iter::once(&self.adit).chain(&self.peer);
        sides.flat_map(|side| &side.runs).all(|run| run.answered == run.items)
    }

    fn ratios(&self) -> Option<BTreeMap<&'static str, Option<f64>>> {
        let peer = self.peer.as_ref()?;
        Some(figures::ratios(&self.adit.medians(), &peer.medians()))
    }

    pub fn to_json(&self) -> Value {
        json!({
            "workload": self.workload, "items": self.items, "first_run": self.first_run,
            "engine": self.engine, "adit": self.adit.to_json(),
            "peer": self.peer.as_ref().map(Side::to_json), "ratio": self.ratios(),
        })
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        let runs = self.adit.runs.len();
        let _ = writeln!(
            out,
            "{}: {} items, medians of {runs} runs after a warm-up, prompts from run {}",
            self.workload, self.items, self.first_run
        );
        let _ = writeln!(out, "adit  {} model {}: {}", self.adit.url, self.adit.model, levers(&self.engine));
        if let Some(peer) = &self.peer {
            let at_a_time = peer.concurrency.unwrap_or_default();
            let _ = writeln!(out, "peer  {} model {}: {at_a_time} requests at a time", peer.url, peer.model);
        }
        self.write_figures(&mut out);
        self.write_work(&mut out);
        out
    }

    fn write_figures(&self, out: &mut String) {
        let heads = if self.peer.is_some() { ["adit", "peer", "adit/peer"] } else { ["adit", "", ""] };
        let _ = writeln!(out, "\n{:>24}{:>12}{:>12}{:>12}", "", heads[0], heads[1], heads[2]);
        let (ours, ratios) = (self.adit.medians(), self.ratios().unwrap_or_default());
        let theirs = self.peer.as_ref().map(Side::medians).unwrap_or_default();
        let cell =
            |value: Option<f64>, digits: usize| value.map(|v| format!("{v:.digits$}")).unwrap_or_default();
        for (name, _) in COMPARED {
            let ratio = ratios.get(name).copied().flatten();
            let (our, their) = (cell(ours.get(name).copied(), 2), cell(theirs.get(name).copied(), 2));
            let _ = writeln!(out, "{name:>24}{our:>12}{their:>12}{:>12}", cell(ratio, 2));
        }
        type Figure = fn(&Run) -> f64;
        let per_item: [(&str, Figure); 5] = [
            ("prompt tokens per item", |run| run.prompt_tokens as f64 / run.answered.max(1) as f64),
            ("output tokens per item", |run| run.output_tokens as f64 / run.answered.max(1) as f64),
            ("valid %", |run| 100.0 * run.valid as f64 / run.items.max(1) as f64),
            ("prefix hits %", |run| 100.0 * run.prefix_hit_share),
            ("forced %", |run| 100.0 * run.forced_share),
        ];
        for (name, figure) in per_item {
            let their = cell(self.peer.as_ref().map(|peer| peer.median_of(figure)), 1);
            let _ = writeln!(out, "{name:>24}{:>12}{their:>12}", cell(Some(self.adit.median_of(figure)), 1));
        }
        let _ = writeln!(out, "{:>24}  adit {}", "errors", self.adit.errors_text());
        if let Some(peer) = &self.peer {
            let _ = writeln!(out, "{:>24}  peer {}", "", peer.errors_text());
        }
    }

    fn write_work(&self, out: &mut String) {
        let engine = &self.engine;
        let share = |part: f64| if engine.step_s > 0.0 { 100.0 * part / engine.step_s } else { 0.0 };
        let _ = writeln!(
            out,
            "\nadit's engine: {} steps of {:.1} rows, {:.1} ms each; forward {:.1} %, masks {:.2} %, taking tokens in {:.2} %; \
             {} of {} drafted tokens came true",
            engine.steps,
            engine.rows as f64 / engine.steps.max(1) as f64,
            1e3 * engine.step_s / engine.steps.max(1) as f64,
            share(engine.forward_s),
            share(engine.mask_s),
            share(engine.advance_s),
            engine.accepted_tokens,
            engine.drafted_tokens,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(items_per_s: f64, error: Option<&str>) -> Run {
        let errors = error.map(|word| (word.to_string(), 1)).into_iter().collect();
        Run { items: 4, answered: 4 - error.iter().len(), items_per_s, errors, ..Run::default() }
    }

    #[test]
    fn a_comparison_shows_medians_ratio_and_every_error() {
        let ours = Side::new("http://a", "m", None, vec![run(30.0, None), run(10.0, None), run(20.0, None)]);
        let theirs = Side::new(
            "http://b",
            "m",
            Some(8),
            vec![run(5.0, Some("status_500")), run(4.0, None), run(6.0, Some("status_500"))],
        );
        let report = Report {
            workload: "head".into(),
            items: 4,
            first_run: 7,
            adit: ours,
            peer: Some(theirs),
            engine: Engine { jump_forward: true, steps: 10, step_s: 2.0, mask_s: 0.1, ..Engine::default() },
        };
        assert!(!report.all_answered());
        assert_eq!(report.to_json()["ratio"]["items/s"], 4.0);
        assert_eq!(report.to_json()["peer"]["errors"]["status_500"], 2);
        let text = report.text();
        for part in ["prefix_cache off, jump_forward on", "2 status_500", "4.00", "masks 5.00 %"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
