//! `adit bench`: a whole extraction workload against a running server, through the same door as any client.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use super::args::{BenchArguments, Global, Workload};
use super::exit::{Exit, Stop};
use super::jobs;
use super::output::{connect, print_json};
use crate::client::Client;
use crate::domain::job::{Class, JobState};
use crate::domain::task::Task;
use crate::wire::submit::{Format, Generation, JobRequest, Source};

/// Columns of each table of the `attribute` workload, hence of each of its items.
const COLUMNS: usize = 8;

/// One counted run.
#[derive(Clone, Debug, Serialize)]
struct Run {
    /// From the submission's first byte to the last committed result, seconds.
    wall_s: f64,
    items: i64,
    succeeded: i64,
    items_per_s: f64,
    prompt_tokens_per_s: f64,
    output_tokens_per_s: f64,
    /// Prompt tokens found in the prefix cache, of all prompt tokens.
    prefix_hit_share: f64,
    /// Output tokens that were forced, of all output tokens.
    forced_share: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    workload: String,
    items: usize,
    runs: Vec<Run>,
    /// The run with the median wall time.
    median: Run,
}

pub async fn run(global: &Global, args: &BenchArguments) -> Result<Exit> {
    if args.items == 0 || args.runs == 0 {
        return Err(Stop::new(Exit::Usage, "--items and --runs must be at least 1").into());
    }
    let client = connect(global)?;
    let request = workload(args);
    eprintln!("warm-up");
    measure(&client, &request).await?;
    let mut runs = Vec::with_capacity(args.runs);
    for n in 1..=args.runs {
        let run = measure(&client, &request).await?;
        eprintln!("run {n}: {:.2} s, {:.2} items/s", run.wall_s, run.items_per_s);
        runs.push(run);
    }
    let mut by_wall = runs.clone();
    by_wall.sort_by(|a, b| a.wall_s.total_cmp(&b.wall_s));
    let median = by_wall[by_wall.len() / 2].clone();
    let all_succeeded = runs.iter().all(|run| run.succeeded == run.items);
    let report =
        Report { workload: format!("{:?}", args.workload).to_lowercase(), items: args.items, runs, median };
    if global.json {
        print_json(&report)?;
    } else {
        print!("{}", text(&report));
    }
    Ok(if all_succeeded { Exit::Done } else { Exit::NotAllSucceeded })
}

fn text(report: &Report) -> String {
    let run = &report.median;
    let mut out = String::new();
    let _ =
        writeln!(out, "{} x {} items, median of {} runs", report.workload, report.items, report.runs.len());
    for (name, value) in [
        ("wall s", run.wall_s),
        ("items/s", run.items_per_s),
        ("prompt tokens/s", run.prompt_tokens_per_s),
        ("output tokens/s", run.output_tokens_per_s),
        ("prefix hit share", run.prefix_hit_share),
        ("forced share", run.forced_share),
    ] {
        let _ = writeln!(out, "{name:>18}  {value:.3}");
    }
    out
}

async fn measure(client: &Client, request: &JobRequest) -> Result<Run> {
    let begun = Instant::now();
    let submitted = client.submit(request, None).await?;
    let job = jobs::follow(client, submitted.id, None).await?;
    let wall_s = begun.elapsed().as_secs_f64();
    if job.state != JobState::Completed {
        bail!("job {} ended {}", job.id, job.state.as_str());
    }
    let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let usage = job.usage;
    Ok(Run {
        wall_s,
        items: job.counts.total,
        succeeded: job.counts.succeeded,
        items_per_s: job.counts.total as f64 / wall_s,
        prompt_tokens_per_s: usage.prompt_tokens as f64 / wall_s,
        output_tokens_per_s: usage.output_tokens as f64 / wall_s,
        prefix_hit_share: share(usage.prefix_hit_tokens, usage.prompt_tokens),
        forced_share: share(usage.forced_tokens, usage.output_tokens),
    })
}

fn workload(args: &BenchArguments) -> JobRequest {
    let (task, source, schema, instructions) = match args.workload {
        Workload::Attribute => {
            let source = Source {
                format: Format::Catalog,
                text: catalog(args.items).to_string(),
                dialect: None,
                lenient: false,
            };
            (Task::Attribute, source, None, None)
        }
        Workload::Custom => {
            let source =
                Source { format: Format::Jsonl, text: letters(args.items), dialect: None, lenient: false };
            let instructions =
                "Read the letter. Say what the customer wants, how urgent it is, and name the product.";
            (Task::Custom, source, Some(letter_schema()), Some(instructions.to_string()))
        }
    };
    JobRequest {
        task,
        model: args.model.clone(),
        schema,
        instructions,
        generation: Generation::default(),
        class: Class::Normal,
        weight: None,
        expires_in_s: None,
        inputs: None,
        source: Some(source),
    }
}

const NOUNS: [&str; 12] = [
    "order", "invoice", "shipment", "customer", "payment", "product", "supplier", "ticket", "contract",
    "visit", "device", "reading",
];
const FIELDS: [(&str, &str); 12] = [
    ("name", "varchar(80)"),
    ("created_at", "timestamptz"),
    ("total_cents", "integer"),
    ("status", "varchar(16)"),
    ("email", "varchar(120)"),
    ("is_active", "boolean"),
    ("weight_kg", "numeric(8,3)"),
    ("country_code", "char(2)"),
    ("note", "text"),
    ("due_on", "date"),
    ("quantity", "integer"),
    ("reference_no", "varchar(24)"),
];

/// `n` tables of [`COLUMNS`] columns each, no two alike.
fn catalog(n: usize) -> Value {
    let tables: Vec<Value> = (0..n)
        .map(|at| {
            let name = format!("{}_{:04}", NOUNS[at % NOUNS.len()], at);
            let id = json!({"name": format!("{}_id", NOUNS[at % NOUNS.len()]), "data_type": "bigint", "nullable": false});
            let rest = (1..COLUMNS).map(|c| {
                let (field, data_type) = FIELDS[(at * 5 + c) % FIELDS.len()];
                json!({"name": field, "data_type": data_type, "nullable": (at + c) % 3 == 0})
            });
            json!({"name": name, "columns": std::iter::once(id).chain(rest).collect::<Vec<_>>(),
                   "primary_key": [format!("{}_id", NOUNS[at % NOUNS.len()])]})
        })
        .collect();
    json!({"tables": tables})
}

fn letters(n: usize) -> String {
    let products = ["desk lamp", "oak shelf", "bread maker", "rain jacket", "travel adapter"];
    let wishes = [
        "arrived with a crack and I would like another one",
        "has not arrived after three weeks, please say where it is",
        "works well, and I want to order two more of the same kind",
        "is not what I expected, so I am sending it back for a refund",
    ];
    (0..n).fold(String::new(), |mut out, at| {
        let text = format!(
            "Letter {at}. Good day, the {} I ordered on day {} {}. Kind regards, customer {}.",
            products[at % products.len()],
            at % 28 + 1,
            wishes[at % wishes.len()],
            1000 + at
        );
        let _ = writeln!(out, "{}", json!({ "text": text }));
        out
    })
}

fn letter_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "intent": {"enum": ["replacement", "tracking", "reorder", "refund"]},
            "urgency": {"enum": ["low", "normal", "high"]},
            "product": {"type": "string"},
            "summary": {"type": "string"}
        },
        "required": ["intent", "urgency", "product", "summary"],
        "additionalProperties": false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_have_as_many_items_as_asked_for() {
        assert_eq!(letters(7).lines().count(), 7);
        let catalog: crate::domain::catalog::Catalog = serde_json::from_value(catalog(9)).unwrap();
        assert_eq!(catalog.tables.len(), 9);
        assert!(catalog.tables.iter().all(|table| table.columns.len() == COLUMNS));
        let mut names: Vec<_> = catalog.tables.iter().map(|table| &table.name).collect();
        names.dedup();
        assert_eq!(names.len(), 9);
    }
}
