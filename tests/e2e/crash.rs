//! The process is killed in the middle of a job.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use adit::domain::job::JobState;
use adit::wire::result::ResultsQuery;
use adit::wire::submit::JobRequest;
use futures::StreamExt;

use crate::server::{Server, folder, until};

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
