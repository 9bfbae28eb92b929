//! Submitting: both forms, idempotency, limits, refusals.

use adit::domain::code::Code;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::harness::{custom, start, start_with};
use crate::support::postgres::assert_invariants;

const QUERY: &str = "task=custom&schema=%7B%22type%22%3A%22object%22%7D";

#[tokio::test]
async fn a_document_becomes_a_job() {
    let api = start().await;
    let answer = api.post(&custom(json!(["one", {"text": "two"}]))).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let job = answer.ok();
    let path = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    assert_eq!(answer.headers["location"], path);
    assert_eq!(
        (&job["state"], &job["counts"]["total"], &job["counts"]["waiting"]),
        (&json!("queued"), &json!(2), &json!(2))
    );
    assert_eq!(job["waiting_for"][0]["reason"], "model_not_loaded");
    assert_eq!(api.get(&path).await.ok()["id"], job["id"]);
    assert_invariants(&api.store).await;
}

#[tokio::test]
async fn every_kind_of_source_is_read() {
    let api = start().await;
    let ddl =
        "create table a (id int primary key); create table b (id int primary key, a_id int references a);";
    let catalog =
        json!({"tables": [{"name": "a", "columns": [{"name": "id", "nullable": false}]}]}).to_string();
    for (task, source) in [
        ("data_model", json!({"format": "ddl", "text": ddl})),
        ("concept", json!({"format": "ddl", "dialect": "postgres", "text": ddl})),
        ("concept", json!({"format": "tables", "text": "[\"customers\", \"orders\"]"})),
        ("attribute", json!({"format": "catalog", "text": catalog})),
        ("concept", json!({"format": "csv", "text": "table,column,type\na,id,int\na,name,text\n"})),
    ] {
        let answer = api.post(&json!({"task": task, "source": source})).await;
        assert!(answer.ok()["counts"]["total"].as_i64().unwrap() > 0, "{source}");
    }
    let jsonl = json!({"task": "custom", "schema": {}, "source": {"format": "jsonl", "text": "\"a\"\n{\"text\":\"b\"}\n"}});
    assert_eq!(api.post(&jsonl).await.ok()["counts"]["total"], 2);
    let chat = json!({"task": "chat", "inputs": [[{"role": "user", "content": "hi"}]]});
    assert_eq!(api.post(&chat).await.ok()["counts"]["total"], 1);
    let tables = json!({"task": "concept", "inputs": ["a", {"name": "b", "columns": []}]});
    assert_eq!(api.post(&tables).await.ok()["stages"][0]["begun"], true);
}

#[tokio::test]
async fn what_a_lenient_source_leaves_out_is_told() {
    let api = start().await;
    let text = "create table a (id int primary key);\ncreate table b (id int primary key;\n";
    let source = |lenient: bool| json!({"task": "concept", "source": {"format": "ddl", "text": text, "lenient": lenient}});
    let problem = api.post(&source(false)).await.problem(Code::InvalidInput);
    assert_eq!((&problem["pointer"], &problem["line"]), (&json!("/source/text"), &json!(2)));
    let job = api.post(&source(true)).await.ok();
    assert_eq!((&job["left_out"][0]["line"], &job["left_out_total"]), (&json!(2), &json!(1)), "{job}");
    assert!(job["left_out"][0]["message"].as_str().unwrap().contains("parentheses"), "{job}");
    // it stays with the job, and is not repeated for each of a list
    let path = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    assert_eq!(api.get(&path).await.ok()["left_out"], job["left_out"]);
    assert_eq!(api.get("/v1/jobs").await.ok()["jobs"][0].get("left_out"), None);

    // nothing but faults is no job
    let nothing = json!({"format": "ddl", "text": "create table b (id int primary key;\n", "lenient": true});
    let problem = api.post(&json!({"task": "concept", "source": nothing})).await.problem(Code::InvalidInput);
    assert_eq!(problem["line"], 1, "{problem}");
    assert_eq!(api.get("/v1/jobs").await.ok()["jobs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn every_format_can_be_lenient() {
    let api = start().await;
    let catalog = r#"{"tables": [{"name": "a", "columns": []},
        {"name": 5}]}"#;
    let manifest = r#"{"nodes": {"model.m.a": {"resource_type": "model", "name": "a"},
        "model.m.b": {"resource_type": "model"}}}"#;
    for (format, text) in [
        ("csv", "table,column\na,x\na,x\n"),
        ("tables", "[\"a\",\n5]"),
        ("catalog", catalog),
        ("dbt", manifest),
    ] {
        let source = |lenient: bool| json!({"task": "concept", "source": {"format": format, "text": text, "lenient": lenient}});
        let problem = api.post(&source(false)).await.problem(Code::InvalidInput);
        let job = api.post(&source(true)).await.ok();
        assert_eq!(
            (&job["left_out_total"], &job["counts"]["total"]),
            (&json!(1), &json!(1)),
            "{format}: {job}"
        );
        assert_eq!(job["left_out"][0]["line"], problem["line"], "{format}");
        assert!(problem["line"].as_u64() > Some(1) || format == "csv", "{format}: {problem}");
    }
    let lines = json!({"format": "jsonl", "text": "\"a\"\n{\"b\"\n\"c\"\n", "lenient": true});
    let texts = json!({"task": "custom", "schema": {}, "source": lines});
    let job = api.post(&texts).await.ok();
    assert_eq!((&job["left_out"][0]["line"], &job["counts"]["total"]), (&json!(2), &json!(2)), "{job}");
    let chat = "[{\"role\": \"user\", \"content\": \"hi\"}]\n\"no messages\"\n";
    let chat = json!({"task": "chat", "source": {"format": "jsonl", "text": chat, "lenient": true}});
    assert_eq!(api.post(&chat).await.ok()["left_out"][0]["line"], 2);
}

#[tokio::test]
async fn a_stream_can_be_lenient() {
    let api = start().await;
    for (query, body, total) in [
        ("task=custom&schema=%7B%7D", "\"a\"\nnot json\n\"b\"\n{\"c\": 1}\n", 2),
        ("task=concept", "\"a\"\nnot json\n\"b\"\n\"a\"\n", 1),
    ] {
        let strict = api.post_lines(query, body, None).await.problem(Code::InvalidRequest);
        assert_eq!(strict["line"], 2, "{strict}");
        let job = api.post_lines(&format!("{query}&lenient=true"), body, None).await.ok();
        let lines: Vec<u64> =
            job["left_out"].as_array().unwrap().iter().map(|o| o["line"].as_u64().unwrap()).collect();
        assert_eq!((lines, &job["counts"]["total"]), (vec![2, 4], &json!(total)), "{job}");
        let path = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
        assert_eq!(api.get(&path).await.ok()["left_out_total"], 2);
    }
}

#[tokio::test]
async fn the_same_key_answers_the_same_job() {
    let api = start().await;
    let body = custom(json!(["one"]));
    let first = api.post_keyed(body.to_string(), Some("k")).await;
    // blanks make no other request
    let again = api.post_keyed(serde_json::to_string_pretty(&body).unwrap(), Some("k")).await;
    assert_eq!((first.status, again.status), (StatusCode::ACCEPTED, StatusCode::OK));
    assert_eq!(first.ok()["id"], again.ok()["id"]);
    let other = api.post_keyed(custom(json!(["two"])).to_string(), Some("k")).await;
    other.problem(Code::IdempotencyConflict);
    assert_ne!(api.post_keyed(body.to_string(), Some("l")).await.ok()["id"], first.ok()["id"]);
    api.post_keyed(body.to_string(), Some(&"k".repeat(256))).await.problem(Code::InvalidRequest);
    assert_eq!(api.get("/v1/jobs").await.ok()["jobs"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_same_key_under_concurrency_makes_one_job() {
    let api = start().await;
    let body = custom(json!(["one"])).to_string();
    let calls = (0..8).map(|_| api.post_keyed(body.clone(), Some("k")));
    let answers = futures::future::join_all(calls).await;
    let created = answers.iter().filter(|answer| answer.status == StatusCode::ACCEPTED).count();
    assert_eq!(created, 1);
    assert!(answers.iter().all(|answer| answer.ok()["id"] == answers[0].ok()["id"]));
}

#[tokio::test]
async fn a_stream_becomes_a_job() {
    let api = start().await;
    // parts that cut every line in two
    let parts = (0..5_000).flat_map(|at| ["\"te".to_string(), format!("xt {at}\"\n")]);
    let parts: Vec<Result<Bytes, std::io::Error>> = parts.map(|part| Ok(part.into())).collect();
    let body = Body::from_stream(futures::stream::iter(parts));
    let answer = api.post_lines(QUERY, body, Some("s")).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.ok()["counts"]["total"], 5_000);
    let whole: String = (0..5_000).map(|at| format!("\"text {at}\"\n")).collect();
    let again = api.post_lines(QUERY, whole.clone(), Some("s")).await;
    assert_eq!((again.status, &again.ok()["id"]), (StatusCode::OK, &answer.ok()["id"]));
    api.post_lines(QUERY, whole + "\"one more\"\n", Some("s")).await.problem(Code::IdempotencyConflict);
    assert_invariants(&api.store).await;
}

#[tokio::test]
async fn a_bad_line_is_named_and_leaves_nothing_behind() {
    let api = start().await;
    for (body, code, line) in [
        ("\"a\"\n\n{\"text\": tru}\n", Code::InvalidRequest, 3),
        ("\"a\"\n17\n", Code::InvalidInput, 2),
        ("\"a\"\n{\"txt\":\"b\"}", Code::InvalidInput, 2),
    ] {
        let problem = api.post_lines(QUERY, body, None).await.problem(code);
        assert_eq!(problem["line"], line, "{problem}");
        assert!(problem["detail"].as_str().unwrap().starts_with(&format!("line {line}: ")), "{problem}");
    }
    let tables = api.post_lines("task=concept", "\"a\"\n{\"nam\": 1}\n", None).await;
    assert_eq!(tables.problem(Code::InvalidInput)["line"], 2);
    api.post_lines(QUERY, "\n \n", None).await.problem(Code::InvalidRequest);
    assert_eq!(api.get("/v1/jobs").await.ok()["jobs"], json!([]));
}

#[tokio::test]
async fn limits_hold_at_the_limit_and_not_beyond() {
    let api = start_with(|settings| {
        settings.limits.max_inputs = 3;
        settings.limits.max_interactive_items = 2;
        settings.limits.max_line_bytes = 8;
        settings.limits.max_body_bytes = 400;
        settings.limits.max_stream_bytes = 30;
        settings.limits.max_json_depth = 4;
    })
    .await;
    let refused = |answer: crate::harness::Answer, name: &str| {
        let problem = answer.problem(Code::TooLarge);
        assert!(problem["detail"].as_str().unwrap().contains(name), "{problem}");
    };
    // inputs
    api.post(&custom(json!(["a", "b", "c"]))).await.ok();
    refused(api.post(&custom(json!(["a", "b", "c", "d"]))).await, "limits.max_inputs");
    api.post_lines(QUERY, "\"a\"\n\"b\"\n\"c\"\n", None).await.ok();
    refused(api.post_lines(QUERY, "\"a\"\n\"b\"\n\"c\"\n\"d\"\n", None).await, "limits.max_inputs");
    // class
    let interactive = format!("{QUERY}&class=interactive");
    api.post_lines(&interactive, "\"a\"\n\"b\"\n", None).await.ok();
    refused(api.post_lines(&interactive, "\"a\"\n\"b\"\n\"c\"\n", None).await, "max_interactive_items");
    // one input, one line
    api.post(&custom(json!(["12345678"]))).await.ok();
    refused(api.post(&custom(json!(["123456789"]))).await, "limits.max_line_bytes");
    api.post_lines(QUERY, "\"123456\"", None).await.ok();
    refused(api.post_lines(QUERY, "\"1234567\"", None).await, "limits.max_line_bytes");
    // bodies
    let body = custom(json!(["a"])).to_string();
    let padded = |bytes: usize| format!("{body}{}", " ".repeat(bytes - body.len()));
    api.post_keyed(padded(400), None).await.ok();
    refused(api.post_keyed(padded(401), None).await, "limits.max_body_bytes");
    let chunked = Body::from_stream(futures::stream::iter([Ok::<_, std::io::Error>(padded(401))]).boxed());
    refused(api.post_keyed(chunked, None).await, "limits.max_body_bytes");
    api.post_lines(
        QUERY,
        "\"a\"\n".to_string() + &" ".repeat(7) + "\n" + &" ".repeat(7) + "\n" + &" ".repeat(7) + "\n",
        None,
    )
    .await
    .ok();
    refused(
        api.post_lines(QUERY, "\"a\"\n".to_string() + &"   \n".repeat(7), None).await,
        "limits.max_stream_bytes",
    );
    // depth: the request, its list, a message list, a message
    let chat = |inner: Value| json!({"task": "chat", "inputs": [inner]});
    api.post(&chat(json!([]))).await.problem(Code::InvalidInput);
    refused(api.post(&chat(json!([[[]]]))).await, "limits.max_json_depth");
}

#[tokio::test]
async fn unknown_fields_are_refused_by_name() {
    let api = start().await;
    let mut body = custom(json!(["a"]));
    body["temprature"] = json!(0.1);
    let problem = api.post(&body).await.problem(Code::InvalidRequest);
    assert!(problem["detail"].as_str().unwrap().contains("temprature"), "{problem}");
    assert_eq!(problem["line"], 1);
    let problem =
        api.post_lines(&format!("{QUERY}&temprature=1"), "\"a\"", None).await.problem(Code::InvalidRequest);
    assert!(problem["detail"].as_str().unwrap().contains("temprature"), "{problem}");
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let api = start().await;
    for (body, code) in [
        (json!({"task": "custom", "inputs": ["a"]}), Code::InvalidRequest),
        (json!({"task": "custom", "schema": {}}), Code::InvalidRequest),
        (json!({"task": "custom", "schema": {}, "inputs": []}), Code::InvalidRequest),
        (
            json!({"task": "concept", "inputs": ["a"], "source": {"format": "tables", "text": "[]"}}),
            Code::InvalidRequest,
        ),
        (json!({"task": "concept", "inputs": ["a", "a"]}), Code::InvalidInput),
        (json!({"task": "concept", "source": {"format": "jsonl", "text": "\"a\""}}), Code::InvalidRequest),
        (json!({"task": "custom", "schema": {"not": {}}, "inputs": ["a"]}), Code::InvalidSchema),
        (json!({"task": "concept", "model": "nobody", "inputs": ["a"]}), Code::UnknownModel),
        (json!({"task": "sing", "inputs": ["a"]}), Code::InvalidRequest),
        (json!("concept"), Code::InvalidRequest),
    ] {
        api.post(&body).await.problem(code);
    }
    let broken = api.post_keyed("{\n  \"task\": tru\n}", None).await.problem(Code::InvalidRequest);
    assert_eq!((&broken["line"], broken["column"].is_u64()), (&json!(2), true));
    api.post_keyed("", None).await.problem(Code::InvalidRequest);
    assert_eq!(api.get("/v1/jobs").await.ok()["jobs"], json!([]));
}
