//! Live progress on stderr: one bar per stage and model, with rates and the time left.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::report;
use crate::domain::task::Stage;
use crate::wire::job::Job;

/// Bars of one job's stages. Nothing is drawn where stderr is no terminal; there, lines say what changed.
pub struct JobProgress {
    bars: MultiProgress,
    /// By stage and model: the lines of a batch may ask for different models in one stage.
    stages: Vec<(Stage, String, ProgressBar)>,
    is_drawn: bool,
    last_line: String,
}

impl Default for JobProgress {
    fn default() -> Self {
        Self::new()
    }
}

impl JobProgress {
    pub fn new() -> Self {
        let is_drawn = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        Self { bars, stages: Vec::new(), is_drawn, last_line: String::new() }
    }

    pub fn show(&mut self, job: &Job) {
        if !self.is_drawn {
            return self.print(job);
        }
        for stage in &job.stages {
            let known = |(name, model, _): &&(Stage, String, ProgressBar)| {
                *name == stage.stage && *model == stage.model
            };
            let bar = match self.stages.iter().find(known) {
                Some((.., bar)) => bar,
                None => {
                    let bar = self.bars.add(ProgressBar::new(0).with_style(style()));
                    let is_one = job.stages.iter().filter(|other| other.stage == stage.stage).count() == 1;
                    bar.set_prefix(if is_one { stage.stage.as_str().into() } else { stage.model.clone() });
                    self.stages.push((stage.stage, stage.model.clone(), bar));
                    &self.stages.last().expect("just pushed").2
                }
            };
            bar.set_length(stage.counts.total.max(0).unsigned_abs());
            bar.set_position(stage.counts.ended().max(0).unsigned_abs());
            let now_running = stage.counts.waiting + stage.counts.running > 0;
            bar.set_message(if now_running { rate(job) } else { String::new() });
        }
    }

    /// Where nobody watches a terminal: a line for every tenth of the items.
    fn print(&mut self, job: &Job) {
        let tenths = (job.counts.ended() * 10).checked_div(job.counts.total).unwrap_or(0);
        let stage = job.stages.iter().rev().find(|stage| stage.begun).map(|stage| stage.stage.as_str());
        let key = format!("{stage:?} {tenths} {}", job.state.as_str());
        if key != self.last_line {
            self.last_line = key;
            eprintln!("{:<12} {} {}", stage.unwrap_or_default(), report::counts(&job.counts), rate(job));
        }
    }

    pub fn finish(&self) {
        self.stages.iter().for_each(|(.., bar)| bar.abandon());
    }
}

fn rate(job: &Job) -> String {
    if let Some(waits) = job.waiting_for.first()
        && job.counts.running == 0
        && job.throughput.is_none()
    {
        return waits.detail.clone();
    }
    let left = job.eta.as_ref().and_then(report::left);
    let rate = job.throughput.as_ref().map(|rate| {
        format!("{:.0} tok/s in, {:.0} tok/s out", rate.prompt_tokens_per_s, rate.output_tokens_per_s)
    });
    rate.into_iter().chain(left).collect::<Vec<_>>().join(", ")
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:>13} [{bar:30}] {pos:>5}/{len:<5} {msg}")
        .expect("the template is a constant")
        .progress_chars("=> ")
}
