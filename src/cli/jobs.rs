//! Commands on jobs: submit, list, watch, results, cancel, retry, delete.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use serde_json::json;
use uuid::Uuid;

use super::args::{Global, JobsArguments, ResultFormat, ResultsArguments, SubmitArguments};
use super::exit::{Exit, Stop, seconds};
use super::output::{connect, print, print_json};
use super::progress::JobProgress;
use super::{ask, report, source};
use crate::client::Client;
use crate::domain::code::Code;
use crate::domain::job::JobState;
use crate::wire::job::{Job, JobsQuery};
use crate::wire::result::{ExportFormat, ExportQuery, ResultsQuery};
use crate::wire::submit::JobRequest;

/// How often a watched job is looked at.
const LOOK: Duration = Duration::from_millis(300);

pub async fn submit(global: &Global, args: &SubmitArguments) -> Result<Exit> {
    let client = connect(global)?;
    let job = send(&client, args).await?;
    tell_left_out(&job);
    if !args.watch {
        if global.is_json() {
            print_json(&job)?;
        } else {
            print(format_args!("{}\n", job.id))?;
            eprintln!("{} · adit watch {}", report::counts(&job.counts), job.id);
        }
        return Ok(Exit::Done);
    }
    let job = follow(&client, job.id, None).await?;
    show_end(global, &job)
}

pub async fn estimate(global: &Global, args: &SubmitArguments) -> Result<Exit> {
    let estimate = connect(global)?.estimate(&request(args).await?).await?;
    if global.is_json() {
        print_json(&estimate)?;
    } else {
        print(report::estimate(&estimate, global.style()))?;
    }
    Ok(Exit::Done)
}

/// What of the source is not part of the job, on stderr.
pub fn tell_left_out(job: &Job) {
    for part in &job.left_out {
        eprintln!("left out: line {}, column {}: {}", part.line, part.column, part.message);
    }
    if job.left_out_total > job.left_out.len() as u64 {
        eprintln!("left out: {} parts in all", job.left_out_total);
    }
}

/// Lines are streamed, however many they are; everything else is one document.
async fn send(client: &Client, args: &SubmitArguments) -> Result<Job> {
    let key = args.idempotency_key.as_deref();
    // what reads lines has no facts; the server says so
    if source::is_lines(args)? && args.review_below.is_none() {
        let query = ask::query(args.task, &args.ask, args.lenient)?;
        if client.fits_query(&query) {
            let from = args.from.as_str();
            return Ok(if from == "-" {
                client.submit_stream(&query, tokio::io::stdin(), key).await?
            } else {
                let file = tokio::fs::File::open(from).await.with_context(|| from.to_string())?;
                client.submit_stream(&query, file, key).await?
            });
        }
        eprintln!("the schema is too large for a streamed submission; the input is sent as one document");
    }
    Ok(client.submit(&request(args).await?, key).await?)
}

/// What to submit, with the source read here: a database's credentials never leave this process.
pub async fn request(args: &SubmitArguments) -> Result<JobRequest> {
    let request = ask::request(args.task, &args.ask, source::read(args).await?)?;
    Ok(JobRequest { review_below: args.review_below, ..request })
}

/// Follows a job to its end, with a bar on stderr.
pub async fn follow(client: &Client, id: Uuid, timeout: Option<Duration>) -> Result<Job> {
    let begun = Instant::now();
    let mut progress = JobProgress::new();
    loop {
        let job = client.job(id).await?;
        progress.show(&job);
        if job.state.is_final() {
            progress.finish();
            return Ok(job);
        }
        if timeout.is_some_and(|limit| begun.elapsed() > limit) {
            progress.finish();
            return Err(Stop::new(Exit::TimedOut, format!("job {id} is still {}", job.state.as_str())).into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether every item of a job that has ended succeeded.
pub fn verdict(job: &Job) -> Exit {
    let all = job.state == JobState::Completed && job.counts.succeeded == job.counts.total;
    if all { Exit::Done } else { Exit::NotAllSucceeded }
}

fn show_end(global: &Global, job: &Job) -> Result<Exit> {
    if global.is_json() {
        print_json(job)?;
    } else {
        print(report::job(job))?;
    }
    Ok(verdict(job))
}

pub async fn watch(global: &Global, job: &str, timeout_s: Option<f64>) -> Result<Exit> {
    let client = connect(global)?;
    let timeout = timeout_s.map(|value| seconds("--timeout", value)).transpose()?;
    let job = follow(&client, parse(job)?, timeout).await?;
    show_end(global, &job)
}

pub async fn list(global: &Global, args: &JobsArguments) -> Result<Exit> {
    let client = connect(global)?;
    if let Some(job) = &args.job {
        let job = client.job(parse(job)?).await?;
        if global.is_json() {
            print_json(&job)?;
        } else {
            print(report::job(&job))?;
        }
        return Ok(Exit::Done);
    }
    let state = args.state.as_deref().map(|word| {
        JobState::ALL.into_iter().find(|state| state.as_str() == word).expect("clap allows only these words")
    });
    let query = JobsQuery { state, task: args.task, limit: Some(args.limit), ..JobsQuery::default() };
    let page = client.jobs(&query).await?;
    if global.is_json() {
        print_json(&page)?;
    } else {
        print(report::jobs(&page.jobs, global.style()))?;
    }
    Ok(Exit::Done)
}

pub async fn results(global: &Global, args: &ResultsArguments) -> Result<Exit> {
    let client = connect(global)?;
    let id = parse(&args.job)?;
    let mut out: Box<dyn Write> = match &args.to {
        Some(path) => {
            let file = std::fs::File::create(path).with_context(|| format!("{}", path.display()))?;
            Box::new(std::io::BufWriter::new(file))
        }
        None => Box::new(std::io::stdout().lock()),
    };
    let format = match args.format {
        ResultFormat::Ndjson => None,
        ResultFormat::Json => Some(ExportFormat::Json),
        ResultFormat::Mermaid => Some(ExportFormat::Mermaid),
        ResultFormat::Turtle => Some(ExportFormat::Turtle),
        ResultFormat::R2rml => Some(ExportFormat::R2rml),
        ResultFormat::Shacl => Some(ExportFormat::Shacl),
        ResultFormat::Csv => Some(ExportFormat::Csv),
        ResultFormat::Dbt => Some(ExportFormat::Dbt),
        ResultFormat::Dot => Some(ExportFormat::Dot),
    };
    match format {
        Some(format) => {
            let query = ExportQuery { format, review_below: args.below };
            out.write_all(client.export(id, query).await?.as_bytes())?;
        }
        None => {
            let outcome = args.outcome.as_ref().map(|word| serde_json::from_value(word.clone().into()));
            let query = ResultsQuery {
                after: args.after,
                follow: args.follow.then_some(true),
                outcome: outcome.transpose()?,
                below: args.below,
                ..ResultsQuery::default()
            };
            let mut lines = std::pin::pin!(client.results_stream(id, &query).await?);
            while let Some(line) = lines.next().await {
                let mut text = serde_json::to_vec(&line?)?;
                text.push(b'\n');
                out.write_all(&text)?;
            }
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}

pub async fn cancel(global: &Global, job: &str) -> Result<Exit> {
    let job = connect(global)?.cancel(parse(job)?).await?;
    if global.is_json() {
        print_json(&job)?;
    } else {
        print(report::job(&job))?;
    }
    Ok(Exit::Done)
}

pub async fn retry(global: &Global, job: &str, code: Option<Code>) -> Result<Exit> {
    let retried = connect(global)?.retry(parse(job)?, code).await?;
    if global.is_json() {
        print_json(&retried)?;
    } else {
        print(format_args!("{} items wait again\n", retried.items))?;
    }
    Ok(Exit::Done)
}

pub async fn delete(global: &Global, job: &str) -> Result<Exit> {
    let id = parse(job)?;
    connect(global)?.delete(id).await?;
    if global.is_json() {
        print_json(&json!({"deleted": id}))?;
    }
    Ok(Exit::Done)
}

fn parse(job: &str) -> Result<Uuid> {
    Uuid::parse_str(job).map_err(|_| Stop::new(Exit::Usage, format!("'{job}' is not a job's id")).into())
}
