//! Results, and the commands that steer jobs and models.

use std::process::{Command, Output, Stdio};

use adit::domain::job::JobState;
use adit::domain::model::ModelState;
use adit::wire::job::{Job, JobPage, Retried};
use adit::wire::model::{Model, ModelList};
use adit::wire::result::ItemResult;
use serde::de::DeserializeOwned;

use crate::server::{Server, folder};

fn read<T: DeserializeOwned>(output: &Output) -> T {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn lines(output: &Output) -> Vec<ItemResult> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn code(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Texts under a schema that an answer of a few tokens cannot fill.
fn texts(dir: &std::path::Path, items: usize) -> [String; 2] {
    let schema = r#"{"type":"object","properties":{"first":{"enum":["alpha","beta"]},"second":{"type":"string","maxLength":40}},
        "required":["first","second"],"additionalProperties":false}"#;
    std::fs::write(dir.join("schema.json"), schema).unwrap();
    std::fs::write(
        dir.join("texts.jsonl"),
        (0..items).map(|n| format!("\"text {n}\"\n")).collect::<String>(),
    )
    .unwrap();
    ["schema.json", "texts.jsonl"].map(|name| dir.join(name).to_str().unwrap().to_string())
}

#[tokio::test]
async fn results_come_in_every_format_and_go_on_where_they_stopped() {
    let (dir, model) = folder();
    let server = Server::start(dir.path(), &model);
    let [schema, from] = texts(dir.path(), 12);
    let submit = ["submit", "--json", "--task", "custom", "--schema", &schema, "--from", &from];
    let job: Job = read(&server.adit(&submit));
    let id = job.id.to_string();
    // begun while the job runs, ends with it
    let all = lines(&server.adit(&["results", &id, "--follow"]));
    assert_eq!(all.iter().map(|r| r.seq).collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
    let rest = lines(&server.adit(&["results", &id, "--after", "7"]));
    assert_eq!(rest, all[8..]);
    let path = dir.path().join("out.ndjson");
    let output = server.adit(&["results", &id, "--outcome", "succeeded", "--to", path.to_str().unwrap()]);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 12);
    assert_eq!(lines(&server.adit(&["results", &id, "--outcome", "failed"])), []);
    let refused = server.adit(&["results", &id, "--format", "mermaid"]);
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");

    // a reader that has seen enough is no fault
    let mut child = Command::new(env!("CARGO_BIN_EXE_adit"))
        .args(["--server", &server.url, "results", &id])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(code(&child.wait_with_output().unwrap()), (Some(0), String::new()));

    let ddl = dir.path().join("one.sql");
    std::fs::write(&ddl, "create table a (id int primary key, b int); create table c (id int primary key, a_id int references a (id));").unwrap();
    let output = server.adit(&["submit", "--from", ddl.to_str().unwrap(), "--watch", "--json"]);
    let found: Job = read(&output);
    assert!(!output.stderr.is_empty(), "progress");
    let id = found.id.to_string();
    for (format, begins) in
        [("json", "{"), ("mermaid", "erDiagram"), ("turtle", "@prefix"), ("csv", ""), ("dbt", "version: 2")]
    {
        let output = server.adit(&["results", &id, "--format", format]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.len() > 20 && text.starts_with(begins),
            "{format}: {output:?}"
        );
        assert_eq!(server.adit(&["results", &id, "--format", format]).stdout, output.stdout, "{format}");
    }
    let page: JobPage = read(&server.adit(&["jobs", "--json", "--limit", "1"]));
    assert_eq!(page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [found.id]);
    let page: JobPage = read(&server.adit(&["jobs", "--json", "--task", "custom", "--state", "completed"]));
    assert_eq!(page.jobs.iter().map(|j| j.id).collect::<Vec<_>>(), [job.id]);
    let table = server.adit(&["jobs"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains(&id), "{table:?}");
}

#[tokio::test]
async fn jobs_and_models_are_steered_from_the_command_line() {
    let (dir, model) = folder();
    let server = Server::start(dir.path(), &model);
    let ready: Model = read(&server.adit(&["models", "wait", "concept", "--timeout", "60", "--json"]));
    assert_eq!(ready.state, ModelState::Ready);
    read::<Model>(&server.adit(&["models", "unload", "concept", "--json"]));
    for (args, expected) in [
        (["models", "wait", "concept", "--timeout", "0.3"], 6),
        (["models", "wait", "concept", "--timeout", "-1"], 2),
        (["models", "wait", "unheard-of", "--timeout", "1"], 4),
    ] {
        let (found, error) = code(&server.adit(&args));
        assert_eq!(found, Some(expected), "{args:?}: {error}");
    }

    // its jobs wait, and say for what
    let [schema, from] = texts(dir.path(), 3);
    let submit = ["submit", "--json", "--task", "custom", "--schema", &schema, "--from", &from];
    let job: Job = read(&server.adit(&submit));
    let id = job.id.to_string();
    let (found, error) = code(&server.adit(&["watch", &id, "--timeout", "0.5"]));
    assert!(found == Some(6) && error.contains("still queued"), "{found:?} {error}");
    assert_eq!(code(&server.adit(&["watch", &id, "--timeout", "nan"])).0, Some(2));
    let shown: Job = read(&server.adit(&["jobs", &id, "--json"]));
    assert_eq!((shown.counts.waiting, shown.waiting_for[0].model.as_str()), (3, "concept"));
    let cancelled: Job = read(&server.adit(&["cancel", &id, "--json"]));
    assert_eq!((cancelled.state, cancelled.counts.cancelled), (JobState::Cancelled, 3));
    assert_eq!(code(&server.adit(&["watch", &id])).0, Some(3));
    let (found, error) = code(&server.adit(&["retry", &id]));
    assert!(found == Some(1) && error.contains("cannot be retried"), "{found:?} {error}");

    read::<Model>(&server.adit(&["models", "load", "concept", "--json"]));
    read::<Model>(&server.adit(&["models", "wait", "concept", "--json"]));
    let list: ModelList = read(&server.adit(&["models", "--json"]));
    assert!(
        list.data.len() == 3 && list.data.iter().all(|model| model.state == ModelState::Ready),
        "{list:?}"
    );

    // answers that are cut off fail, and can be asked for again
    let args = [&submit[..], &["--max-tokens", "2", "--watch"]].concat();
    let output = server.adit(&args);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let failed: Job = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(failed.counts.failed, 3, "{failed:?}");
    let short = failed.id.to_string();
    assert_eq!(lines(&server.adit(&["results", &short, "--outcome", "failed"])).len(), 3);
    let retried: Retried = read(&server.adit(&["retry", &short, "--json"]));
    assert_eq!((retried.items, retried.job.counts.total), (3, 3));
    assert_eq!(code(&server.adit(&["watch", &short])).0, Some(3));

    // the same key is the same job
    let keyed = [&submit[..], &["--idempotency-key", "one"]].concat();
    let (first, again): (Job, Job) = (read(&server.adit(&keyed)), read(&server.adit(&keyed)));
    assert_eq!(first.id, again.id);
    let (found, error) = code(&server.adit(&[&keyed[..], &["--seed", "3"]].concat()));
    assert!(found == Some(1) && error.contains("asked for differently"), "{found:?} {error}");

    let deleted: serde_json::Value = read(&server.adit(&["delete", &id, "--json"]));
    assert_eq!(deleted["deleted"], id.as_str());
    assert_eq!(code(&server.adit(&["jobs", &id])).0, Some(4));
    assert_eq!(code(&server.adit(&["delete", &id])).0, Some(4));
}
