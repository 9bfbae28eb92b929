//! Spans as a collector receives them.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use serde_json::Value;

use crate::server::{CONFIG, Server, folder};

/// A collector that takes everything: each body that is posted to it, with its path.
fn collector() -> (String, mpsc::Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, bodies) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = Vec::new();
            let mut line = String::new();
            while stream.read_line(&mut line).unwrap() > 2 {
                head.push(line.trim().to_lowercase());
                line.clear();
            }
            let Some(length) = head.iter().find_map(|line| line.strip_prefix("content-length: ")) else {
                continue;
            };
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            let path = head[0].split(' ').nth(1).unwrap().to_string();
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            if sender.send((path, serde_json::from_slice(&body).unwrap())).is_err() {
                return;
            }
        }
    });
    (address, bodies)
}

fn named<'a>(spans: &'a [Value], name: &str) -> Vec<&'a Value> {
    spans.iter().filter(|span| span["name"] == name).collect()
}

#[tokio::test]
async fn a_collector_gets_job_items_and_steps_and_no_text() {
    let (address, bodies) = collector();
    let (dir, model) = folder();
    let variables =
        [("CONCEPT_MODEL_PATH", model.as_os_str()), ("OTEL_EXPORTER_OTLP_ENDPOINT", address.as_ref())];
    let server = Server::start_with(dir.path(), CONFIG, &variables);
    std::fs::write(
        dir.path().join("s.json"),
        r#"{"type":"object","properties":{"kind":{"enum":["letter","bill"]}},
        "required":["kind"],"additionalProperties":false}"#,
    )
    .unwrap();
    let texts = dir.path().join("texts.jsonl");
    std::fs::write(&texts, "\"hush-hush one\"\n\"hush-hush two\"\n\"hush-hush three\"\n").unwrap();
    let schema = dir.path().join("s.json");
    let submit = [
        "submit",
        "--task",
        "custom",
        "--model",
        "concept",
        "--watch",
        "--json",
        "--schema",
        schema.to_str().unwrap(),
        "--from",
        texts.to_str().unwrap(),
    ];
    let output = server.adit(&submit);
    assert!(output.status.success(), "{output:?}");
    let job: adit::wire::job::Job = serde_json::from_slice(&output.stdout).unwrap();
    server.terminate();

    let mut spans = Vec::new();
    while let Ok((path, body)) = bodies.try_recv() {
        assert_eq!(path, "/v1/traces");
        assert!(!body.to_string().contains("hush-hush"), "{body}");
        for resource in body["resourceSpans"].as_array().unwrap() {
            for scope in resource["scopeSpans"].as_array().unwrap() {
                spans.extend(scope["spans"].as_array().unwrap().iter().cloned());
            }
        }
    }
    let id = job.id.simple().to_string();
    let jobs = named(&spans, "job");
    assert_eq!(jobs.len(), 1, "{spans:?}");
    assert_eq!((&jobs[0]["traceId"], &jobs[0]["spanId"]), (&id.as_str().into(), &id[16..].into()));
    let items = named(&spans, "item");
    assert_eq!(items.len(), 3);
    let mut ids = BTreeSet::new();
    for item in items {
        assert_eq!((&item["traceId"], &item["parentSpanId"]), (&id.as_str().into(), &id[16..].into()));
        assert!(item.to_string().contains("succeeded"), "{item}");
        ids.insert(item["spanId"].as_str().unwrap().to_string());
    }
    let steps = named(&spans, "step");
    let links = steps.iter().flat_map(|step| step["links"].as_array().into_iter().flatten());
    let linked: BTreeSet<String> = links.map(|link| link["spanId"].as_str().unwrap().to_string()).collect();
    assert!(!steps.is_empty() && ids.is_subset(&linked), "{ids:?} in {linked:?}");
}
