//! What the dashboard reads beside the rest: events of models and jobs, errors by code, throughput, inputs.

use adit::domain::code::Code;
use adit::domain::item::{NewResult, Outcome};
use adit::store::finish::Finish;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use futures::StreamExt;
use serde_json::{Value, json};
use std::time::Duration;
use tower::ServiceExt;

use crate::harness::{Api, result, start, start_on, start_with};
use crate::support::postgres::{self, assert_invariants};

/// A stream of events that is read as it comes.
struct Events {
    body: axum::body::BodyDataStream,
    headers: HeaderMap,
    text: String,
}

impl Events {
    async fn open(api: &Api, path: &str) -> Self {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = api.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let (head, body) = response.into_parts();
        Self { body: body.into_data_stream(), headers: head.headers, text: String::new() }
    }

    /// Name and data of the next event.
    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(String::from))
                };
                let found =
                    field("event").map(|name| (name, serde_json::from_str(&field("data").unwrap()).unwrap()));
                self.text = rest.to_string();
                if let Some(found) = found {
                    return found;
                }
                continue;
            }
            let piece = tokio::time::timeout(Duration::from_secs(20), self.body.next()).await;
            self.text.push_str(std::str::from_utf8(&piece.expect("an event").unwrap().unwrap()).unwrap());
        }
    }

    /// The next event of `name` of which `is` is true.
    async fn until(&mut self, name: &str, is: impl Fn(&Value) -> bool) -> Value {
        loop {
            let (found, data) = self.next().await;
            if found == name && is(&data) {
                return data;
            }
        }
    }
}

#[tokio::test]
async fn models_and_jobs_are_followed_in_one_stream() {
    let api = start().await;
    let other = api.custom_job(1).await;
    api.call("POST", &format!("/v1/jobs/{other}/cancel")).await.ok();
    let mut events = Events::open(&api, "/v1/events?state=queued").await;
    assert_eq!(events.headers["content-type"], "text/event-stream");
    assert_eq!(events.headers["heartbeat-ms"], "15000");
    let (name, models) = events.next().await;
    assert_eq!((name.as_str(), &models["data"][0]["state"]), ("models", &json!("not_loaded")));
    assert!(models["memory"]["total_bytes"].as_u64().unwrap() > 0, "{models}");
    let (name, jobs) = events.next().await;
    assert_eq!((name.as_str(), jobs), ("jobs", json!({"jobs": []})));
    // what the query leaves out is no news
    let id = api.custom_job(3).await;
    let jobs = events.until("jobs", |_| true).await;
    assert_eq!((&jobs["jobs"][0]["id"], jobs["jobs"].as_array().unwrap().len()), (&json!(id), 1));
    let waits = |models: &Value| models["data"][0]["items_waiting"] == 3;
    events.until("models", waits).await;
    // a load that fails is seen to, without a word of the job
    api.call("POST", "/v1/models/concept/load").await.ok();
    let models = events.until("models", |models| models["data"][0]["state"] == "error").await;
    assert!(models["data"][0]["error"]["hint"].is_string(), "{models}");
    api.get("/v1/events?limit=0").await.problem(Code::InvalidRequest);
    api.get("/v1/events?colour=red").await.problem(Code::InvalidRequest);
    api.shutdown.request();
    let rest = async { while events.body.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(5), rest).await.unwrap();
}

#[tokio::test]
async fn streams_are_bounded_and_say_when_the_database_is_away() {
    let store = postgres::fresh_database().await;
    let api = start_on(store, |settings| settings.http.max_streams = 2).await;
    let id = api.custom_job(1).await;
    let mut all = Events::open(&api, "/v1/events").await;
    let mut one = Events::open(&api, &format!("/v1/jobs/{id}/events")).await;
    api.get("/v1/events").await.problem(Code::Overloaded);
    all.until("jobs", |_| true).await;
    assert_eq!(one.next().await.0, "snapshot");
    api.store.close().await;
    assert_eq!(all.until("unavailable", |_| true).await, json!({}));
    assert_eq!(one.until("unavailable", |_| true).await, json!({}));
    // models are still told of; their queues are not known
    let models = all.until("models", |models| models["data"][0]["items_waiting"].is_null()).await;
    assert_eq!(models["data"][0]["state"], "not_loaded");
}

/// Ends a job of ten: 0 to 3 fail with one code, 4 with another.
async fn with_failures(api: &Api) -> adit::domain::id::JobId {
    let id = api.custom_job(10).await;
    let claim = &api.claim(10).await[0];
    let end = |seq: i32| match seq {
        0..=3 => result(seq, true),
        4 => NewResult {
            outcome: Outcome::Failed { code: Code::PromptTooLong, message: "too long".into() },
            ..result(seq, true)
        },
        _ => result(seq, false),
    };
    let results: Vec<NewResult> = (0..10).map(end).collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    api.store.finish(&Finish { claim, results: &results, again: &[], again_after_ms: 0 }).await.unwrap();
    id
}

#[tokio::test]
async fn errors_are_grouped_and_retried_by_code() {
    let api = start().await;
    let id = with_failures(&api).await;
    let path = format!("/v1/jobs/{id}");
    let errors = api.get(&format!("{path}/errors")).await.ok();
    assert_eq!(
        errors["errors"][0],
        json!({"code": "invalid_answer", "about": Code::InvalidAnswer.about(), "stage": "custom", "items": 4,
               "first": 0, "message": "planted", "can_retry": true})
    );
    assert_eq!(
        (&errors["errors"][1]["code"], &errors["errors"][1]["items"]),
        (&json!("prompt_too_long"), &json!(1))
    );
    assert_eq!(errors["errors"].as_array().unwrap().len(), 2);

    let retried = api.call("POST", &format!("{path}/retry?code=poison")).await.ok();
    assert_eq!((&retried["items"], &retried["job"]["state"]), (&json!(0), &json!("completed")));
    assert!(retried["job"]["retried_at"].is_null());
    let retried = api.call("POST", &format!("{path}/retry?code=invalid_answer")).await.ok();
    let counts = &retried["job"]["counts"];
    assert_eq!((&retried["items"], &counts["waiting"], &counts["failed"]), (&json!(4), &json!(4), &json!(1)));
    assert!(retried["job"]["retried_at"].is_string());
    assert_invariants(&api.store).await;
    let left = api.get(&format!("{path}/errors")).await.ok();
    assert_eq!(left["errors"].as_array().unwrap().len(), 1);
    api.call("POST", &format!("{path}/retry?code=bad_luck")).await.problem(Code::InvalidRequest);

    let claims = api.claim(10).await;
    api.end(&claims, |_| false).await;
    let job = api.get(&path).await.ok();
    assert_eq!((&job["state"], &job["counts"]["succeeded"]), (&json!("completed"), &json!(9)));
    api.call("POST", &format!("{path}/cancel")).await;
    api.get("/v1/jobs/01890000-0000-7000-8000-000000000000/errors").await.problem(Code::NotFound);
    assert_invariants(&api.store).await;
}

#[tokio::test]
async fn what_was_asked_comes_with_the_answer_where_it_is_wanted() {
    let api = start().await;
    let id = with_failures(&api).await;
    let path = format!("/v1/jobs/{id}/results");
    let page = api.get(&format!("{path}?limit=2&outcome=succeeded&input=true")).await.ok();
    let first = &page["results"][0];
    assert_eq!(
        (&first["seq"], &first["input"]["text"], &first["attempts"]),
        (&json!(5), &json!("text 5"), &json!(1))
    );
    assert!(first["finished_at"].is_string(), "{first}");
    let plain = api.get(&format!("{path}?limit=1")).await.ok();
    assert!(plain["results"][0].get("input").is_none(), "{plain}");
    let lines = api.lines(&format!("{path}?input=true")).await;
    assert_eq!((lines.len(), &lines[9]["input"]["text"]), (10, &json!("text 9")));
}

#[tokio::test]
async fn the_history_of_throughput_has_every_item() {
    let api = start_with(|settings| settings.http.stream_poll_ms = 20).await;
    let waiting = api.custom_job(2).await;
    let none = api.get(&format!("/v1/jobs/{waiting}/throughput")).await.ok();
    assert_eq!(none, json!({"interval_s": 0.0, "intervals": []}));
    api.call("POST", &format!("/v1/jobs/{waiting}/cancel")).await.ok();
    let id = with_failures(&api).await;
    let path = format!("/v1/jobs/{id}/throughput");
    let history = api.get(&format!("{path}?intervals=7")).await.ok();
    let intervals = history["intervals"].as_array().unwrap();
    assert_eq!(intervals.len(), 7);
    let length = history["interval_s"].as_f64().unwrap();
    let sum = |name: &str| intervals.iter().map(|rates| rates[name].as_f64().unwrap() * length).sum::<f64>();
    assert!((sum("items_per_s") - 10.0).abs() < 1e-6, "{history}");
    assert!((sum("output_tokens_per_s") - 50.0).abs() < 1e-6, "{history}");
    assert!(history["from"].as_str() < history["until"].as_str());
    api.get(&format!("{path}?intervals=0")).await.problem(Code::InvalidRequest);
    api.get("/v1/jobs/01890000-0000-7000-8000-000000000000/throughput").await.problem(Code::NotFound);
}
