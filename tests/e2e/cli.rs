//! The command line against a running server.

use std::process::Command;

use adit::wire::job::Job;

use crate::server::{Server, folder};

#[tokio::test]
async fn the_command_line_extracts_a_data_model() {
    let (dir, model) = folder();
    let server = Server::start(dir.path(), &model);
    let client = server.client();
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/shop.sql");
    let submit = ["submit", "--task", "data_model", "--from", sample, "--watch", "--json"];
    let submitted = server.adit(&[&submit[..], &["--review-below", "1"]].concat());
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
    // the job's own line, and another
    let facts = found.concepts.len() + found.relationships.len() + found.attributes.len();
    let doubtful = |of: &adit::domain::fact::DataModel| {
        of.review.concepts + of.review.relationships + of.review.attributes
    };
    assert!(doubtful(&found) > facts / 2, "{:?} of {facts}", found.review);
    let exported = server.adit(&["results", &id, "--format", "json", "--below", "0"]);
    let all: adit::domain::fact::DataModel = serde_json::from_slice(&exported.stdout).unwrap();
    assert_eq!((doubtful(&all), all.concepts.len()), (0, found.concepts.len()));
    let count = |below: &str| {
        let lines = server.adit(&["results", &id, "--below", below]);
        lines.stdout.split(|b| *b == b'\n').filter(|line| !line.is_empty()).count()
    };
    assert!(count("0") == 0 && count("0.2") <= count("0.9") && count("0.9") > 0);
    for (format, says) in [
        ("mermaid", "erDiagram"),
        ("turtle", "owl:Class"),
        ("r2rml", "rr:TriplesMap"),
        ("shacl", "sh:NodeShape"),
        ("csv", "fact,name"),
        ("dbt", "version: 2"),
        ("dot", "digraph"),
    ] {
        let [once, again] = [(); 2].map(|()| server.adit(&["results", &id, "--format", format]).stdout);
        assert!(String::from_utf8_lossy(&once).contains(says), "{format}");
        assert_eq!(once, again, "{format}");
    }
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

    let status = client.model_status().await.unwrap();
    assert!(status.values().all(|state| state.as_str() == "ready"), "{status:?}");
    for (args, code) in [
        (vec!["jobs", "00000000-0000-0000-0000-000000000000"], 4),
        (vec!["watch", "no-id"], 2),
        (vec!["models", "load", "unheard-of"], 4),
        (vec!["submit", "--task", "custom", "--from", "/does/not/exist.jsonl"], 1),
        (vec!["results", &id, "--below", "7"], 2),
        (vec!["submit", "--task", "data_model", "--from", sample, "--review-below", "-1"], 2),
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
