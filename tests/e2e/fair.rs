//! Short jobs beside long ones, and an end at a client's word, on the real binary.

use std::time::{Duration, Instant};

use adit::client::Client;
use adit::domain::job::JobState;
use adit::wire::job::Job;
use adit::wire::submit::{JobRequest, StreamQuery};
use serde_json::{Value, json};

use crate::server::{Server, alone, folder, until};

fn schema() -> Value {
    json!({"type": "object", "properties": {"kind": {"enum": ["letter", "bill", "note"]}},
           "required": ["kind"], "additionalProperties": false})
}

fn request(inputs: usize, class: &str) -> JobRequest {
    serde_json::from_value(json!({
        "task": "custom", "schema": schema(), "class": class, "instructions": "What kind of text is it?",
        "inputs": (0..inputs).map(|n| format!("text {n}")).collect::<Vec<_>>(),
    }))
    .unwrap()
}

async fn huge(client: &Client, items: usize, weight: i16) -> Job {
    let query = json!({"task": "custom", "schema": schema().to_string(), "weight": weight,
                       "instructions": "What kind of text is it?"});
    let query: StreamQuery = serde_json::from_value(query).unwrap();
    let lines: String = (0..items).map(|n| format!("\"text {n}\"\n")).collect();
    client.submit_stream(&query, std::io::Cursor::new(lines), None).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn short_jobs_do_not_wait_for_a_huge_one() {
    let _alone = alone().await;
    let (dir, model) = folder();
    let server = Server::start(dir.path(), &model);
    let client = server.client();
    let long = huge(&client, 100_000, 250).await;
    assert_eq!(long.weight, 250);
    // well under way: claims are as large as they get
    until(&client, long.id, Duration::from_secs(120), |job| job.counts.succeeded >= 500).await;
    for class in ["normal", "interactive", "normal"] {
        let began = Instant::now();
        let short = client.submit(&request(1, class), None).await.unwrap();
        until(&client, short.id, Duration::from_secs(30), |job| job.state != JobState::Queued).await;
        let started = began.elapsed();
        let ended = until(&client, short.id, Duration::from_secs(30), |job| job.state.is_final()).await;
        println!(
            "a {class} job of one item began after {started:.2?} and ended after {:.2?}",
            began.elapsed()
        );
        assert_eq!(ended.counts.succeeded, 1);
        assert!(started < Duration::from_secs(5), "it began after {started:?}");
    }
    let long = client.job(long.id).await.unwrap();
    assert!(long.counts.waiting > 50_000, "the huge job was no competition: {:?}", long.counts);
    // an engine is measured after a second or two of work
    let is_told = |job: &Job| job.eta.as_ref().is_some_and(|eta| eta.seconds.is_some());
    let long = until(&client, long.id, Duration::from_secs(30), is_told).await;
    let (rate, eta) = (long.throughput.unwrap(), long.eta.unwrap());
    let (low, seconds, high) = (eta.low_s.unwrap(), eta.seconds.unwrap(), eta.high_s.unwrap());
    println!(
        "the huge job: {:.0} items a second, {seconds:.0} s left ({low:.0} to {high:.0})",
        rate.items_per_s
    );
    assert_eq!(rate.eta_s, Some(seconds));
    assert!(low <= seconds && seconds <= high && eta.unknown.is_empty() && !eta.basis.is_empty(), "{eta:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_what_waits_at_once_and_what_runs_within_a_step() {
    let _alone = alone().await;
    let (dir, model) = folder();
    let server = Server::start(dir.path(), &model);
    let client = server.client();
    let job = client.submit(&request(2_000, "normal"), None).await.unwrap().id;
    until(&client, job, Duration::from_secs(120), |job| job.counts.succeeded >= 50).await;
    let began = Instant::now();
    let cancelled = client.cancel(job).await.unwrap();
    let counts = cancelled.counts;
    println!("cancelled in {:.0?}: {counts:?}", began.elapsed());
    assert!(
        counts.adds_up() && counts.cancelled > 0 && counts.waiting == 0 && counts.running == 0,
        "{counts:?}"
    );
    // the engine lets go of its sequences: with nothing else to do it falls silent
    let until_idle = async {
        loop {
            let running = gauge(&server.url, "adit_engine{", "what=\"running\"").await;
            let queued = gauge(&server.url, "adit_engine{", "what=\"queued\"").await;
            if running + queued == 0.0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), until_idle)
        .await
        .expect("sequences of a cancelled job run on");
    println!("the engine was empty {:.0?} after the cancel was asked for", began.elapsed());
    // late results are not written
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(client.job(job).await.unwrap().counts, counts);
    // and the model serves on
    let next = client.submit(&request(3, "normal"), None).await.unwrap().id;
    let next = until(&client, next, Duration::from_secs(30), |job| job.state.is_final()).await;
    assert_eq!(next.counts.succeeded, 3);
}

/// Sum of a metric over its labels, of which one is `label`; 0 while it does not exist.
pub async fn gauge(url: &str, name: &str, label: &str) -> f64 {
    let text = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
    text.lines()
        .filter(|line| line.starts_with(name) && line.contains(label))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
