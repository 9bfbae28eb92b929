//! Commands. The only place that prints: results on stdout, progress and logs on stderr.

mod args;
mod ask;
mod bench;
mod demo;
mod diff;
mod doctor;
mod exit;
mod jobs;
mod keys;
mod manual;
mod models;
mod output;
mod progress;
mod report;
mod serve;
mod settings;
mod source;
mod stream;
mod top;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::client::ClientError;
use crate::config::ConfigError;
use crate::domain::code::Code;
use crate::telemetry::log;
use crate::telemetry::trace::Exporter;

use args::{Arguments, Command, Global};
use exit::{Exit, Stop};

/// Reads the command line, runs the command, prints an error once, and gives the exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let format = if arguments.global.log_json { log::Format::Json } else { log::Format::Text };
    let quiet = matches!(arguments.command, Command::Demo(_));
    let default = if quiet { Some("warn") } else { None };
    let exporter = match arguments.global.otlp_endpoint.as_deref().map(Exporter::new).transpose() {
        Ok(exporter) => exporter,
        Err(error) => {
            eprintln!("error: {error}");
            return Exit::Usage.into();
        }
    };
    if let Err(error) = log::init(format, arguments.global.log.as_deref().or(default), exporter.as_ref()) {
        eprintln!("error: {error}");
        return Exit::Usage.into();
    }
    if let Some(exporter) = &exporter {
        exporter.install();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no async runtime: {error}");
            return Exit::Failed.into();
        }
    };
    let exit = match runtime.block_on(run(&arguments.global, &arguments.command)) {
        Ok(exit) => exit,
        Err(error) if output::is_reader_gone(&error) => Exit::Done,
        Err(error) => {
            eprintln!("error: {error:#}");
            exit_of(&error)
        }
    };
    // a read of stdin that nobody waits for must not keep the process
    runtime.shutdown_background();
    if let Some(exporter) = &exporter {
        exporter.shutdown();
    }
    exit.into()
}

async fn run(global: &Global, command: &Command) -> Result<Exit> {
    match command {
        Command::Serve(args) => serve::run(global, args).await,
        Command::Demo(args) => demo::run(global, args).await,
        Command::Submit(args) => jobs::submit(global, args).await,
        Command::Estimate(args) => jobs::estimate(global, args).await,
        Command::Jobs(args) => jobs::list(global, args).await,
        Command::Watch { job, timeout } => jobs::watch(global, job, *timeout).await,
        Command::Stream(args) => stream::run(global, args).await,
        Command::Top(args) => top::run(global, args).await,
        Command::Completions { shell } => manual::completions(*shell),
        Command::Man { dir } => manual::pages(dir.as_deref()),
        Command::Results(args) => jobs::results(global, args).await,
        Command::Diff { job } => diff::run(global, job).await,
        Command::Cancel { job } => jobs::cancel(global, job).await,
        Command::Retry { job, code } => jobs::retry(global, job, *code).await,
        Command::Delete { job } => jobs::delete(global, job).await,
        Command::Models(args) => models::run(global, args).await,
        Command::Keys(args) => keys::run(global, args).await,
        Command::Migrate(args) => serve::migrate(global, args).await,
        Command::Doctor(args) => doctor::run(global, args).await,
        Command::Bench(args) => bench::run(global, args).await,
        Command::Ablation(args) => bench::ablation::run(global, args).await,
    }
}

fn exit_of(error: &anyhow::Error) -> Exit {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return stop.exit;
    }
    if error.downcast_ref::<ConfigError>().is_some() {
        return Exit::Usage;
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Unreachable { .. }) => Exit::Unreachable,
        Some(ClientError::Url { .. }) => Exit::Usage,
        Some(ClientError::Problem(problem)) => match problem.code {
            Code::NotFound | Code::UnknownModel => Exit::NotFound,
            Code::RequestTimeout => Exit::TimedOut,
            // a key that is missing or lacks a scope is a matter of settings
            code if matches!(code.status(), 400 | 401 | 403 | 422) => Exit::Usage,
            _ => Exit::Failed,
        },
        _ => Exit::Failed,
    }
}
