//! Submissions far larger than the memory they may take.
//!
//! The full million: `ADIT_LARGE_ITEMS=1000000 cargo test --test e2e large -- --nocapture`.

use std::time::{Duration, Instant};

use adit::wire::submit::StreamQuery;
use axum::body::Bytes;
use futures::StreamExt;
use serde_json::Value;
use tokio_util::io::StreamReader;

use crate::server::{Server, alone};

/// Items when the environment does not say: some seconds of work.
const ITEMS: usize = 200_000;
/// Items of one write of the client.
const BATCH: usize = 500;
/// A submission that were held would take many times this.
const MAX_GROWTH: u64 = 80 << 20;

const CONFIG: &str = "[[models]]\nname = \"concept\"\npath = \"/nonexistent/base\"\nload_at_start = false\n";

/// A figure of `/proc/<pid>/status`, in bytes.
fn status(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_submission_streams_in_and_is_never_held() {
    let _alone = alone().await;
    let items = std::env::var("ADIT_LARGE_ITEMS").map_or(ITEMS, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_on(dir.path(), None, None, CONFIG);
    let client = server.client();
    let query = |text: &str| -> StreamQuery {
        serde_json::from_value(serde_json::json!({"task": "custom", "schema": text})).unwrap()
    };
    let body = |items: usize| {
        let filler = "x".repeat(400);
        let batches = (0..items.div_ceil(BATCH)).map(move |batch| {
            let numbers = batch * BATCH..items.min((batch + 1) * BATCH);
            let lines: String = numbers.map(|n| format!("{{\"text\":\"item {n} {filler}\"}}\n")).collect();
            Ok::<_, std::io::Error>(Bytes::from(lines))
        });
        StreamReader::new(futures::stream::iter(batches))
    };
    // what a first request allocates once is not growth
    client.submit_stream(&query("{}"), body(5_000), None).await.unwrap();
    let before = status(server.child.id(), "VmRSS");
    let began = Instant::now();
    let job = client.submit_stream(&query("{}"), body(items), Some("large")).await.unwrap();
    let took = began.elapsed();
    let growth = status(server.child.id(), "VmHWM").saturating_sub(before);
    println!(
        "{items} items in {took:.1?} ({:.0} a second), {} MiB more at the peak",
        items as f64 / took.as_secs_f64(),
        growth >> 20
    );
    assert_eq!((job.counts.total, job.counts.waiting), (items as i64, items as i64));
    assert!(growth < MAX_GROWTH, "{} MiB for {items} items", growth >> 20);
    let began = Instant::now();
    let cancelled = client.cancel(job.id).await.unwrap();
    println!("cancelled in {:.0?}", began.elapsed());
    assert_eq!(cancelled.counts.cancelled, items as i64);
}

/// A file for a batch, its lines, and its error file: each far larger than what the process may hold of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_batch_streams_through_and_is_never_held() {
    let _alone = alone().await;
    let lines = std::env::var("ADIT_LARGE_ITEMS").map_or(ITEMS / 4, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_on(dir.path(), None, None, CONFIG);
    // our own client chooses the TLS provider that every other one needs
    server.client().ready().await.unwrap();
    let (http, url) = (reqwest::Client::new(), format!("{}/v1", server.url));
    let run = async |lines: usize| -> (u64, u64) {
        let begun = Instant::now();
        let file = upload(&http, &url, lines).await;
        let uploaded = begun.elapsed();
        let request = serde_json::json!({"input_file_id": file["id"], "endpoint": "/v1/chat/completions",
                                         "completion_window": "24h"});
        let sent = http.post(format!("{url}/batches")).json(&request).send().await.unwrap();
        let mut batch: Value = sent.json().await.unwrap();
        let id = batch["id"].as_str().unwrap().to_string();
        let until = async |status: &str| -> Value {
            loop {
                let sent = http.get(format!("{url}/batches/{id}")).send().await.unwrap();
                let batch: Value = sent.json().await.unwrap();
                assert_ne!(batch["status"], "failed", "{batch}");
                if batch["status"] == status {
                    return batch;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        batch = until("in_progress").await;
        let checked = begun.elapsed() - uploaded;
        assert_eq!(batch["request_counts"]["total"], lines);
        http.post(format!("{url}/batches/{id}/cancel")).send().await.unwrap();
        batch = until("cancelled").await;
        let file = batch["error_file_id"].as_str().unwrap();
        let (bytes, read) =
            count(http.get(format!("{url}/files/{file}/content")).send().await.unwrap()).await;
        println!("{lines} lines uploaded in {uploaded:.1?}, checked in {checked:.1?}");
        (bytes, read)
    };
    // what a first request allocates once is not growth
    run(2_000).await;
    let before = status(server.child.id(), "VmRSS");
    let (bytes, read) = run(lines).await;
    let growth = status(server.child.id(), "VmHWM").saturating_sub(before);
    println!("an error file of {bytes} bytes, {} MiB more at the peak", growth >> 20);
    assert_eq!(read, lines as u64);
    assert!(growth < MAX_GROWTH, "{} MiB for {lines} lines", growth >> 20);
}

async fn upload(http: &reqwest::Client, url: &str, lines: usize) -> Value {
    let head = "--edge\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--edge\r\n\
                content-disposition: form-data; name=\"file\"; filename=\"large.jsonl\"\r\n\r\n";
    let filler = "x".repeat(1_000);
    let text = (0..lines.div_ceil(BATCH)).map(move |batch| {
        let numbers = batch * BATCH..lines.min((batch + 1) * BATCH);
        let line = |n: usize| {
            format!(
                "{{\"custom_id\":\"line {n}\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":\
                 {{\"model\":\"concept\",\"messages\":[{{\"role\":\"user\",\"content\":\"{filler}\"}}]}}}}\n"
            )
        };
        numbers.map(line).collect::<String>()
    });
    let parts = std::iter::once(head.to_string()).chain(text).chain(["\r\n--edge--\r\n".to_string()]);
    let body = reqwest::Body::wrap_stream(futures::stream::iter(parts.map(Ok::<_, std::io::Error>)));
    let request =
        http.post(format!("{url}/files")).header("content-type", "multipart/form-data; boundary=edge");
    let answer = request.body(body).send().await.unwrap();
    assert!(answer.status().is_success());
    answer.json().await.unwrap()
}

/// Bytes and lines of a body.
async fn count(answer: reqwest::Response) -> (u64, u64) {
    let (mut bytes, mut lines) = (0, 0);
    let mut parts = answer.bytes_stream();
    while let Some(part) = parts.next().await {
        let part = part.unwrap();
        bytes += part.len() as u64;
        lines += part.iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    (bytes, lines)
}
