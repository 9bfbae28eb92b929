//! Progress as server-sent events.

use adit::domain::code::Code;
use axum::body::Body;
use axum::http::Request;
use futures::StreamExt;
use serde_json::Value;
use tower::ServiceExt;

use crate::harness::{start, start_with};

/// Names and data of the events of a text.
fn events(text: &str) -> Vec<(String, Value)> {
    let field = |event: &str, name: &str| {
        event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(String::from))
    };
    let whole = text.split("\n\n").filter(|event| event.contains("event: "));
    whole
        .map(|event| {
            let data = field(event, "data").unwrap();
            (field(event, "event").unwrap(), serde_json::from_str(&data).unwrap())
        })
        .collect()
}

#[tokio::test]
async fn a_job_is_followed_to_its_end() {
    let api = start().await;
    let id = api.custom_job(600).await;
    let path = format!("/v1/jobs/{id}/events");
    let reading = api.get(&path);
    let working = async {
        for _ in 0..3 {
            tokio::time::sleep(std::time::Duration::from_millis(120)).await;
            let claims = api.claim(1).await;
            api.end(&claims, |_| false).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(120)).await;
        api.call("POST", &format!("/v1/jobs/{id}/cancel")).await.ok();
    };
    let (answer, ()) = tokio::join!(reading, working);
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    let events = events(answer.text());
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((names[0], *names.last().unwrap()), ("snapshot", "end"));
    assert!(
        names.len() >= 4 && names[1..names.len() - 1].iter().all(|name| *name == "progress"),
        "{names:?}"
    );
    let ended: Vec<i64> =
        events.iter().map(|(_, job)| job["counts"]["succeeded"].as_i64().unwrap()).collect();
    assert!(ended.is_sorted() && *ended.last().unwrap() > 0, "{ended:?}");
    assert_eq!(events.last().unwrap().1["state"], "cancelled");
}

#[tokio::test]
async fn a_job_that_has_ended_says_so_at_once() {
    let api = start().await;
    let id = api.custom_job(1).await;
    api.call("POST", &format!("/v1/jobs/{id}/cancel")).await.ok();
    let answer = api.get(&format!("/v1/jobs/{id}/events")).await;
    let names: Vec<String> = events(answer.text()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["snapshot", "end"]);
    api.get("/v1/jobs/01890000-0000-7000-8000-000000000000/events").await.problem(Code::NotFound);
}

#[tokio::test]
async fn silence_is_broken_by_comments_and_a_stop_ends_the_stream() {
    let api = start_with(|settings| settings.http.heartbeat_ms = 50).await;
    let id = api.custom_job(1).await;
    let request = Request::get(format!("/v1/jobs/{id}/events")).body(Body::empty()).unwrap();
    let mut body = api.router.clone().oneshot(request).await.unwrap().into_body().into_data_stream();
    let mut text = String::new();
    while !text.contains("\n:") {
        text.push_str(std::str::from_utf8(&body.next().await.unwrap().unwrap()).unwrap());
    }
    api.shutdown.request();
    let rest = async { while body.next().await.is_some() {} };
    tokio::time::timeout(std::time::Duration::from_secs(5), rest).await.unwrap();
}
