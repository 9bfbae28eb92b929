//! Commands on jobs: submit, list, watch, results, cancel, retry, delete.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use uuid::Uuid;

use super::args::{
    ClassArgument, Global, JobsArguments, ResultFormat, ResultsArguments, SourceFormat, SubmitArguments,
};
use super::exit::{Exit, Stop};
use super::output::{connect, print_json};
use super::progress::JobProgress;
use super::report;
use crate::client::Client;
use crate::domain::job::{Class, JobState};
use crate::domain::task::Task;
use crate::wire::job::{Job, JobsQuery};
use crate::wire::result::{ExportFormat, ResultsQuery};
use crate::wire::submit::{Dialect, Format, Generation, JobRequest, Source};

/// How often a watched job is looked at.
const LOOK: Duration = Duration::from_millis(300);

pub async fn submit(global: &Global, args: &SubmitArguments) -> Result<Exit> {
    let client = connect(global)?;
    let request = request(args).await?;
    let job = client.submit(&request, args.idempotency_key.as_deref()).await?;
    if !args.watch {
        if global.json {
            print_json(&job)?;
        } else {
            println!("{}", job.id);
            eprintln!("{} · adit watch {}", report::counts(&job.counts), job.id);
        }
        return Ok(Exit::Done);
    }
    let job = follow(&client, job.id, None).await?;
    show_end(global, &job)
}

/// What to submit, with the source read here: a database's credentials never leave this process.
pub async fn request(args: &SubmitArguments) -> Result<JobRequest> {
    let schema = args.schema.as_deref().map(read_schema).transpose()?;
    let (format, text) = read_source(args).await?;
    Ok(JobRequest {
        task: args.task,
        model: args.model.clone(),
        schema,
        instructions: args.instructions.clone(),
        generation: Generation {
            max_tokens: args.max_tokens,
            temperature: args.temperature,
            seed: args.seed,
            ..Generation::default()
        },
        class: match args.class {
            Some(ClassArgument::Bulk) => Class::Bulk,
            Some(ClassArgument::Interactive) => Class::Interactive,
            Some(ClassArgument::Normal) | None => Class::Normal,
        },
        expires_in_s: args.expires_in,
        inputs: None,
        source: Some(Source { format, text, dialect: Some(dialect(&args.dialect)), lenient: args.lenient }),
    })
}

fn dialect(word: &str) -> Dialect {
    match word {
        "postgres" => Dialect::Postgres,
        "mysql" => Dialect::Mysql,
        "sqlite" => Dialect::Sqlite,
        "mssql" => Dialect::Mssql,
        _ => Dialect::default(),
    }
}

fn read_schema(path: &Path) -> Result<serde_json::Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| Stop::new(Exit::Usage, format!("{}: {e}", path.display())).into())
}

async fn read_source(args: &SubmitArguments) -> Result<(Format, String)> {
    let from = args.from.as_str();
    if from.starts_with("postgres://") || from.starts_with("postgresql://") {
        let catalog =
            crate::store::introspect::read_postgres(from, None).await.context("reading the live database")?;
        return Ok((Format::Catalog, serde_json::to_string(&catalog)?));
    }
    let text = if from == "-" {
        std::io::read_to_string(std::io::stdin())?
    } else {
        std::fs::read_to_string(from).with_context(|| from.to_string())?
    };
    let format = match args.format {
        Some(SourceFormat::Ddl) => Format::Ddl,
        Some(SourceFormat::Csv) => Format::Csv,
        Some(SourceFormat::Tables) => Format::Tables,
        Some(SourceFormat::Catalog) => Format::Catalog,
        Some(SourceFormat::Jsonl) => Format::Jsonl,
        None => by_ending(from, args.task)?,
    };
    Ok((format, text))
}

fn by_ending(from: &str, task: Task) -> Result<Format> {
    match Path::new(from).extension().and_then(|e| e.to_str()) {
        Some("sql" | "ddl") => Ok(Format::Ddl),
        Some("csv") => Ok(Format::Csv),
        Some("json") => Ok(Format::Tables),
        Some("jsonl" | "ndjson") => Ok(Format::Jsonl),
        _ if !task.reads_catalog() => Ok(Format::Jsonl),
        _ => Err(Stop::new(Exit::Usage, format!("{from}: say what it is with --format")).into()),
    }
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
    if global.json {
        print_json(job)?;
    } else {
        print!("{}", report::job(job));
    }
    Ok(verdict(job))
}

pub async fn watch(global: &Global, job: &str, timeout_s: Option<f64>) -> Result<Exit> {
    let client = connect(global)?;
    let job = follow(&client, parse(job)?, timeout_s.map(Duration::from_secs_f64)).await?;
    show_end(global, &job)
}

pub async fn list(global: &Global, args: &JobsArguments) -> Result<Exit> {
    let client = connect(global)?;
    if let Some(job) = &args.job {
        let job = client.job(parse(job)?).await?;
        if global.json {
            print_json(&job)?;
        } else {
            print!("{}", report::job(&job));
        }
        return Ok(Exit::Done);
    }
    let state = args.state.as_deref().map(|word| {
        JobState::ALL.into_iter().find(|state| state.as_str() == word).expect("clap allows only these words")
    });
    let query = JobsQuery { state, task: args.task, limit: Some(args.limit), ..JobsQuery::default() };
    let page = client.jobs(&query).await?;
    if global.json {
        print_json(&page)?;
    } else {
        print!("{}", report::jobs(&page.jobs));
    }
    Ok(Exit::Done)
}

pub async fn results(global: &Global, args: &ResultsArguments) -> Result<Exit> {
    let client = connect(global)?;
    let id = parse(&args.job)?;
    let mut out: Box<dyn Write> = match &args.output {
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
        ResultFormat::Csv => Some(ExportFormat::Csv),
        ResultFormat::Dbt => Some(ExportFormat::Dbt),
    };
    match format {
        Some(format) => out.write_all(client.export(id, format).await?.as_bytes())?,
        None => {
            let outcome = args.outcome.as_ref().map(|word| serde_json::from_value(word.clone().into()));
            let query = ResultsQuery {
                after: args.after.map(i64::from),
                outcome: outcome.transpose()?,
                ..ResultsQuery::default()
            };
            let mut lines = std::pin::pin!(client.results_stream(id, &query).await?);
            while let Some(line) = lines.next().await {
                serde_json::to_writer(&mut out, &line?)?;
                out.write_all(b"\n")?;
            }
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}

pub async fn cancel(global: &Global, job: &str) -> Result<Exit> {
    let job = connect(global)?.cancel(parse(job)?).await?;
    if global.json {
        print_json(&job)?;
    } else {
        print!("{}", report::job(&job));
    }
    Ok(Exit::Done)
}

pub async fn retry(global: &Global, job: &str) -> Result<Exit> {
    let retried = connect(global)?.retry(parse(job)?).await?;
    if global.json {
        print_json(&retried)?;
    } else {
        println!("{} items wait again", retried.items);
    }
    Ok(Exit::Done)
}

pub async fn delete(global: &Global, job: &str) -> Result<Exit> {
    connect(global)?.delete(parse(job)?).await?;
    Ok(Exit::Done)
}

fn parse(job: &str) -> Result<Uuid> {
    Uuid::parse_str(job).map_err(|_| Stop::new(Exit::Usage, format!("'{job}' is not a job's id")).into())
}
