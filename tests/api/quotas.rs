//! What a key may ask in a minute, and how much it may have waiting.

use adit::domain::code::Code;
use adit::domain::key::{NewKey, Scopes};
use serde_json::json;

use crate::harness::{Api, custom};
use crate::keys::locked;

fn bounded(rate: Option<i32>, tokens: Option<i64>) -> NewKey {
    NewKey {
        tenant: "t".into(),
        name: "n".into(),
        scopes: Scopes::all(),
        expires_at: None,
        rate_per_minute: rate,
        max_queued_tokens: tokens,
    }
}

/// Some 150 tokens.
fn text() -> String {
    "x".repeat(600)
}

async fn submit(api: &Api) -> crate::harness::Answer {
    api.post(&custom(json!([text()]))).await
}

#[tokio::test]
async fn a_key_asks_so_often_a_minute() {
    let api = locked().await;
    let slow = api.holder_of(bounded(Some(3), None)).await;
    for _ in 0..3 {
        slow.get("/v1/jobs").await.ok();
    }
    let answer = slow.get("/v1/jobs").await;
    let problem = answer.problem(Code::RateLimited);
    let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait) && problem["retry_after_s"] == wait, "{problem}");
    slow.get("/v1/files").await.refusal(429, "rate_limit_exceeded", None);
    // probes do not count, and others are not held up
    slow.get("/livez").await.ok();
    api.holder_of(bounded(Some(3), None)).await.get("/v1/jobs").await.ok();
}

#[tokio::test]
async fn what_waits_is_bounded_and_what_ended_does_not_count() {
    let api = locked().await;
    let holder = api.holder_of(bounded(None, Some(400))).await;
    let first = submit(&holder).await.ok()["id"].as_str().unwrap().to_string();
    submit(&holder).await.ok();
    let answer = submit(&holder).await;
    let problem = answer.problem(Code::QuotaExceeded);
    assert!(problem["detail"].as_str().unwrap().contains("max_queued_tokens (400)"), "{problem}");
    assert_eq!(answer.headers["retry-after"], "30");
    let lines = format!("{}\n", json!(text()));
    holder.post_lines("task=custom&schema=%7B%7D", lines, None).await.problem(Code::QuotaExceeded);
    let names: Vec<String> = (0..20).map(|n| format!("{}_{n}", "a".repeat(60))).collect();
    let tables = json!({"task": "concept", "source": {"format": "tables", "text": json!(names).to_string()}});
    let answer = holder.post(&tables).await;
    assert!(matches!(answer.status.as_u16(), 413 | 429), "the catalog counts too: {}", answer.text());
    assert_eq!(
        holder.get("/v1/jobs").await.ok()["jobs"].as_array().unwrap().len(),
        2,
        "nothing is left behind"
    );

    // alone too much: waiting would not help
    let large = custom(json!([text(), text(), text()]));
    holder.post(&large).await.problem(Code::TooLarge);

    holder.call("POST", &format!("/v1/jobs/{first}/cancel")).await.ok();
    submit(&holder).await.ok();
    submit(&holder).await.problem(Code::QuotaExceeded);
    // what has run does not wait
    let claims = api.claim(10).await;
    api.end(&claims, |_| false).await;
    submit(&holder).await.ok();
    submit(&holder).await.ok();
    // a key of the same tenant has a quota of its own
    submit(&api.holder_of(bounded(None, Some(400))).await).await.ok();
    submit(&api.holder_of(bounded(None, None)).await).await.ok();
}

#[tokio::test]
async fn a_repeated_submission_is_answered_whatever_waits() {
    let api = locked().await;
    let holder = api.holder_of(bounded(None, Some(200))).await;
    let body = custom(json!([text()])).to_string();
    let first = holder.post_keyed(body.clone(), Some("once")).await;
    let again = holder.post_keyed(body, Some("once")).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (202, 200));
    assert_eq!(first.ok()["id"], again.ok()["id"]);
    submit(&holder).await.problem(Code::QuotaExceeded);
}

#[tokio::test]
async fn of_submissions_at_once_only_those_that_fit_come_in() {
    let api = locked().await;
    let holder = api.holder_of(bounded(None, Some(400))).await;
    let answers = futures::future::join_all((0..6).map(|_| submit(&holder))).await;
    let accepted = answers.iter().filter(|answer| answer.status.is_success()).count();
    assert_eq!(accepted, 2);
    answers.iter().filter(|answer| !answer.status.is_success()).for_each(|answer| {
        answer.problem(Code::QuotaExceeded);
    });
}

#[tokio::test]
async fn batches_count_from_their_creation_on() {
    let api = locked().await;
    let holder = api.holder_of(bounded(None, Some(400))).await;
    let line = json!({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
                      "body": {"model": "concept", "messages": [{"role": "user", "content": "x".repeat(700)}]}});
    let file = holder.upload(format!("{line}\n")).await;
    let asked =
        json!({"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"});
    let first = holder.post_to("/v1/batches", &asked).await.ok()["id"].as_str().unwrap().to_string();
    holder.post_to("/v1/batches", &asked).await.refusal(429, "quota_exceeded", None);
    submit(&holder).await.ok();
    submit(&holder).await.problem(Code::QuotaExceeded);
    // its lines count in the file's place once they are a job
    api.tend_batches();
    let place = format!("/v1/batches/{first}");
    while holder.get(&place).await.ok()["status"] == "validating" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    submit(&holder).await.problem(Code::QuotaExceeded);
    holder.call("POST", &format!("{place}/cancel")).await.ok();
    submit(&holder).await.ok();
}
