//! Every error has one shape, and the process lives.

use std::time::Duration;

use adit::domain::code::Code;
use axum::body::Body;
use axum::http::Request;
use futures::StreamExt;
use serde_json::json;

use crate::harness::{custom, start, start_on, start_with};
use crate::support::postgres;

#[tokio::test]
async fn paths_methods_and_types_that_do_not_exist() {
    let api = start().await;
    api.get("/nowhere").await.problem(Code::NotFound);
    api.get("/v1/jobs/no-uuid").await.problem(Code::NotFound);
    api.get("/v1/jobs/01890000-0000-7000-8000-000000000000").await.problem(Code::NotFound);
    for (method, path) in
        [("GET", "cancel"), ("POST", "retry"), ("GET", "results"), ("GET", "export?format=csv")]
    {
        let path = format!("/v1/jobs/01890000-0000-7000-8000-000000000000/{path}");
        let answer =
            api.call(if method == "GET" && path.ends_with("cancel") { "POST" } else { method }, &path).await;
        answer.problem(Code::NotFound);
    }
    let wrong = api.call("PUT", "/v1/jobs").await;
    wrong.problem(Code::MethodNotAllowed);
    let allow = wrong.headers["allow"].to_str().unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    let xml = Request::post("/v1/jobs").header("content-type", "text/xml").body(Body::from("<a/>")).unwrap();
    api.send(xml).await.problem(Code::UnsupportedMediaType);
}

#[tokio::test]
async fn a_client_that_falls_silent_is_given_up() {
    let api = start_with(|settings| settings.http.request_timeout_ms = 100).await;
    let silent = || {
        let first = futures::stream::iter([Ok::<_, std::io::Error>("\"a\"\n")]);
        Body::from_stream(first.chain(futures::stream::pending()))
    };
    let schema = "task=custom&schema=%7B%7D";
    api.post_lines(schema, silent(), None).await.problem(Code::RequestTimeout);
    api.post_keyed(silent(), None).await.problem(Code::RequestTimeout);
    assert_eq!(api.get("/v1/jobs").await.ok()["jobs"], json!([]));
}

#[tokio::test]
async fn open_submissions_are_bounded() {
    let api = start_with(|settings| {
        settings.http.max_open_submissions = 1;
        settings.http.request_timeout_ms = 300;
    })
    .await;
    let (sender, parts) = tokio::sync::mpsc::channel::<Result<&'static str, std::io::Error>>(1);
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(parts));
    let open = api.post_lines("task=custom&schema=%7B%7D", body, None);
    let other = async {
        for _ in 0..6 {
            sender.send(Ok("\"a\"\n")).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let request = custom(json!(["x"]));
        let mut refused = std::pin::pin!(api.post(&request));
        loop {
            tokio::select! {
                answer = &mut refused => {
                    answer.problem(Code::Overloaded);
                    break;
                }
                () = tokio::time::sleep(Duration::from_millis(50)) => sender.send(Ok("\"a\"\n")).await.unwrap(),
            };
        }
        drop(sender);
    };
    let (opened, ()) = tokio::join!(open, other);
    assert!(opened.ok()["counts"]["total"].as_i64().unwrap() >= 6);
    api.post(&custom(json!(["x"]))).await.ok();
}

#[tokio::test]
async fn a_database_that_is_away_is_no_secret_and_no_end() {
    let store = postgres::fresh_database().await;
    let api = start_on(store.clone(), |_| {}).await;
    api.get("/readyz").await.ok();
    store.close().await;
    for (method, path) in
        [("GET", "/v1/jobs"), ("GET", "/readyz"), ("GET", "/v1/jobs/01890000-0000-7000-8000-000000000000")]
    {
        let answer = api.call(method, path).await;
        answer.problem(Code::DatabaseUnavailable);
        assert!(!answer.text().contains("pool") && !answer.text().contains("sqlx"), "{}", answer.text());
    }
    api.post(&custom(json!(["a"]))).await.problem(Code::DatabaseUnavailable);
    // what needs no database goes on
    assert_eq!(api.get("/livez").await.ok()["status"], "ok");
    api.get("/api/models/status").await.ok();
    assert!(api.get("/v1/models").await.ok()["data"][0].get("items_waiting").is_none());
    assert!(api.get("/metrics").await.text().contains("adit_database_up 0"));
}

#[tokio::test]
async fn a_panic_is_one_requests_failure() {
    // the schema check is the one piece of foreign code that a handler calls
    let mut api = start().await;
    api.state.check_schema = std::sync::Arc::new(|_| panic!("planted"));
    api.router = adit::api::router(api.state.clone());
    let answer = api.post(&custom(json!(["a"]))).await;
    answer.problem(Code::Internal);
    assert!(!answer.text().contains("planted"));
    assert_eq!(api.get("/livez").await.ok()["status"], "ok");
}

#[tokio::test]
async fn a_stopping_process_takes_no_jobs() {
    let api = start().await;
    api.shutdown.request();
    api.get("/readyz").await.problem(Code::ShuttingDown);
    api.post(&custom(json!(["a"]))).await.problem(Code::ShuttingDown);
    api.get("/livez").await.ok();
}

#[tokio::test]
async fn a_client_cannot_choose_the_requests_id() {
    let api = start().await;
    let request = Request::get("/livez").header("x-request-id", "mine\"").body(Body::empty()).unwrap();
    let id = api.send(request).await.headers["x-request-id"].to_str().unwrap().to_string();
    assert!(uuid::Uuid::parse_str(&id).is_ok());
}
