//! A mix of jobs as a service sees them: of every task, small and large, coming when they come.
//!
//! The same for the same seed. No two jobs have an input in common, so that of a prompt only the head that all jobs
//! of a task share can come from a prefix cache.

use serde_json::json;

use super::ours;
use super::workload::{self, Shape};
use crate::domain::job::Class;
use crate::domain::task::Task;
use crate::wire::submit::{Format, Generation, JobRequest, Source};

/// A job and when it comes.
pub struct Arrival {
    pub at_s: f64,
    pub kind: &'static str,
    pub items: usize,
    pub request: JobRequest,
}

/// A small job of each kind, for a service that has seen none: what it has not seen it cannot foresee.
pub fn one_of_each(seed: u64) -> Vec<Arrival> {
    let mut dice = Dice(seed ^ 0x5eed);
    KINDS.iter().enumerate().map(|(at, (kind, _))| arrival(kind, 4, 0.0, 900_000 + at, &mut dice)).collect()
}

/// `n` jobs within `over_s` seconds, by the time of their coming.
pub fn mix(n: usize, over_s: f64, seed: u64) -> Vec<Arrival> {
    let mut dice = Dice(seed);
    let mut times: Vec<f64> = (0..n).map(|_| dice.share() * over_s).collect();
    times.sort_by(f64::total_cmp);
    let draw = |(at, at_s): (usize, f64)| {
        let (kind, most) = KINDS[dice.below(KINDS.len())];
        // as many small ones as large ones: sizes differ by factors
        let items = (most as f64).powf(dice.share()).round().max(1.0) as usize;
        arrival(kind, items, at_s, at, &mut dice)
    };
    times.into_iter().enumerate().map(draw).collect()
}

/// What is asked, and most items (tables, of a data model) of one job.
const KINDS: [(&str, usize); 6] = [
    ("letters", 60),
    ("tickets", 40),
    ("lines", 120),
    ("reports", 8),
    ("attributes", 24),
    ("data_model", 10),
];

fn arrival(kind: &'static str, items: usize, at_s: f64, number: usize, dice: &mut Dice) -> Arrival {
    let chat = |shape| ours::request(&workload::workload(shape, items, 10_000 + number as u64), None);
    let mut request = match kind {
        "tickets" => chat(Shape::Head),
        "lines" => chat(Shape::Tiny),
        "reports" => chat(Shape::Long),
        "letters" => letters(items, number),
        "attributes" => tables(Task::Attribute, items, number, dice),
        _ => tables(Task::DataModel, items, number, dice),
    };
    request.class = match dice.below(10) {
        0 => Class::Bulk,
        1 => Class::Interactive,
        _ => Class::Normal,
    };
    request.weight = (dice.below(8) == 0).then_some(300);
    Arrival { at_s, kind, items, request }
}

fn letters(n: usize, number: usize) -> JobRequest {
    let ask = workload::workload(Shape::Head, n, 50_000 + number as u64);
    let inputs = ask.items.iter().map(|item| json!(item.messages[1].content)).collect();
    let schema = json!({
        "type": "object",
        "properties": {
            "wish": {"enum": ["replacement", "tracking", "reorder", "refund", "other"]},
            "urgency": {"enum": ["low", "normal", "high"]},
            "product": {"type": "string", "maxLength": 40},
            "summary": {"type": "string", "maxLength": 120}
        },
        "required": ["wish", "urgency", "product", "summary"],
        "additionalProperties": false
    });
    JobRequest {
        schema: Some(schema),
        instructions: Some("Read the letter: what is wanted, how urgent it is, and of which product.".into()),
        inputs: Some(inputs),
        ..plain(Task::Custom)
    }
}

const NOUNS: [&str; 8] =
    ["order", "invoice", "parcel", "customer", "payment", "product", "supplier", "visit"];
const COLUMNS: [&str; 10] = [
    "name varchar(80) not null",
    "created_at timestamptz",
    "total_cents integer",
    "status varchar(16)",
    "email varchar(120)",
    "is_active boolean",
    "weight_kg numeric(8,3)",
    "country_code char(2)",
    "note text",
    "due_on date",
];

/// Tables of 3 to 9 columns, most of which point at an earlier one.
fn tables(task: Task, n: usize, number: usize, dice: &mut Dice) -> JobRequest {
    let mut text = String::new();
    let name = |at: usize| format!("{}_{number}_{at}", NOUNS[at % NOUNS.len()]);
    for at in 0..n {
        let from = dice.below(COLUMNS.len());
        let columns = (0..2 + dice.below(6)).map(|k| COLUMNS[(from + k) % COLUMNS.len()].to_string());
        let mut parts: Vec<String> =
            std::iter::once("id bigint primary key".to_string()).chain(columns).collect();
        if at > 0 && dice.below(4) > 0 {
            let to = name(dice.below(at));
            parts.push(format!("{to}_id bigint references {to} (id)"));
        }
        text.push_str(&format!("create table {} ({});\n", name(at), parts.join(", ")));
    }
    let source = Source { format: Format::Ddl, text, dialect: None, lenient: false };
    JobRequest { source: Some(source), ..plain(task) }
}

fn plain(task: Task) -> JobRequest {
    JobRequest {
        task,
        model: None,
        schema: None,
        instructions: None,
        generation: Generation::default(),
        class: Class::Normal,
        weight: None,
        expires_in_s: None,
        review_below: None,
        inputs: None,
        source: None,
        since: None,
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// From 0 to below 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_the_same_every_time_and_has_every_kind() {
        let (one, again) = (mix(60, 100.0, 7), mix(60, 100.0, 7));
        for (a, b) in one.iter().zip(&again) {
            assert_eq!((a.at_s, a.kind, a.items), (b.at_s, b.kind, b.items));
            let text = |arrival: &Arrival| serde_json::to_string(&arrival.request).unwrap();
            assert_eq!(text(a), text(b));
        }
        for (kind, most) in KINDS {
            let sizes: Vec<usize> = one.iter().filter(|job| job.kind == kind).map(|job| job.items).collect();
            assert!(
                !sizes.is_empty() && sizes.iter().all(|items| (1..=most).contains(items)),
                "{kind} {sizes:?}"
            );
        }
        assert!(one.is_sorted_by_key(|job| job.at_s) && one.iter().all(|job| job.at_s < 100.0));
        assert_eq!(one_of_each(7).len(), KINDS.len());
    }
}
