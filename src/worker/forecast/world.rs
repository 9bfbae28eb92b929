//! What a forecast is made from: engines, the models on them, and every job that has work left.

use crate::domain::id::JobId;

/// What steps of an engine cost: each one `step_s`, and `row_s` for each token that goes through it. So a token that
/// is decoded alone costs a whole step, and one of a long prompt next to nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    pub step_s: f64,
    pub row_s: f64,
}

impl Cost {
    /// Tokens per second of prompts alone, and of decoding with `sequences` at a time.
    pub fn rates(&self, sequences: f64, max_step_rows: f64) -> (f64, f64) {
        let prompt = max_step_rows / (self.step_s + self.row_s * max_step_rows);
        (prompt, sequences / (self.step_s + self.row_s * sequences))
    }
}

/// An engine, which all models on one base share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Engine {
    /// Absent: it has not been measured.
    pub cost: Option<Cost>,
    pub max_sequences: f64,
    /// Positions of its KV pool.
    pub kv_tokens: f64,
    pub max_step_rows: f64,
}

/// A model: jobs queue at its name, and share its engine with those of other models.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lane {
    pub engine: usize,
    /// Seconds until it serves; `None`: never, as things stand.
    pub ready_in_s: Option<f64>,
}

/// One item of a stage, on average.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Item {
    /// Tokens that go through the forward pass: of the prompt what the prefix cache has not, and the answer.
    pub rows: f64,
    /// Steps that it takes one after the other: tokens that are chosen, not forced, and the first.
    pub steps: f64,
    /// KV positions of its own.
    pub held: f64,
    /// Tokens that the engine's fairness charges it with.
    pub charge: f64,
}

/// Items of one stage at one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub lane: usize,
    pub waiting: f64,
    /// Claimed and not ended: work left, in whole items. Two that are half done are one.
    pub running: f64,
    /// The same in sequences: items, however far they are, by the claim that they are of.
    pub claims: Vec<(i64, f64)>,
    /// Absent: nobody can tell yet.
    pub item: Option<Item>,
    /// Of the next chunk in line; absent where none waits, or the stage has not begun.
    pub vtime: Option<i64>,
    /// Items of that chunk.
    pub chunk: f64,
}

impl Part {
    pub fn sequences(&self) -> f64 {
        self.claims.iter().map(|(_, items)| items).sum()
    }

    pub fn open(&self) -> f64 {
        self.waiting + self.running
    }
}

/// A job with the work it has left.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub id: JobId,
    /// Higher goes first.
    pub class: u8,
    /// Percent.
    pub weight: f64,
    /// Seconds until it comes: of jobs that are only expected.
    pub arrives_s: f64,
    /// Stages in order, each with its models; the first is the one at work.
    pub stages: Vec<Vec<Part>>,
}

/// How work is claimed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claims {
    pub chunk_items: f64,
    pub min_items: f64,
    pub max_items: f64,
    pub target_s: f64,
    pub in_hand: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct World {
    pub engines: Vec<Engine>,
    pub lanes: Vec<Lane>,
    /// By age, oldest first: among equals the elder is claimed first.
    pub jobs: Vec<Job>,
    pub claims: Claims,
}
