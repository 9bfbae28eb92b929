//! `/v1/batches`, field by field: states, counts, files, lines that cannot be run, cancelling, expiry.

use std::time::{Duration, Instant};

use adit::domain::code::Code;
use adit::domain::id::BatchId;
use adit::domain::item::{NewResult, Outcome};
use adit::domain::lease::Claim;
use adit::domain::usage::Usage;
use adit::store::finish::{Finish, Write};
use axum::http::Request;
use serde_json::{Value, json};

use crate::harness::{Api, start, start_with};
use crate::support::postgres::assert_invariants;

const FIELDS: [&str; 22] = [
    "id",
    "object",
    "endpoint",
    "model",
    "errors",
    "input_file_id",
    "completion_window",
    "status",
    "output_file_id",
    "error_file_id",
    "created_at",
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
    "request_counts",
    "usage",
    "metadata",
];

pub fn line(custom_id: &str, model: &str) -> Value {
    json!({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions",
           "body": {"model": model, "messages": [{"role": "user", "content": "hi"}]}})
}

fn lines(n: usize) -> String {
    (0..n).map(|at| format!("{}\n", line(&format!("r{at}"), "concept"))).collect()
}

fn asked(file: &str) -> Value {
    json!({"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"})
}

async fn create(api: &Api, content: impl AsRef<[u8]>) -> String {
    let file = api.upload(content).await;
    let batch = api.post_to("/v1/batches", &asked(&file)).await.ok();
    batch["id"].as_str().unwrap().to_string()
}

async fn get(api: &Api, id: &str) -> Value {
    api.get(&format!("/v1/batches/{id}")).await.ok()
}

/// The batch once it has this status.
async fn until(api: &Api, id: &str, status: &str) -> Value {
    let begun = Instant::now();
    loop {
        let batch = get(api, id).await;
        if batch["status"] == status {
            return batch;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "not {status}: {batch}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The lines of one of a batch's files, and whether more are to come.
async fn read(api: &Api, file: &Value) -> (Vec<Value>, bool) {
    let answer = api.get(&format!("/v1/files/{}/content", file.as_str().unwrap())).await;
    assert!(answer.status.is_success());
    let lines = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (lines, answer.headers.get("x-incomplete").is_some_and(|value| value == "true"))
}

fn succeeded(seq: i32) -> NewResult {
    let output = json!({"content": format!("answer {seq}"), "finish": "stop"});
    let usage = Usage { prompt_tokens: 10, prefix_hit_tokens: 4, output_tokens: 5, forced_tokens: 2 };
    NewResult { seq, outcome: Outcome::Succeeded { output }, usage, latency_ms: 7, confidence: None }
}

fn failed(seq: i32) -> NewResult {
    let outcome = Outcome::Failed { code: Code::PromptTooLong, message: "planted".into() };
    NewResult { seq, outcome, usage: Usage::default(), latency_ms: 7, confidence: None }
}

async fn finish(api: &Api, claim: &Claim, results: &[NewResult]) {
    api.store.finish(&Finish { claim, results, again: &[], again_after_ms: 0 }).await.unwrap();
}

fn times(batch: &Value) -> Vec<&'static str> {
    FIELDS.into_iter().filter(|name| name.ends_with("_at") && !batch[*name].is_null()).collect()
}

#[tokio::test]
async fn a_batch_runs_through_its_states_and_can_be_read_all_along() {
    let api = start().await;
    let file = api.upload(lines(3)).await;
    let mut request = asked(&file);
    request["metadata"] = json!({"run": "7"});
    let batch = api.post_to("/v1/batches", &request).await.ok();
    assert_eq!(batch.as_object().unwrap().keys().collect::<Vec<_>>(), FIELDS);
    assert_eq!((&batch["object"], &batch["status"]), (&json!("batch"), &json!("validating")));
    assert_eq!((&batch["input_file_id"], &batch["completion_window"]), (&json!(file), &json!("24h")));
    assert_eq!(
        (&batch["endpoint"], &batch["metadata"]),
        (&json!("/v1/chat/completions"), &json!({"run": "7"}))
    );
    assert_eq!(batch["request_counts"], json!({"total": 0, "completed": 0, "failed": 0}));
    assert_eq!((&batch["usage"], &batch["errors"]), (&Value::Null, &Value::Null));
    assert_eq!(times(&batch), ["created_at", "expires_at"]);
    assert_eq!(batch["expires_at"].as_i64().unwrap() - batch["created_at"].as_i64().unwrap(), 86_400);
    let id = batch["id"].as_str().unwrap();

    api.tend_batches();
    let batch = until(&api, id, "in_progress").await;
    assert_eq!(batch["request_counts"], json!({"total": 3, "completed": 0, "failed": 0}));
    assert_eq!(times(&batch), ["created_at", "in_progress_at", "expires_at"]);
    assert_eq!((&batch["model"], &batch["output_file_id"]), (&json!("concept"), &Value::Null));
    // the file is not needed any more
    api.call("DELETE", &format!("/v1/files/{file}")).await.ok();

    let claims = api.claim(3).await;
    api.store.commit_results(&[Write { claim: &claims[0], results: &[succeeded(1)] }]).await.unwrap();
    let batch = get(&api, id).await;
    assert_eq!((&batch["status"], &batch["error_file_id"]), (&json!("in_progress"), &Value::Null));
    assert_eq!(batch["request_counts"], json!({"total": 3, "completed": 1, "failed": 0}));
    let (partial, is_incomplete) = read(&api, &batch["output_file_id"]).await;
    assert_eq!((partial.len(), is_incomplete), (1, true));
    let shown = api.get(&format!("/v1/files/{}", batch["output_file_id"].as_str().unwrap())).await.ok();
    assert_eq!((&shown["purpose"], &shown["status"]), (&json!("batch_output"), &json!("uploaded")));

    finish(&api, &claims[0], &[succeeded(0), failed(2)]).await;
    let batch = until(&api, id, "completed").await;
    assert_eq!(
        times(&batch),
        ["created_at", "in_progress_at", "expires_at", "finalizing_at", "completed_at"]
    );
    assert_eq!(batch["request_counts"], json!({"total": 3, "completed": 2, "failed": 1}));
    assert_eq!(
        batch["usage"],
        json!({"input_tokens": 20, "input_tokens_details": {"cached_tokens": 8}, "output_tokens": 10,
               "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 30})
    );
    let (output, is_incomplete) = read(&api, &batch["output_file_id"]).await;
    assert!(!is_incomplete && output.len() == 2 && output[1] == partial[0]);
    let first = &output[0];
    assert_eq!(
        first.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["id", "custom_id", "response", "error"]
    );
    assert_eq!((&first["custom_id"], &first["error"]), (&json!("r0"), &Value::Null));
    assert!(first["id"].as_str().unwrap().starts_with("batch_req_"));
    assert_eq!(first["response"]["status_code"], 200);
    assert!(first["response"]["request_id"].is_string());
    let body = &first["response"]["body"];
    assert_eq!((&body["object"], &body["model"]), (&json!("chat.completion"), &json!("concept")));
    assert_eq!(
        body["choices"],
        json!([{"index": 0, "message": {"role": "assistant", "content": "answer 0", "refusal": null},
                "logprobs": null, "finish_reason": "stop"}])
    );
    assert_eq!(body["usage"]["total_tokens"], 15);
    let (errors, _) = read(&api, &batch["error_file_id"]).await;
    assert_eq!(errors.len(), 1);
    assert_eq!((&errors[0]["custom_id"], &errors[0]["line"]), (&json!("r2"), &json!(3)));
    assert_eq!(errors[0]["response"]["status_code"], 400);
    assert_eq!(
        errors[0]["response"]["body"]["error"],
        json!({"message": "planted", "type": "invalid_request_error", "param": null, "code": "context_length_exceeded"})
    );
    // what is listed has the size of what is read
    let listed = api.get("/v1/files?purpose=batch_output").await.ok();
    for file in listed["data"].as_array().unwrap() {
        let content = api.get(&format!("/v1/files/{}/content", file["id"].as_str().unwrap())).await;
        assert_eq!(file["bytes"], json!(content.bytes.len()), "{file}");
        assert_eq!(file["status"], "processed");
    }
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    let refused = api.call("POST", &format!("/v1/batches/{id}/cancel")).await;
    assert!(refused.refusal(409, "invalid_state", None)["message"].as_str().unwrap().contains("completed"));
    assert_invariants(&api.store).await;
}

#[tokio::test]
async fn a_bad_line_goes_to_the_error_file_with_its_number_and_the_rest_runs() {
    let api = start_with(|settings| settings.limits.max_line_bytes = 600).await;
    api.tend_batches();
    let with = |change: fn(&mut Value)| {
        let mut line = line("x", "concept");
        change(&mut line);
        line.to_string()
    };
    // what it is, text, custom_id in the error file, code, param
    type Bad<'a> = (&'a str, String, Option<&'a str>, &'a str, Option<&'a str>);
    let bad: [Bad; 12] = [
        ("no JSON", "{\"custom_id\": ".into(), None, "invalid_request", None),
        ("no object", "[1]".into(), None, "invalid_request", None),
        ("no name", "{}".into(), None, "invalid_request", Some("custom_id")),
        ("a second r0", line("r0", "concept").to_string(), Some("r0"), "invalid_request", Some("custom_id")),
        ("another model", line("m", "nobody").to_string(), Some("m"), "model_not_found", Some("body.model")),
        (
            "GET",
            with(|l| (l["custom_id"], l["method"]) = ("g".into(), "GET".into())),
            Some("g"),
            "invalid_request",
            Some("method"),
        ),
        (
            "url",
            with(|l| (l["custom_id"], l["url"]) = ("u".into(), "/v1/embeddings".into())),
            Some("u"),
            "invalid_request",
            Some("url"),
        ),
        (
            "field",
            with(|l| (l["custom_id"], l["color"]) = ("c".into(), "red".into())),
            Some("c"),
            "invalid_request",
            Some("color"),
        ),
        (
            "stream",
            with(|l| (l["custom_id"], l["body"]["stream"]) = ("s".into(), true.into())),
            Some("s"),
            "invalid_request",
            Some("body.stream"),
        ),
        (
            "tools",
            with(|l| (l["custom_id"], l["body"]["tools"]) = ("t".into(), json!([{}]))),
            Some("t"),
            "invalid_request",
            Some("body.tools"),
        ),
        (
            "too long",
            with(|l| (l["custom_id"], l["body"]["user"]) = ("l".into(), "x".repeat(600).into())),
            None,
            "too_large",
            None,
        ),
        (
            "schema",
            with(|l| {
                l["custom_id"] = "j".into();
                l["body"]["response_format"] =
                    json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"not": {}}}});
            }),
            Some("j"),
            "invalid_schema",
            Some("body.response_format.json_schema.schema.not"),
        ),
    ];
    let mut content = format!("\u{feff}{}\n\n", line("r0", "concept"));
    for (_, text, ..) in &bad {
        content.push_str(text);
        content.push('\n');
    }
    // the last line has no end
    content.push_str(&line("r1", "concept").to_string());
    let id = create(&api, content).await;
    // they need no model, and are there to be read before the first one runs
    let batch = until(&api, &id, "in_progress").await;
    assert_eq!(batch["request_counts"], json!({"total": 14, "completed": 0, "failed": 12}));
    let (early, is_incomplete) = read(&api, &batch["error_file_id"]).await;
    assert!(is_incomplete);
    assert_invariants(&api.store).await;
    let claims = api.claim(100).await;
    let items = api.store.claimed_items(&claims).await.unwrap();
    assert_eq!(items.len(), 2);
    finish(&api, &claims[0], &[succeeded(0), succeeded(1)]).await;
    let batch = until(&api, &id, "completed").await;
    assert_eq!(batch["request_counts"], json!({"total": 14, "completed": 2, "failed": 12}));
    let (output, _) = read(&api, &batch["output_file_id"]).await;
    let names: Vec<&Value> = output.iter().map(|line| &line["custom_id"]).collect();
    assert_eq!(names, ["r0", "r1"]);
    let (errors, _) = read(&api, &batch["error_file_id"]).await;
    assert_eq!(errors, early);
    for ((what, _, custom_id, code, param), (at, error)) in bad.iter().zip(errors.iter().enumerate()) {
        let number = at + 3;
        assert_eq!((&error["line"], &error["custom_id"]), (&json!(number), &json!(custom_id)), "{what}");
        assert_eq!(error["response"], Value::Null);
        assert_eq!(error["error"]["code"], *code, "{what}: {error}");
        assert_eq!(error["error"].get("param").and_then(Value::as_str), *param, "{what}: {error}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("line {number}: ")), "{message}");
    }
    assert_invariants(&api.store).await;
}

#[tokio::test]
async fn a_batch_without_a_good_line_fails_and_says_why() {
    let api = start_with(|settings| settings.limits.max_inputs = 3).await;
    api.tend_batches();
    for (content, code, line) in [
        ("\n \n".to_string(), "empty_file", Value::Null),
        (format!("{}\nx\n", line("a", "nobody")), "model_not_found", json!(1)),
        (lines(4), "too_many_requests", Value::Null),
    ] {
        let id = create(&api, content).await;
        let batch = until(&api, &id, "failed").await;
        assert_eq!(times(&batch), ["created_at", "expires_at", "failed_at"]);
        assert_eq!(batch["errors"]["object"], "list");
        let error = &batch["errors"]["data"][0];
        assert_eq!((&error["code"], &error["line"]), (&json!(code), &line), "{batch}");
        assert!(error["message"].is_string() && error.get("param").is_some());
        assert_eq!(batch["request_counts"]["total"], 0);
    }
    assert_eq!(api.get("/v1/jobs").await.ok()["jobs"], json!([]));
    // the limit itself runs
    until(&api, &create(&api, lines(3)).await, "in_progress").await;
    // a file that went away before it was read
    let api = start().await;
    let file = api.upload(lines(1)).await;
    let id = api.post_to("/v1/batches", &asked(&file)).await.ok()["id"].as_str().unwrap().to_string();
    api.call("DELETE", &format!("/v1/files/{file}")).await.ok();
    api.tend_batches();
    assert_eq!(until(&api, &id, "failed").await["errors"]["data"][0]["code"], "file_not_found");
}

#[tokio::test]
async fn lines_of_one_batch_may_name_different_models() {
    let api = start_with(|settings| settings.queue.chunk_items = 2).await;
    api.tend_batches();
    let models = ["concept", "attribute", "concept", "relationship", "attribute", "concept"];
    let content: String = models
        .iter()
        .enumerate()
        .map(|(at, model)| format!("{}\n", line(&format!("r{at}"), model)))
        .collect();
    let id = create(&api, content).await;
    let batch = until(&api, &id, "in_progress").await;
    assert_eq!((&batch["model"], &batch["request_counts"]["total"]), (&Value::Null, &json!(6)));
    let job: BatchId = id.parse().unwrap();
    let shown = api.get(&format!("/v1/jobs/{}", job.job())).await.ok();
    assert_eq!(shown["models"], json!(["concept", "attribute", "relationship"]));
    let totals: Vec<&Value> =
        shown["stages"].as_array().unwrap().iter().map(|s| &s["counts"]["total"]).collect();
    assert_eq!(totals, [3, 2, 1]);
    // each model's worker gets its own lines, and only those
    let claims = api.claim(100).await;
    let items = api.store.claimed_items(&claims).await.unwrap();
    let names: Vec<&Value> = items.iter().map(|item| &item.input["custom_id"]).collect();
    assert_eq!(names, ["r0", "r2", "r5"]);
    assert_invariants(&api.store).await;
}

#[tokio::test]
async fn a_cancelled_batch_keeps_what_was_answered() {
    let api = start().await;
    // before it is a job
    let early = create(&api, lines(2)).await;
    let batch = api.call("POST", &format!("/v1/batches/{early}/cancel")).await.ok();
    assert_eq!((&batch["status"], batch["cancelling_at"].is_i64()), (&json!("cancelling"), true));
    api.tend_batches();
    let batch = until(&api, &early, "cancelled").await;
    assert_eq!(times(&batch), ["created_at", "expires_at", "cancelling_at", "cancelled_at"]);

    let id = create(&api, lines(3)).await;
    until(&api, &id, "in_progress").await;
    let claims = api.claim(3).await;
    api.store.commit_results(&[Write { claim: &claims[0], results: &[succeeded(1)] }]).await.unwrap();
    let batch = api.call("POST", &format!("/v1/batches/{id}/cancel")).await.ok();
    assert!(["cancelling", "cancelled"].contains(&batch["status"].as_str().unwrap()), "{batch}");
    let batch = until(&api, &id, "cancelled").await;
    assert_eq!(
        times(&batch),
        ["created_at", "in_progress_at", "expires_at", "cancelling_at", "cancelled_at"]
    );
    assert_eq!(batch["request_counts"], json!({"total": 3, "completed": 1, "failed": 2}));
    assert_eq!(read(&api, &batch["output_file_id"]).await.0.len(), 1);
    let (errors, _) = read(&api, &batch["error_file_id"]).await;
    let codes: Vec<&Value> = errors.iter().map(|line| &line["error"]["code"]).collect();
    assert_eq!(codes, ["batch_cancelled", "batch_cancelled"]);
    // asking again changes nothing
    api.call("POST", &format!("/v1/batches/{id}/cancel")).await.ok();
    assert_invariants(&api.store).await;
}

#[tokio::test]
async fn what_has_not_run_when_the_window_closes_expires() {
    let api = start().await;
    api.tend_batches();
    let file = api.upload(lines(4)).await;
    let mut request = asked(&file);
    request["completion_window"] = json!("1h");
    request["output_expires_after"] = json!({"anchor": "created_at", "seconds": 7200});
    let batch = api.post_to("/v1/batches", &request).await.ok();
    assert_eq!(batch["expires_at"].as_i64().unwrap() - batch["created_at"].as_i64().unwrap(), 3_600);
    let id = batch["id"].as_str().unwrap();
    until(&api, id, "in_progress").await;
    let claims = api.claim(4).await;
    api.store.commit_results(&[Write { claim: &claims[0], results: &[succeeded(0)] }]).await.unwrap();
    let fences: Vec<_> = claims.iter().map(|claim| claim.fence).collect();
    api.store.release(&fences).await.unwrap();
    // the window closes
    sqlx::query("update jobs set expires_at = now() - interval '1 s'")
        .execute(api.store.pool())
        .await
        .unwrap();
    api.store.expire_due().await.unwrap();
    let batch = until(&api, id, "expired").await;
    assert_eq!(times(&batch), ["created_at", "in_progress_at", "expires_at", "finalizing_at", "expired_at"]);
    assert_eq!(batch["request_counts"], json!({"total": 4, "completed": 1, "failed": 3}));
    assert_eq!(read(&api, &batch["output_file_id"]).await.0.len(), 1);
    let (errors, is_incomplete) = read(&api, &batch["error_file_id"]).await;
    assert!(!is_incomplete && errors.len() == 3);
    assert!(errors.iter().all(|line| line["error"]["code"] == "batch_expired" && line["response"].is_null()));
    let file = api.get(&format!("/v1/files/{}", batch["output_file_id"].as_str().unwrap())).await.ok();
    let life = file["expires_at"].as_i64().unwrap() - batch["expired_at"].as_i64().unwrap();
    assert!((7199..=7201).contains(&life), "{life}");
    assert_invariants(&api.store).await;
}

/// Files are read page by page; more lines than a page has must all come, in either file.
#[tokio::test]
async fn files_of_many_lines_are_whole() {
    let api = start().await;
    api.tend_batches();
    let id = create(&api, lines(730)).await;
    until(&api, &id, "in_progress").await;
    let claims = api.claim(1000).await;
    for claim in &claims {
        let items = api.store.claimed_items(std::slice::from_ref(claim)).await.unwrap();
        let results: Vec<NewResult> = items
            .iter()
            .map(|item| if item.seq % 3 == 0 { failed(item.seq) } else { succeeded(item.seq) })
            .collect();
        finish(&api, claim, &results).await;
    }
    let batch = until(&api, &id, "completed").await;
    let (output, _) = read(&api, &batch["output_file_id"]).await;
    let (errors, _) = read(&api, &batch["error_file_id"]).await;
    assert_eq!((output.len(), errors.len()), (486, 244));
    let mut names: Vec<String> =
        output.iter().chain(&errors).map(|line| line["custom_id"].as_str().unwrap().to_string()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 730, "every line is in exactly one file");
}

#[tokio::test]
async fn batches_are_listed_newest_first() {
    let api = start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.insert(0, create(&api, lines(1)).await);
    }
    let listed = |list: &Value| -> Vec<String> {
        list["data"].as_array().unwrap().iter().map(|b| b["id"].as_str().unwrap().to_string()).collect()
    };
    let all = api.get("/v1/batches").await.ok();
    assert_eq!(
        all.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["object", "data", "first_id", "last_id", "has_more"]
    );
    assert_eq!((listed(&all), &all["has_more"]), (ids.clone(), &json!(false)));
    let page = api.get("/v1/batches?limit=2").await.ok();
    assert_eq!((listed(&page), &page["has_more"]), (ids[..2].to_vec(), &json!(true)));
    assert_eq!((&page["first_id"], &page["last_id"]), (&json!(ids[0]), &json!(ids[1])));
    let rest = api.get(&format!("/v1/batches?limit=2&after={}", ids[1])).await.ok();
    assert_eq!((listed(&rest), &rest["has_more"]), (ids[2..].to_vec(), &json!(false)));
    for query in ["limit=0", "limit=101"] {
        api.get(&format!("/v1/batches?{query}")).await.refusal(400, "invalid_request", Some("limit"));
    }
    api.get("/v1/batches?after=x").await.refusal(404, "not_found", Some("id"));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_named() {
    let api = start().await;
    let file = api.upload(lines(1)).await;
    let long: std::collections::BTreeMap<String, String> =
        (0..17).map(|n| (format!("k{n}"), String::new())).collect();
    for (name, value, param) in [
        ("endpoint", json!("/v1/embeddings"), Some("endpoint")),
        ("completion_window", json!("24"), Some("completion_window")),
        ("completion_window", json!("31d"), Some("completion_window")),
        ("input_file_id", json!("file-00000000000000000000000000000000"), Some("input_file_id")),
        ("input_file_id", json!("nothing"), Some("input_file_id")),
        ("metadata", json!({"": "x"}), Some("metadata")),
        ("metadata", json!(long), Some("metadata")),
        ("metadata", json!({"k": "x".repeat(513)}), Some("metadata.k")),
        (
            "output_expires_after",
            json!({"anchor": "created_at", "seconds": 3599}),
            Some("output_expires_after.seconds"),
        ),
        (
            "output_expires_after",
            json!({"anchor": "now", "seconds": 3600}),
            Some("output_expires_after.anchor"),
        ),
        ("priority", json!(3), None),
    ] {
        let mut request = asked(&file);
        request[name] = value;
        api.post_to("/v1/batches", &request).await.refusal(400, "invalid_request", param);
    }
    let unknown = "batch_00000000000000000000000000000000";
    for (method, path) in
        [("GET", unknown.to_string()), ("POST", format!("{unknown}/cancel")), ("GET", "x".into())]
    {
        let answer = api.call(method, &format!("/v1/batches/{path}")).await;
        answer.refusal(404, "not_found", Some("id"));
    }
    assert_eq!(api.get("/v1/batches").await.ok()["data"], json!([]));
    api.store.close().await;
    api.get("/v1/batches").await.refusal(503, "database_unavailable", None);
}

#[tokio::test]
async fn a_repeated_request_under_one_key_makes_one_batch() {
    let api = start().await;
    let file = api.upload(lines(1)).await;
    let send = async |request: &Value| {
        let request =
            Request::post("/v1/batches").header("idempotency-key", "k").body(request.to_string().into());
        api.send(request.unwrap()).await
    };
    let first = send(&asked(&file)).await.ok();
    assert_eq!(send(&asked(&file)).await.ok()["id"], first["id"]);
    let mut other = asked(&file);
    other["completion_window"] = json!("2h");
    send(&other).await.refusal(409, "idempotency_conflict", None);
    assert_eq!(api.get("/v1/batches").await.ok()["data"].as_array().unwrap().len(), 1);
}

/// A retry of failed items opens the batch again, and its files are measured anew.
#[tokio::test]
async fn failed_lines_can_be_retried_and_a_deleted_job_takes_its_batch() {
    let api = start().await;
    api.tend_batches();
    let id = create(&api, lines(2)).await;
    until(&api, &id, "in_progress").await;
    let claims = api.claim(2).await;
    finish(&api, &claims[0], &[succeeded(0), failed(1)]).await;
    until(&api, &id, "completed").await;
    let job = id.parse::<BatchId>().unwrap().job();
    api.call("POST", &format!("/v1/jobs/{job}/retry")).await.ok();
    assert_eq!(get(&api, &id).await["status"], "in_progress");
    let claims = api.claim(2).await;
    finish(&api, &claims[0], &[succeeded(1)]).await;
    let batch = until(&api, &id, "completed").await;
    assert_eq!(batch["request_counts"], json!({"total": 2, "completed": 2, "failed": 0}));
    assert_eq!(batch["error_file_id"], Value::Null);
    let output = batch["output_file_id"].as_str().unwrap();
    let bytes = api.get(&format!("/v1/files/{output}/content")).await.bytes.len();
    assert_eq!(api.get(&format!("/v1/files/{output}")).await.ok()["bytes"], json!(bytes));
    let gone = api.call("DELETE", &format!("/v1/jobs/{job}")).await;
    assert_eq!(gone.status, 204);
    api.get(&format!("/v1/batches/{id}")).await.refusal(404, "not_found", Some("id"));
    api.get(&format!("/v1/files/{output}")).await.refusal(404, "not_found", Some("id"));
}
