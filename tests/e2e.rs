//! The binary as users run it: real process, private Postgres, small random models, HTTP and the CLI.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use adit::client::Client;
use adit::domain::job::JobState;
use adit::wire::job::Job;
use adit::wire::result::ResultsQuery;
use adit::wire::submit::JobRequest;
use futures::StreamExt;
use support::tiny::{Arch, tiny_model};
use tempfile::TempDir;
use uuid::Uuid;

mod support;

/// Short leases, so that the work of a killed process is taken up soon.
const CONFIG: &str = "[queue]\nlease_ms = 4000\nrenew_ms = 1000\nrescue_ms = 500\n";

struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// Three models on one base, named as the environment names them.
    fn start(dir: &Path, model: &Path) -> Self {
        std::fs::write(dir.join("adit.toml"), CONFIG).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_adit"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .current_dir(dir)
            .env_remove("DATABASE_URL")
            .env("ADIT_DATA_DIR", dir.join("data"))
            .env("CONCEPT_MODEL_PATH", model)
            .env("RELATIONSHIP_MODEL_PATH", model)
            .env("ATTRIBUTE_MODEL_PATH", model)
            .env("GPU_MEMORY_UTILIZATION", "0.5")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("adit listens on ").expect("the address").to_string();
        Self { child, url }
    }

    fn client(&self) -> Client {
        Client::new(&self.url).unwrap()
    }

    fn adit(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_adit")).args(["--server", &self.url]).args(args).output().unwrap()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // the private Postgres ends with its parent
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder() -> (TempDir, std::path::PathBuf) {
    let dir = TempDir::new().unwrap();
    let model = tiny_model(dir.path().join("model"), Arch::Llama, 7);
    (dir, model)
}

async fn until(client: &Client, job: Uuid, limit: Duration, done: impl Fn(&Job) -> bool) -> Job {
    let begun = Instant::now();
    loop {
        let job = client.job(job).await.unwrap();
        assert!(job.counts.adds_up(), "{:?}", job.counts);
        if done(&job) {
            return job;
        }
        assert!(begun.elapsed() < limit, "still {:?} after {limit:?}", job.counts);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_killed_server_loses_nothing_and_doubles_nothing() {
    let (dir, model) = folder();
    let mut server = Server::start(dir.path(), &model);
    let request: JobRequest = serde_json::from_value(serde_json::json!({
        "task": "custom",
        "schema": {"type": "object", "properties": {"kind": {"enum": ["letter", "bill", "note"]}},
                   "required": ["kind"], "additionalProperties": false},
        "instructions": "What kind of text is it?",
        "inputs": (0..2_000).map(|n| format!("text {n}")).collect::<Vec<_>>(),
    }))
    .unwrap();
    let job = server.client().submit(&request, Some("once")).await.unwrap().id;
    let before =
        until(&server.client(), job, Duration::from_secs(120), |job| job.counts.succeeded >= 50).await;
    server.kill();
    assert!(before.counts.succeeded < 2_000, "the job ended before the server could be killed");

    let mut server = Server::start(dir.path(), &model);
    let client = server.client();
    let restarted = Instant::now();
    let had = before.counts.succeeded;
    until(&client, job, Duration::from_secs(60), |job| job.counts.succeeded > had).await;
    assert!(restarted.elapsed() < Duration::from_secs(30), "{:?} until work went on", restarted.elapsed());
    let ended = until(&client, job, Duration::from_secs(300), |job| job.state.is_final()).await;
    assert_eq!(ended.state, JobState::Completed);
    assert_eq!((ended.counts.total, ended.counts.succeeded), (2_000, 2_000));
    let results: Vec<_> = client
        .results_stream(job, &ResultsQuery::default())
        .await
        .unwrap()
        .map(Result::unwrap)
        .collect()
        .await;
    let seqs: BTreeSet<i64> = results.iter().map(|result| result.seq).collect();
    assert_eq!((results.len(), seqs.len(), seqs.last()), (2_000, 2_000, Some(&1_999)));
    assert_eq!(client.submit(&request, Some("once")).await.unwrap().id, job, "the key is remembered");
    server.kill();
}

#[tokio::test]
async fn the_command_line_extracts_a_data_model() {
    let (dir, model) = folder();
    let server = Server::start(dir.path(), &model);
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/shop.sql");
    let submitted = server.adit(&["submit", "--task", "data_model", "--from", sample, "--watch", "--json"]);
    assert!(submitted.status.success(), "{}", String::from_utf8_lossy(&submitted.stderr));
    let job: Job = serde_json::from_slice(&submitted.stdout).unwrap();
    assert_eq!(job.counts.total, job.counts.succeeded);
    assert_eq!(job.stages.len(), 3);

    let id = job.id.to_string();
    let exported = server.adit(&["results", &id, "--format", "json"]);
    let found: adit::domain::fact::DataModel = serde_json::from_slice(&exported.stdout).unwrap();
    assert!(found.coverage.adds_up());
    assert_eq!(found.coverage.tables, found.coverage.tables_covered);
    assert_eq!(found.coverage.columns, found.coverage.columns_covered);
    let mermaid = server.adit(&["results", &id, "--format", "mermaid"]);
    assert!(String::from_utf8_lossy(&mermaid.stdout).starts_with("erDiagram"));
    let lines = server.adit(&["results", &id]);
    assert_eq!(
        lines.stdout.split(|b| *b == b'\n').filter(|line| !line.is_empty()).count() as i64,
        job.counts.total
    );

    let metrics = reqwest::get(format!("{}/metrics", server.url)).await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("adit_items_ended_total{model=\"attribute\",outcome=\"succeeded\"}"),
        "{metrics}"
    );

    let status = server.client().model_status().await.unwrap();
    assert!(status.values().all(|state| state.as_str() == "ready"), "{status:?}");
    for (args, code) in [
        (vec!["jobs", "00000000-0000-0000-0000-000000000000"], 4),
        (vec!["watch", "no-id"], 2),
        (vec!["models", "load", "unheard-of"], 4),
        (vec!["submit", "--task", "custom", "--from", "/does/not/exist.jsonl"], 1),
    ] {
        let output = server.adit(&args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let away = Command::new(env!("CARGO_BIN_EXE_adit"))
        .args(["--server", "http://127.0.0.1:1", "jobs"])
        .output()
        .unwrap();
    assert_eq!(away.status.code(), Some(5), "{}", String::from_utf8_lossy(&away.stderr));
}
