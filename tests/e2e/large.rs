//! Submissions far larger than the memory they may take.
//!
//! The full million: `ADIT_LARGE_ITEMS=1000000 cargo test --test e2e large -- --nocapture`.

use std::time::Instant;

use adit::wire::submit::StreamQuery;
use axum::body::Bytes;
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
