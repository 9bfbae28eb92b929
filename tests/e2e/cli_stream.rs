//! `adit stream` and `adit top`, and what is printed without a server: completions, the manual.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use adit::wire::estimate::Estimate;
use adit::wire::job::Job;
use serde_json::Value;

use crate::server::{Server, folder};

const SCHEMA: &str = r#"{"type":"object","properties":{"kind":{"enum":["letter","invoice"]}},
    "required":["kind"],"additionalProperties":false}"#;

fn stream(server: &Server, dir: &Path, more: &[&str]) -> Child {
    let schema = dir.join("schema.json");
    std::fs::write(&schema, SCHEMA).unwrap();
    Command::new(env!("CARGO_BIN_EXE_adit"))
        .args(["--server", &server.url, "stream", "--schema", schema.to_str().unwrap()])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn answers(stdout: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_stream_answers_every_line_in_order_and_names_the_bad_one() {
    let (dir, model) = folder();
    let server = Server::start(dir.path(), &model);
    let mut child = stream(&server, dir.path(), &["--lines", "8", "--in-flight", "2"]);
    let mut input: Vec<String> = (1..=40).map(|n| format!("\"text {n}\"")).collect();
    input[4] = "  ".into();
    input[20] = "{\"broken\":".into();
    child.stdin.take().unwrap().write_all(input.join("\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let answers = answers(&output.stdout);
    let lines: Vec<u64> = answers.iter().map(|answer| answer["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, (1..=40).filter(|line| *line != 5).collect::<Vec<_>>());
    for answer in &answers {
        if answer["line"] == 21 {
            assert_eq!(
                (&answer["outcome"], &answer["error"]["code"]),
                (&"failed".into(), &"invalid_input".into())
            );
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(answer.get("job").is_none() && message.starts_with("line 21, column "), "{answer}");
        } else {
            let kind = answer["output"]["kind"].as_str().unwrap();
            assert!(answer["outcome"] == "succeeded" && ["letter", "invoice"].contains(&kind), "{answer}");
        }
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("39 lines, 38 succeeded"), "{said}");
}

#[tokio::test]
async fn a_stream_answers_while_its_input_is_open() {
    let (dir, model) = folder();
    let server = Server::start(dir.path(), &model);
    let mut child = stream(&server, dir.path(), &["--linger", "20"]);
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    for round in 0..3 {
        writeln!(input, "\"question {round}\"").unwrap();
        input.flush().unwrap();
        let answer: Value = serde_json::from_str(&output.next().unwrap().unwrap()).unwrap();
        assert_eq!((&answer["line"], &answer["outcome"]), (&(round + 1).into(), &"succeeded".into()));
    }
    drop(input);
    assert!(output.next().is_none());
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn top_shows_models_engines_and_jobs() {
    let (dir, model) = folder();
    let server = Server::start(dir.path(), &model);
    assert!(server.adit(&["models", "wait", "concept"]).status.success());
    let plain = server.adit(&["top", "--once"]);
    let text = String::from_utf8_lossy(&plain.stdout).into_owned();
    assert!(plain.status.success() && text.starts_with("concept\tready\t"), "{text}");
    let table = server.adit(&["top", "--once", "--output", "table"]);
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(text.contains("tokens/step") && text.contains("│ concept"), "{text}");
    let json: Value = serde_json::from_slice(&server.adit(&["top", "--output", "json"]).stdout).unwrap();
    assert_eq!(json["models"].as_array().unwrap().len(), 3);
    assert!(json["models"][0]["engine"]["now"]["kv_blocks_total"].as_u64().unwrap() > 0, "{json}");
}

#[tokio::test]
async fn an_estimate_counts_the_prompts_that_are_submitted() {
    let (dir, model) = folder();
    let server = Server::start(dir.path(), &model);
    for name in ["concept", "relationship", "attribute"] {
        assert!(server.adit(&["models", "wait", name]).status.success());
    }
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/clinic.sql");
    let estimate = |task: &str| -> Estimate {
        let output = server.adit(&["estimate", "--json", "--task", task, "--from", sample]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let before = estimate("concept");
    assert!(
        before.stages[0].exact && before.output_tokens.is_none() && before.seconds.is_none(),
        "{before:?}"
    );
    assert!(before.stages[0].unknown[0].contains("has not answered"), "{before:?}");
    let output = server.adit(&["submit", "--json", "--watch", "--task", "concept", "--from", sample]);
    let job: Job = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(before.items, job.counts.total as u64);
    assert_eq!(before.prompt_tokens, Some(job.usage.prompt_tokens));
    let after = estimate("concept");
    assert_eq!(after.output_tokens, Some(job.usage.output_tokens));
    assert!(after.seconds.is_some_and(|seconds| seconds > 0.0), "{after:?}");

    let all = estimate("data_model");
    let stages: Vec<(&str, bool)> = all.stages.iter().map(|s| (s.stage.as_str(), s.exact)).collect();
    assert_eq!(stages, [("concept", true), ("relationship", false), ("attribute", false)]);
    assert!(server.adit(&["models", "unload", "concept"]).status.success());
    let output = server.adit(&["estimate", "--output", "table", "--task", "concept", "--from", sample]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("unknown: model 'concept' is not ready"), "{text}");
}

#[test]
fn completions_and_manual_name_every_command() {
    let adit = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_adit")).args(args).output().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = adit(&["completions", shell]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("ablation") && text.contains("stream"), "{shell}");
    }
    let page = String::from_utf8_lossy(&adit(&["man"]).stdout).into_owned();
    assert!(page.starts_with(".ie") || page.contains(".TH adit 1"), "{page}");
    let dir = tempfile::tempdir().unwrap();
    assert!(adit(&["man", "--dir", dir.path().to_str().unwrap()]).status.success());
    for page in ["adit.1", "adit-submit.1", "adit-models-wait.1"] {
        assert!(dir.path().join(page).is_file(), "{page}");
    }
}
