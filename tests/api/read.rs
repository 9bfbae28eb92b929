//! Reading jobs and results: pages, filters, streams, exports; changing jobs.

use adit::domain::code::Code;
use adit::domain::confidence::{Confidence, ItemConfidence};
use adit::domain::item::NewResult;
use adit::store::finish::Write;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Api, custom, result, start, start_with};
use crate::support::postgres::assert_invariants;

async fn ids(api: &Api, query: &str) -> (Vec<Value>, Value) {
    let page = api.get(&format!("/v1/jobs?{query}")).await.ok();
    (page["jobs"].as_array().unwrap().iter().map(|job| job["id"].clone()).collect(), page["next"].clone())
}

#[tokio::test]
async fn jobs_page_by_key_newest_first() {
    let api = start().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(json!(api.custom_job(1).await));
    }
    made.reverse();
    let (first, next) = ids(&api, "limit=2").await;
    // a job that comes meanwhile shifts no page
    api.custom_job(1).await;
    let (second, next2) = ids(&api, &format!("limit=2&after={}", next.as_str().unwrap())).await;
    let (third, end) = ids(&api, &format!("limit=2&after={}", next2.as_str().unwrap())).await;
    assert_eq!([first, second, third].concat(), made);
    assert_eq!(end, Value::Null);
}

#[tokio::test]
async fn jobs_are_filtered() {
    let api = start().await;
    let custom_job = json!(api.custom_job(1).await);
    let model = api.post(&json!({"task": "data_model", "inputs": ["a"]})).await.ok()["id"].clone();
    let other =
        api.post(&json!({"task": "concept", "model": "attribute", "inputs": ["a"]})).await.ok()["id"].clone();
    api.call("POST", &format!("/v1/jobs/{}/cancel", other.as_str().unwrap())).await.ok();
    assert_eq!(ids(&api, "task=custom").await.0, std::slice::from_ref(&custom_job));
    assert_eq!(ids(&api, "state=cancelled").await.0, std::slice::from_ref(&other));
    assert_eq!(ids(&api, "model=attribute").await.0, [other]);
    assert_eq!(ids(&api, "model=concept&state=queued").await.0, [model, custom_job]);
    api.get("/v1/jobs?limit=0").await.problem(Code::InvalidRequest);
    api.get("/v1/jobs?limit=1001").await.problem(Code::InvalidRequest);
    api.get("/v1/jobs?limit=1000").await.ok();
    let problem = api.get("/v1/jobs?colour=red").await.problem(Code::InvalidRequest);
    assert!(problem["detail"].as_str().unwrap().contains("colour"), "{problem}");
}

#[tokio::test]
async fn results_are_read_while_the_job_runs() {
    let api = start().await;
    let id = api.custom_job(10).await;
    let path = format!("/v1/jobs/{id}/results");
    assert_eq!(api.get(&path).await.ok(), json!({"results": [], "complete": false}));
    let claims = api.claim(10).await;
    api.commit(&claims[0], &[0, 1, 4]).await;

    let job = api.get(&format!("/v1/jobs/{id}")).await.ok();
    assert_eq!(job["state"], "running");
    assert_eq!((&job["counts"]["succeeded"], &job["counts"]["running"]), (&json!(3), &json!(7)));
    assert_eq!(
        job["usage"],
        json!({"prompt_tokens": 30, "prefix_hit_tokens": 12, "output_tokens": 15, "forced_tokens": 6})
    );
    let page = api.get(&format!("{path}?limit=2")).await.ok();
    let seqs = |page: &Value| -> Vec<i64> {
        page["results"].as_array().unwrap().iter().map(|r| r["seq"].as_i64().unwrap()).collect()
    };
    assert_eq!((seqs(&page), &page["next"], &page["complete"]), (vec![0, 1], &json!(1), &json!(false)));
    assert_eq!(seqs(&api.get(&format!("{path}?limit=2&after=1")).await.ok()), [4]);
    assert_eq!(page["results"][0]["output"].to_string(), r#"{"b":0,"a":"kept in order"}"#);

    api.end(&claims, |seq| seq == 7).await;
    let job = api.get(&format!("/v1/jobs/{id}")).await.ok();
    assert_eq!((&job["state"], &job["counts"]["failed"]), (&json!("completed"), &json!(1)));
    assert!(job["throughput"]["items_per_s"].as_f64().unwrap() > 0.0);
    assert_eq!(api.get(&path).await.ok()["complete"], true);
    let failed = api.get(&format!("{path}?outcome=failed")).await.ok();
    assert_eq!(seqs(&failed), [7]);
    assert_eq!(failed["results"][0]["error"], json!({"code": "invalid_answer", "message": "planted"}));
    let lines = api.lines(&path).await;
    assert_eq!(
        lines.iter().map(|line| line["seq"].as_i64().unwrap()).collect::<Vec<_>>(),
        (0..10).collect::<Vec<_>>()
    );
    assert_eq!(api.lines(&format!("{path}?after=6&limit=2")).await.len(), 2);
    assert_eq!(api.lines(&format!("{path}?outcome=failed")).await.len(), 1);
    assert_invariants(&api.store).await;
}

#[tokio::test]
async fn a_following_stream_misses_nothing_and_ends_with_the_job() {
    let api = start_with(|settings| settings.http.max_streams = 1).await;
    let id = api.custom_job(300).await;
    let path = format!("/v1/jobs/{id}/results?follow=true");
    let reading = api.lines(&path);
    let working = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        // chunks end out of order; the one stream that may be open is open
        let claims = api.claim(300).await;
        api.commit(&claims[0], &[5, 3]).await;
        let refused = axum::http::Request::get(&path).header("accept", "application/x-ndjson");
        api.send(refused.body(axum::body::Body::empty()).unwrap()).await.problem(Code::Overloaded);
        for claim in claims.iter().rev() {
            api.end(std::slice::from_ref(claim), |seq| seq % 7 == 0).await;
        }
    };
    let (lines, ()) = tokio::join!(reading, working);
    let seqs: Vec<i64> = lines.iter().map(|line| line["seq"].as_i64().unwrap()).collect();
    assert_eq!(seqs, (0..300).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_cancelled_job_keeps_what_it_has_and_can_be_deleted() {
    let api = start().await;
    let id = api.custom_job(600).await;
    let path = format!("/v1/jobs/{id}");
    let claims = api.claim(256).await;
    api.end(&claims, |_| false).await;
    api.call("DELETE", &path).await.problem(Code::InvalidState);
    let job = api.call("POST", &format!("{path}/cancel")).await.ok();
    assert_eq!(
        (&job["state"], &job["counts"]["succeeded"], &job["counts"]["cancelled"]),
        (&json!("cancelled"), &json!(256), &json!(344))
    );
    let lines = api.lines(&format!("{path}/results")).await;
    assert_eq!(lines.len(), 600);
    assert_eq!(lines.iter().filter(|line| line["outcome"] == "cancelled").count(), 344);
    assert_eq!(api.call("DELETE", &path).await.status, StatusCode::NO_CONTENT);
    api.get(&path).await.problem(Code::NotFound);
    api.call("DELETE", &path).await.problem(Code::NotFound);
}

#[tokio::test]
async fn failed_items_are_run_again() {
    let api = start().await;
    let id = api.custom_job(10).await;
    let claims = api.claim(10).await;
    api.end(&claims, |seq| seq < 4).await;
    let retried = api.call("POST", &format!("/v1/jobs/{id}/retry")).await.ok();
    assert_eq!((&retried["items"], &retried["job"]["counts"]["waiting"]), (&json!(4), &json!(4)));
    let claims = api.claim(10).await;
    api.end(&claims, |_| false).await;
    let job = api.get(&format!("/v1/jobs/{id}")).await.ok();
    assert_eq!((&job["state"], &job["counts"]["succeeded"]), (&json!("completed"), &json!(10)));
    assert_invariants(&api.store).await;
}

#[tokio::test]
async fn a_schema_job_is_exported_in_every_format() {
    let api = start().await;
    let ddl = "create table customers (id int primary key, name text);";
    let job = api.post(&json!({"task": "concept", "source": {"format": "ddl", "text": ddl}})).await.ok();
    let id = job["id"].as_str().unwrap();
    for (format, kind, says) in [
        ("json", "application/json", "customers"),
        ("mermaid", "text/", "erDiagram"),
        ("turtle", "text/turtle", "owl:Ontology"),
        ("r2rml", "text/turtle", "http://www.w3.org/ns/r2rml#"),
        ("shacl", "text/turtle", "http://www.w3.org/ns/shacl#"),
        ("csv", "text/csv", ","),
        ("dbt", "", "version"),
        ("dot", "text/vnd.graphviz", "digraph"),
    ] {
        let answer = api.get(&format!("/v1/jobs/{id}/export?format={format}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert!(answer.headers["content-type"].to_str().unwrap().starts_with(kind), "{format}");
        assert!(answer.text().contains(says), "{format}: {}", answer.text());
    }
    let model = api.get(&format!("/v1/jobs/{id}/export?format=json")).await.ok();
    assert_eq!(model["uncovered"][0]["reason"], "not_yet", "{model}");
    api.get(&format!("/v1/jobs/{id}/export?format=visio")).await.problem(Code::InvalidRequest);
    api.get(&format!("/v1/jobs/{id}/export")).await.problem(Code::InvalidRequest);
    let texts = api.post(&custom(json!(["a"]))).await.ok();
    let path = format!("/v1/jobs/{}/export?format=json", texts["id"].as_str().unwrap());
    api.get(&path).await.problem(Code::InvalidState);
}

#[tokio::test]
async fn results_of_a_low_confidence_are_found() {
    let api = start().await;
    let id = api.custom_job(6).await;
    let claims = api.claim(6).await;
    let sure = |seq: i32| {
        let least = Confidence::new(f64::from(seq) / 10.0).unwrap();
        let fields = [("/a".to_string(), least), ("/b".to_string(), Confidence::CERTAIN)].into();
        NewResult { confidence: (seq != 5).then_some(ItemConfidence { least, fields }), ..result(seq, false) }
    };
    let results: Vec<NewResult> = (0..6).map(sure).collect();
    api.store.commit_results(&[Write { claim: &claims[0], results: &results }]).await.unwrap();
    let path = format!("/v1/jobs/{id}/results");
    let all = api.get(&path).await.ok();
    assert_eq!(all["results"][3]["confidence"], 0.3);
    assert_eq!(all["results"][3]["field_confidence"], json!({"/a": 0.3, "/b": 1.0}));
    assert_eq!(all["results"][5].get("confidence"), None);
    let low = api.get(&format!("{path}?below=0.3")).await.ok();
    let seqs: Vec<&Value> = low["results"].as_array().unwrap().iter().map(|one| &one["seq"]).collect();
    assert_eq!(seqs, [0, 1, 2]);
    assert_eq!(api.lines(&format!("{path}?below=0.5")).await.len(), 5);
    for wrong in ["below=1.1", "below=-1", "below=0.5&outcome=failed"] {
        let problem = api.get(&format!("{path}?{wrong}")).await.problem(Code::InvalidRequest);
        assert!(problem["detail"].as_str().unwrap().contains("below"), "{problem}");
    }
    assert_invariants(&api.store).await;
}
