//! The typed client against a real socket.

use adit::client::{Client, ClientError};
use adit::domain::code::Code;
use adit::domain::task::Task;
use adit::wire::result::ResultsQuery;
use adit::wire::submit::StreamQuery;
use futures::StreamExt;
use serde_json::json;

use crate::harness::{Api, custom, start};

async fn serve(api: &Api) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    api.shutdown.spawn(adit::api::serve(listener, api.state.clone()));
    Client::new(&format!("http://{address}")).unwrap()
}

fn stream_query() -> StreamQuery {
    serde_json::from_value(json!({"task": "custom", "schema": "{}"})).unwrap()
}

#[tokio::test]
async fn the_client_speaks_the_servers_language() {
    let api = start().await;
    let client = serve(&api).await;
    assert_eq!(client.ready().await.unwrap().status, "ok");
    let request = serde_json::from_value(custom(json!(["a", "b"]))).unwrap();
    let job = client.submit(&request, Some("key")).await.unwrap();
    assert_eq!(client.submit(&request, Some("key")).await.unwrap().id, job.id);
    assert_eq!(client.job(job.id).await.unwrap().task, Task::Custom);
    let lines = std::io::Cursor::new("\"x\"\n\"y\"\n\"z\"\n");
    let streamed = client.submit_stream(&stream_query(), lines, None).await.unwrap();
    assert_eq!(streamed.counts.total, 3);
    assert_eq!(client.jobs(&Default::default()).await.unwrap().jobs.len(), 2);

    let claims = api.claim(100).await;
    api.end(&claims, |_| false).await;
    let page = client.results(job.id, &ResultsQuery::default()).await.unwrap();
    assert!(page.complete && page.results.len() == 2);
    let stream =
        client.results_stream(job.id, &ResultsQuery { after: Some(0), ..Default::default() }).await.unwrap();
    let seqs: Vec<i64> = stream.map(|result| result.unwrap().seq).collect().await;
    assert_eq!(seqs, [1]);
    let events = client.events(job.id).await.unwrap();
    let last = events.map(Result::unwrap).collect::<Vec<_>>().await.pop().unwrap();
    assert!(last.state.is_final() && last.counts.adds_up());
    assert_eq!(client.model_status().await.unwrap().len(), 3);
    assert_eq!(client.models().await.unwrap().data.len(), 3);
    client.delete(job.id).await.unwrap();
    let gone = client.job(job.id).await.unwrap_err();
    assert_eq!(gone.problem().unwrap().code, Code::NotFound);
    api.shutdown.request();
    assert!(api.shutdown.finish(std::time::Duration::from_secs(10)).await || api.shutdown.is_requested());
}

/// The server refuses in the middle of a body that is larger than every buffer on the way; the client must
/// see why, not a broken pipe.
#[tokio::test]
async fn a_refusal_in_the_middle_of_a_stream_reaches_the_client() {
    let api = start().await;
    let client = serve(&api).await;
    let mut body = "\"fine\"\n".repeat(1_000);
    body.push_str("not json\n");
    body.push_str(&"\"fine\"\n".repeat(2_000_000));
    let error = client.submit_stream(&stream_query(), std::io::Cursor::new(body), None).await.unwrap_err();
    let problem = error.problem().unwrap_or_else(|| panic!("{error}"));
    assert_eq!(problem.line, Some(1_001));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_to_be_unreachable() {
    let client = Client::new("http://127.0.0.1:9").unwrap();
    assert!(matches!(client.ready().await.unwrap_err(), ClientError::Unreachable { .. }));
    assert!(matches!(Client::new("ftp://x").unwrap_err(), ClientError::Url { .. }));
}
