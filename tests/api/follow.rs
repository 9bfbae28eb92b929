//! A result stream that follows a job whose failed items are sent back.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use adit::domain::id::JobId;
use adit::domain::lease::{Claim, ItemRange};
use axum::body::Body;
use axum::http::Request;
use futures::StreamExt;
use serde_json::Value;
use tower::ServiceExt;

use crate::harness::{Api, start};

/// Lines of a stream as they come.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<String>>);

impl Lines {
    /// Sequence number and outcome of each line so far.
    fn seen(&self) -> Vec<(i64, String)> {
        let text = self.0.lock().unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                (line["seq"].as_i64().unwrap(), line["outcome"].as_str().unwrap().to_string())
            })
            .collect()
    }

    async fn until(&self, n: usize) -> Vec<(i64, String)> {
        let began = Instant::now();
        loop {
            let seen = self.seen();
            if seen.len() >= n {
                return seen;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{} of {n} lines", seen.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn follow(api: &Api, id: JobId, query: &str) -> (Lines, tokio::task::JoinHandle<()>) {
    let request = Request::get(format!("/v1/jobs/{id}/results?follow=true{query}"))
        .header("accept", "application/x-ndjson")
        .body(Body::empty())
        .unwrap();
    let response = api.router.clone().oneshot(request).await.unwrap();
    let lines = Lines::default();
    let into = lines.clone();
    let reading = tokio::spawn(async move {
        let mut body = response.into_body().into_data_stream();
        while let Some(part) = body.next().await {
            into.0.lock().unwrap().push_str(std::str::from_utf8(&part.unwrap()).unwrap());
        }
    });
    (lines, reading)
}

#[tokio::test(flavor = "multi_thread")]
async fn items_that_are_sent_back_come_again_and_no_others() {
    let api = start().await;
    let id = api.custom_job(600).await;
    let first = api.claim(256).await;
    api.end(&first, |seq| seq == 3 || seq == 200).await;
    let (lines, reading) = follow(&api, id, "").await;
    let (from_4, reading_from_4) = follow(&api, id, "&after=3").await;
    let seen = lines.until(256).await;
    assert_eq!(seen.iter().filter(|(_, outcome)| outcome == "failed").count(), 2);
    from_4.until(252).await;
    assert_eq!(api.call("POST", &format!("/v1/jobs/{id}/retry")).await.ok()["items"], 2);
    // one of the two fails again
    let claims = api.claim(1_000).await;
    let (again, rest): (Vec<Claim>, Vec<Claim>) =
        claims.into_iter().partition(|claim| matches!(claim.range, ItemRange::List(_)));
    api.end(&again, |seq| seq == 200).await;
    let seen = lines.until(258).await;
    assert_eq!(seen[256..], [(3, "succeeded".to_string()), (200, "failed".to_string())]);
    from_4.until(253).await;
    // and is sent back once more, while the rest of the job goes on
    assert_eq!(api.call("POST", &format!("/v1/jobs/{id}/retry")).await.ok()["items"], 1);
    api.end(&api.claim(1_000).await, |_| false).await;
    api.end(&rest, |_| false).await;
    reading.await.unwrap();
    reading_from_4.await.unwrap();
    let seen = lines.seen();
    let outcomes = |seen: &[(i64, String)], seq: i64| -> Vec<String> {
        seen.iter().filter(|line| line.0 == seq).map(|line| line.1.clone()).collect()
    };
    for seq in (0..600).filter(|seq| ![3, 200].contains(seq)) {
        assert_eq!(outcomes(&seen, seq), ["succeeded"], "item {seq}");
    }
    // a retry that comes before the stream is through with the last one lets it begin again: what had ended anew
    // may come twice
    let (third, two_hundredth) = (outcomes(&seen, 3), outcomes(&seen, 200));
    assert_eq!(third[0], "failed");
    assert!(
        (2..=3).contains(&third.len()) && third[1..].iter().all(|outcome| outcome == "succeeded"),
        "{third:?}"
    );
    assert_eq!(two_hundredth, ["failed", "failed", "succeeded"]);
    // who began behind item 3 is not told of it
    let seen = from_4.seen();
    assert!(seen.iter().all(|(seq, _)| *seq > 3));
    assert_eq!((seen.len(), outcomes(&seen, 200).len()), (596 + 2, 3));
}
