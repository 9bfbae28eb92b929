//! What the user typed, exactly; nothing is resolved here.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use uuid::Uuid;

use super::demo::known_models;
use super::report::Style;
use crate::config::settings::Device;
use crate::domain::code::Code;
use crate::domain::key::{DEFAULT_TENANT, Scope};
use crate::domain::task::Task;

#[derive(Parser)]
#[command(
    name = "adit",
    version,
    about = "Self-hosted batch extraction: bulk jobs in, schema-valid JSON out",
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 the job ended with items that did not succeed, \
                  4 no such job or model, 5 the server cannot be reached, 6 timed out."
)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Args)]
pub struct Global {
    /// Settings file; `adit.toml` of this folder is read if it is there
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the server listens
    #[arg(
        long,
        global = true,
        env = "ADIT_SERVER",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub server: String,
    /// API key of the server; better given by the environment, where other users of the machine do not see it
    #[arg(long, global = true, env = "ADIT_KEY", hide_env_values = true, value_name = "KEY")]
    pub key: Option<String>,
    /// How answers are printed [default: table on a terminal, plain elsewhere]
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
    /// The same as --output json: one JSON document on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// What is logged to stderr, as in `info,adit=debug`
    #[arg(long, global = true, env = "ADIT_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// Send spans of jobs, items and steps to this OpenTelemetry collector, as `http://host:4318`
    #[arg(long, global = true, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Logs as JSON lines
    #[arg(long, global = true, env = "ADIT_LOG_JSON")]
    pub log_json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Boxes for people
    Table,
    /// One JSON document
    Json,
    /// Cells between tabs, a line each, without a head and nothing left out
    Plain,
}

impl Global {
    pub fn is_json(&self) -> bool {
        self.json || self.output == Some(OutputFormat::Json)
    }

    /// How rows are laid out where the answer is no JSON.
    pub fn style(&self) -> Style {
        match self.output {
            Some(OutputFormat::Table) => Style::Table,
            Some(OutputFormat::Plain) => Style::Plain,
            Some(OutputFormat::Json) | None if std::io::stdout().is_terminal() => Style::Table,
            Some(OutputFormat::Json) | None => Style::Plain,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run API, workers and models in one process; private Postgres if no DATABASE_URL
    Serve(ServeArguments),
    /// Start everything, fetch a small real model, extract a data model from a sample database
    Demo(DemoArguments),
    /// Submit a job
    Submit(SubmitArguments),
    /// Say what a job would take, and submit nothing: items, prompt tokens, time
    Estimate(SubmitArguments),
    /// List jobs, newest first, or show one
    Jobs(JobsArguments),
    /// Follow a job until it ends
    Watch {
        job: String,
        /// Give up after this many seconds (exit code 6)
        #[arg(long, value_name = "S")]
        timeout: Option<f64>,
    },
    /// Lines in on stdin, answers out on stdout, in the same order and as soon as they are there
    Stream(StreamArguments),
    /// Print a job's results, or the data model it found
    Results(ResultsArguments),
    /// Show what a job submitted with --since found beside what the earlier job had found
    Diff { job: String },
    /// End a job: waiting items at once, running ones within a step
    Cancel { job: String },
    /// Run failed items of a job again
    Retry {
        job: String,
        /// Only items that failed with this code
        #[arg(long)]
        code: Option<Code>,
    },
    /// Delete a job with its items and results
    Delete { job: String },
    /// Show models and their readiness, or load and unload one
    Models(ModelsArguments),
    /// Watch models, queue and batches live in the terminal
    Top(TopArguments),
    /// Make, list and revoke API keys, in the database itself: the first key has to come from somewhere
    Keys(KeysArguments),
    /// Bring the database's schema up to date
    Migrate(StorageArguments),
    /// Check database, models, memory and limits, and say what to do
    Doctor(ServeArguments),
    /// Measure a whole workload against a running server, and against a peer in turn
    Bench(BenchArguments),
    /// Measure what each of the engine's levers gives: one server after the other with some of them off
    Ablation(AblationArguments),
    /// Print the completions of a shell: `adit completions bash > /etc/bash_completion.d/adit`
    Completions { shell: clap_complete::Shell },
    /// Print the manual page, or write a page for each command
    Man {
        /// Write `adit.1`, `adit-submit.1` and so on into this folder
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

#[derive(Clone, Debug, Default, Args)]
pub struct StorageArguments {
    /// Private Postgres and model cache live here [default: .adit]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Use this Postgres instead of a private one
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
}

#[derive(Clone, Debug, Default, Args)]
pub struct ServeArguments {
    #[command(flatten)]
    pub storage: StorageArguments,
    /// Address to listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Ask nobody for an API key, whatever the address: everybody who reaches the port may do everything
    #[arg(long)]
    pub insecure_no_auth: bool,
    /// A model, as NAME=PATH or NAME=PATH+ADAPTER; repeatable. PATH is a directory, a .gguf file or a hub id
    #[arg(long = "model", value_name = "NAME=PATH", value_parser = parse_model)]
    pub models: Vec<ModelArgument>,
    /// Where models run: auto, cpu or cuda:N [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<Device>,
    /// Threads of the numerics; 0: the cores this process may use
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

#[derive(Clone, Debug)]
pub struct ModelArgument {
    pub name: String,
    pub path: String,
    pub adapter: Option<String>,
}

fn parse_model(text: &str) -> Result<ModelArgument, String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=PATH or NAME=PATH+ADAPTER")?;
    let (path, adapter) = match path.split_once('+') {
        Some((path, adapter)) => (path, Some(adapter.to_string())),
        None => (path, None),
    };
    Ok(ModelArgument { name: name.into(), path: path.into(), adapter })
}

#[derive(Clone, Debug, Args)]
pub struct DemoArguments {
    #[command(flatten)]
    pub storage: StorageArguments,
    /// A known package's name, a directory, a .gguf file or a hub id; --help lists the packages
    #[arg(long, default_value = "smollm2-135m", value_name = "MODEL", long_help = known_models())]
    pub model: String,
    /// Your own schema instead of the sample database
    #[arg(long, value_name = "FILE|URL")]
    pub from: Option<String>,
    /// Stop afterwards instead of leaving the server running
    #[arg(long)]
    pub once: bool,
    /// Address to listen on; a free port is taken if it is in use [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
}

#[derive(Clone, Debug, Args)]
pub struct SubmitArguments {
    /// What to extract
    #[arg(long, default_value = "data_model")]
    pub task: Task,
    /// A .sql, .csv, .json or .jsonl file, a SQLite file, `-` for stdin, or postgres://… or mysql://… to read a live
    /// database. A .json file is a list of table names, a catalog, or dbt's manifest.json
    #[arg(long, value_name = "FILE|URL")]
    pub from: String,
    /// What `--from` holds, if its ending does not say
    #[arg(long, value_enum)]
    pub format: Option<SourceFormat>,
    /// Password of a live database, which need not stand in its address; better given by the environment
    #[arg(long, env = "ADIT_SOURCE_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    pub source_password: Option<String>,
    /// Schemas of a live database to read, separated by commas [default: all but the system's; of MySQL the address's
    /// own database]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub schemas: Vec<String>,
    /// SQL dialect of a .sql file
    #[arg(long, default_value = "auto", value_parser = ["auto", "postgres", "mysql", "sqlite", "mssql"])]
    pub dialect: String,
    /// Keep what can be read of the source, list what cannot, each part with line and column
    #[arg(long)]
    pub lenient: bool,
    #[command(flatten)]
    pub ask: AskArguments,
    /// Mark facts of a lower confidence for review, from 0 to 1 (schema tasks; 0.5 if not given)
    #[arg(long, value_name = "CONFIDENCE", value_parser = confidence)]
    pub review_below: Option<f64>,
    /// Ask only about tables that have changed since this job, which has ended, and take its answers for the others:
    /// same task, model and generation options
    #[arg(long, value_name = "JOB")]
    pub since: Option<Uuid>,
    /// Submitting again with the same key and body gives the same job
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Follow the job until it ends
    #[arg(long)]
    pub watch: bool,
}

/// How items are asked.
#[derive(Clone, Debug, Default, Args)]
pub struct AskArguments {
    /// JSON Schema of the answers (task custom)
    #[arg(long, value_name = "FILE")]
    pub schema: Option<PathBuf>,
    /// What to extract, in words (task custom)
    #[arg(long, value_name = "TEXT")]
    pub instructions: Option<String>,
    /// Serve every stage with this model
    #[arg(long)]
    pub model: Option<String>,
    #[arg(long)]
    pub max_tokens: Option<u32>,
    #[arg(long)]
    pub temperature: Option<f32>,
    #[arg(long)]
    pub seed: Option<u64>,
    #[arg(long, value_enum)]
    pub class: Option<ClassArgument>,
    /// Share among jobs of the same class, in percent of an ordinary job's (1 to 1000)
    #[arg(long, value_name = "PERCENT")]
    pub weight: Option<i16>,
    /// Items that have not ended by then expire
    #[arg(long, value_name = "S")]
    pub expires_in: Option<u64>,
}

#[derive(Clone, Debug, Args)]
pub struct StreamArguments {
    /// What to extract; one that reads texts
    #[arg(long, default_value = "custom")]
    pub task: Task,
    #[command(flatten)]
    pub ask: AskArguments,
    /// Lines that are submitted together, at most
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub lines: u32,
    /// Lines that have come are submitted after this time, however few they are
    #[arg(long, default_value_t = 200, value_name = "MS")]
    pub linger: u64,
    /// Submissions under way; reading waits for them
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub in_flight: u32,
    /// Wait this long for a server that does not answer
    #[arg(long, default_value_t = 60.0, value_name = "S")]
    pub patience: f64,
}

#[derive(Clone, Debug, Args)]
pub struct TopArguments {
    /// Seconds between looks
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    pub every: f64,
    /// Print once and end, as where stdout is no terminal
    #[arg(long)]
    pub once: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SourceFormat {
    Ddl,
    Csv,
    Tables,
    Catalog,
    Dbt,
    Jsonl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClassArgument {
    Bulk,
    Normal,
    Interactive,
}

#[derive(Clone, Debug, Args)]
pub struct JobsArguments {
    /// Show this job only
    pub job: Option<String>,
    #[arg(long, value_parser = ["queued", "running", "completed", "cancelled", "failed"])]
    pub state: Option<String>,
    #[arg(long)]
    pub task: Option<Task>,
    #[arg(long, default_value_t = 20)]
    pub limit: u32,
}

#[derive(Clone, Debug, Args)]
pub struct ResultsArguments {
    pub job: String,
    /// `ndjson` streams item by item; the others need a schema job and print the whole model
    #[arg(long, value_enum, default_value = "ndjson")]
    pub format: ResultFormat,
    /// Only items with this outcome
    #[arg(long, value_parser = ["succeeded", "failed", "cancelled", "expired"])]
    pub outcome: Option<String>,
    /// Of `ndjson`: only items of a lower confidence; of the others: mark such facts for review (0 to 1)
    #[arg(long, value_name = "CONFIDENCE", value_parser = confidence)]
    pub below: Option<f64>,
    /// Continue behind this item number
    #[arg(long, value_name = "SEQ")]
    pub after: Option<i64>,
    /// Of `ndjson`: wait for the results of a running job until it ends
    #[arg(long)]
    pub follow: bool,
    /// Write to a file instead of stdout
    #[arg(long, short = 'o', value_name = "FILE")]
    pub to: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ResultFormat {
    Ndjson,
    Json,
    Mermaid,
    Turtle,
    R2rml,
    Shacl,
    Csv,
    Dbt,
    Dot,
}

#[derive(Clone, Debug, Args)]
pub struct ModelsArguments {
    #[command(subcommand)]
    pub action: Option<ModelAction>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum ModelAction {
    /// Start loading a model
    Load { model: String },
    /// Let running items finish, then free the model's memory
    Unload { model: String },
    /// Wait until a model is ready
    Wait {
        model: String,
        #[arg(long, default_value_t = 300.0, value_name = "S")]
        timeout: f64,
    },
}

#[derive(Clone, Debug, Args)]
pub struct KeysArguments {
    #[command(flatten)]
    pub storage: StorageArguments,
    #[command(subcommand)]
    pub action: KeyAction,
}

#[derive(Clone, Debug, Subcommand)]
pub enum KeyAction {
    /// Make a key and print it, this once: only its hash is kept
    Create {
        /// What to call it
        #[arg(long)]
        name: String,
        /// Whose jobs and files its holder sees
        #[arg(long, default_value = DEFAULT_TENANT)]
        tenant: String,
        /// What its holder may do: submit, read, admin
        #[arg(long, value_delimiter = ',', default_value = "submit,read")]
        scopes: Vec<Scope>,
        /// Its life, as 90d, 12h or 30m [default: until it is revoked]
        #[arg(long, value_name = "TIME", value_parser = life)]
        expires: Option<Duration>,
        /// Requests a minute [default: any number]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        rate: Option<i32>,
        /// Tokens that may wait, estimated as a quarter of the inputs' bytes [default: any number]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
        max_queued_tokens: Option<i64>,
    },
    /// List keys, newest first
    List {
        /// Only of this tenant
        #[arg(long)]
        tenant: Option<String>,
    },
    /// End a key; servers notice within `http.key_cache_ms`
    Revoke {
        /// Its id or its prefix, as `list` shows them
        key: String,
    },
}

/// `90d`, `12h`, `30m`, `45s`.
fn life(text: &str) -> Result<Duration, String> {
    let wrong = || "it is a number and a unit, as in 90d, 12h or 30m".to_string();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        "d" => 24 * 3600,
        "h" => 3600,
        "m" => 60,
        "s" => 1,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let life = number.checked_mul(seconds).filter(|life| (1..=100 * 365 * 24 * 3600).contains(life));
    life.map(Duration::from_secs).ok_or_else(|| "a key lives from 1 second to 100 years".into())
}

#[derive(Clone, Debug, Args)]
pub struct BenchArguments {
    /// What is asked, and how often
    #[arg(long, value_enum, default_value = "attribute")]
    pub workload: Workload,
    /// Items of a run [default: the workload's own number]
    #[arg(long, value_name = "N")]
    pub items: Option<usize>,
    /// Runs of each side after one that is not counted; medians are reported
    #[arg(long, default_value_t = 3)]
    pub runs: usize,
    /// Jobs of the workload eta
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub jobs: usize,
    /// Seconds within which they come
    #[arg(long, default_value_t = 240.0, value_name = "S")]
    pub over: f64,
    /// The model that adit serves the workload with
    #[arg(long)]
    pub model: Option<String>,
    /// A server with OpenAI's chat completions: both sides get the same runs, in turn
    #[arg(long, value_name = "URL")]
    pub peer: Option<String>,
    /// The model that the peer is asked for [default: the first it lists]
    #[arg(long, value_name = "NAME")]
    pub peer_model: Option<String>,
    /// Requests that the peer has at a time
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub peer_concurrency: usize,
    /// A request that takes the peer longer than this is counted as its error
    #[arg(long, default_value_t = 600.0, value_name = "S")]
    pub peer_timeout: f64,
    /// The engine by itself, without a server, on random weights: workloads w1 to w6
    #[arg(long)]
    pub engine_only: bool,
    /// The shape of those weights
    #[arg(long, value_enum, default_value = "qwen2.5-0.5b")]
    pub shape: EngineShape,
    /// Where the engine runs: auto, cpu or cuda:N [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<Device>,
    /// Sequences of that engine that run at once [default: what suits the device]
    #[arg(long, value_name = "N")]
    pub max_sequences: Option<usize>,
    /// Tokens of one of its steps [default: what suits the device]
    #[arg(long, value_name = "N")]
    pub max_step_tokens: Option<usize>,
    /// Number of the first run; each run has a number of its own, and with it prompts of its own [default: from the clock]
    #[arg(long, value_name = "N")]
    pub first_run: Option<u64>,
}

#[derive(Clone, Debug, Args)]
pub struct AblationArguments {
    #[command(flatten)]
    pub serve: ServeArguments,
    /// What is asked
    #[arg(long, value_enum, default_value = "head")]
    pub workload: Workload,
    /// Items of a run
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub items: usize,
    /// Rounds over all settings; medians are reported
    #[arg(long, default_value_t = 3)]
    pub runs: usize,
    /// Only settings whose name holds this text
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// 256 prompts of 400 shared and 100 own tokens, answers of about 100 under a schema of enums
    Head,
    /// 64 prompts of 1,500 own tokens
    Long,
    /// 1,024 prompts of 60 tokens, answers of 30
    Tiny,
    /// 256 prompts of all three kinds
    Mixed,
    /// The attribute task over 256 tables of 8 columns; repeats its prompts, and has no peer
    Attribute,
    /// The custom task over 256 short letters; repeats its prompts, and has no peer
    Custom,
    /// Jobs of every task and of many sizes that come one by one: how far off the times are that were told of them
    Eta,
    /// Engine only: 1,024 prompts of 384 shared and 128 own tokens, 128 tokens out
    W1,
    /// Engine only: 256 prompts of 384 shared and 1,664 own tokens, 128 out
    W2,
    /// Engine only: 256 prompts of 64 own tokens, 512 out
    W3,
    /// Engine only: one prompt of 512 tokens, 128 out
    W4,
    /// Engine only: w1 under a JSON Schema, up to 160 out
    W5,
    /// Engine only: w1 over three adapters of rank 16 in turn
    W6,
}

/// Whose sizes random weights have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineShape {
    #[value(name = "qwen2.5-14b")]
    Qwen14b,
    #[value(name = "qwen2.5-0.5b")]
    Qwen05b,
    /// For a look at the command itself
    Tiny,
}

fn confidence(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "it is a number from 0 to 1".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_life_is_a_number_and_a_unit() {
        assert_eq!(life("90d"), Ok(Duration::from_secs(90 * 24 * 3600)));
        assert_eq!(life("30m"), Ok(Duration::from_secs(1800)));
        for wrong in ["", "d", "0d", "90", "-1d", "1w", "é", "99999999999999999999d", "40000d"] {
            assert!(life(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_model_is_name_path_and_adapter() {
        let model = parse_model("concept=/m/base+/m/concept").unwrap();
        assert_eq!(
            (model.name.as_str(), model.path.as_str(), model.adapter.as_deref()),
            ("concept", "/m/base", Some("/m/concept"))
        );
        assert!(parse_model("concept").is_err());
    }
}
