//! `/v1/chat/completions` over a small random model, field by field: whole, streamed, under a schema, refused.

use std::time::{Duration, Instant};

use adit::config::settings::Model;
use axum::body::Body;
use axum::http::Request;
use futures::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use crate::harness::{Api, start, start_with};
use crate::support::tiny::{Arch, tiny_model};

const PATH: &str = "/v1/chat/completions";

/// A service whose model `concept` is ready.
async fn ready(change: impl FnOnce(&mut adit::config::settings::Settings)) -> (Api, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny_model(dir.path().join("base"), Arch::Llama, 7);
    let api = start_with(|settings| {
        settings.engine.kv_tokens = 4096;
        settings.engine.threads = 1;
        settings.models = vec![
            Model { load_at_start: true, ..Model::new("concept", path.to_str().unwrap()) },
            crate::harness::model("other"),
        ];
        change(settings);
    })
    .await;
    api.get("/v1/models/concept/wait?timeout=60").await.ok();
    (api, dir)
}

fn asked(more: Value) -> Value {
    let mut body =
        json!({"model": "concept", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 12});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn ask(api: &Api, more: Value) -> Value {
    api.post_to(PATH, &asked(more)).await.ok()
}

/// The data of a stream's events, without the last one.
async fn stream(api: &Api, more: Value) -> Vec<Value> {
    let mut body = asked(more);
    body["stream"] = json!(true);
    let answer = api.post_to(PATH, &body).await;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    let mut data: Vec<&str> = answer.text().lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(data.pop(), Some("[DONE]"));
    data.into_iter().map(|text| serde_json::from_str(text).unwrap()).collect()
}

fn text_of(chunks: &[Value]) -> String {
    chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
}

fn content(completion: &Value) -> &str {
    completion["choices"][0]["message"]["content"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_has_openais_fields() {
    let (api, _dir) = ready(|_| {}).await;
    let answer = ask(&api, json!({})).await;
    assert_eq!(
        answer.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["id", "object", "created", "model", "choices", "usage", "system_fingerprint"]
    );
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("concept")));
    assert!(answer["created"].as_i64().unwrap() > 1_700_000_000);
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"], json!({"role": "assistant", "content": content(&answer), "refusal": null}));
    assert_eq!((&choice["index"], &choice["logprobs"]), (&json!(0), &Value::Null));
    assert!(["stop", "length"].contains(&choice["finish_reason"].as_str().unwrap()));
    let usage = &answer["usage"];
    assert_eq!(
        usage["total_tokens"],
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap()
    );
    assert!(usage["completion_tokens"].as_u64().unwrap() <= 12);
    // greedy: the same again, also when it is streamed
    assert_eq!(content(&ask(&api, json!({})).await), content(&answer));
    let chunks = stream(&api, json!({"stream_options": {"include_usage": true}})).await;
    assert_eq!(text_of(&chunks), content(&answer));
    for chunk in &chunks {
        assert_eq!(
            chunk.as_object().unwrap().keys().collect::<Vec<_>>(),
            ["id", "object", "created", "model", "choices", "usage", "system_fingerprint"]
        );
        assert_eq!((&chunk["object"], &chunk["id"]), (&json!("chat.completion.chunk"), &chunks[0]["id"]));
    }
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let (last, before) = (&chunks[chunks.len() - 1], &chunks[chunks.len() - 2]);
    assert_eq!(
        (&last["choices"], &last["usage"]["completion_tokens"]),
        (&json!([]), &usage["completion_tokens"])
    );
    assert_eq!(before["choices"][0]["finish_reason"], choice["finish_reason"]);
    assert_eq!((&before["choices"][0]["delta"], &before["usage"]), (&json!({}), &Value::Null));
    assert!(chunks.len() > 4, "it comes piece by piece: {chunks:?}");
    let plain = stream(&api, json!({})).await;
    assert!(plain.iter().all(|chunk| chunk["usage"].is_null()));
    let metrics = api.get("/metrics").await;
    assert!(metrics.text().contains("adit_chat_completions_total{model=\"concept\""), "{}", metrics.text());
    api.state.models.unload_all_models().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_obeyed() {
    let (api, _dir) = ready(|_| {}).await;
    let schema = json!({"type": "object", "properties": {
        "kind": {"enum": ["letter", "bill"]}, "pages": {"type": "integer", "minimum": 1, "maximum": 9},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2}},
        "required": ["kind", "pages", "tags"], "additionalProperties": false});
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}});
    let validator = jsonschema::validator_for(&schema).unwrap();
    for seed in 0..5 {
        let more = json!({"response_format": format, "max_tokens": 200, "seed": seed, "temperature": 1.5});
        let answer = ask(&api, more.clone()).await;
        let value: Value = serde_json::from_str(content(&answer)).unwrap();
        assert!(validator.is_valid(&value), "{value}");
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        assert_eq!(text_of(&stream(&api, more).await), content(&answer), "the same seed, the same answer");
        assert!(answer["usage"]["completion_tokens_details"]["forced_tokens"].as_u64().unwrap() > 0);
    }
    // cut off, an answer says so
    let cut = ask(&api, json!({"response_format": format, "max_tokens": 3})).await;
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    let object = ask(&api, json!({"response_format": {"type": "json_object"}, "max_tokens": 300})).await;
    assert!(content(&object).starts_with('{'));
    if object["choices"][0]["finish_reason"] == "stop" {
        assert!(serde_json::from_str::<Value>(content(&object)).unwrap().is_object());
    }
    api.state.models.unload_all_models().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logprobs_name_every_token() {
    let (api, _dir) = ready(|_| {}).await;
    let schema = json!({"enum": ["letter", "bill"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    for more in [json!({}), json!({"response_format": format})] {
        let plain = ask(&api, more.clone()).await;
        let mut more = more;
        more["logprobs"] = json!(true);
        more["top_logprobs"] = json!(3);
        let answer = ask(&api, more.clone()).await;
        assert_eq!(content(&answer), content(&plain), "looking changes nothing");
        let tokens = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
        assert_eq!(json!(tokens.len()), answer["usage"]["completion_tokens"]);
        assert_eq!(answer["choices"][0]["logprobs"]["refusal"], Value::Null);
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|token| token["bytes"].as_array().unwrap().iter().map(|b| b.as_u64().unwrap() as u8))
            .collect();
        assert_eq!(String::from_utf8_lossy(&bytes), content(&answer));
        for token in tokens {
            let top = token["top_logprobs"].as_array().unwrap();
            assert_eq!(top.len(), 3);
            let value = |entry: &Value| entry["logprob"].as_f64().unwrap();
            assert!(top.windows(2).all(|pair| value(&pair[0]) >= value(&pair[1])));
            assert!(value(token) <= value(&top[0]) && value(&top[0]) <= 0.0);
            assert_eq!(top[0].as_object().unwrap().keys().collect::<Vec<_>>(), ["token", "logprob", "bytes"]);
        }
        let chunks = stream(&api, more).await;
        let streamed: Vec<Value> = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array())
            .flatten()
            .cloned()
            .collect();
        assert_eq!(streamed, *tokens);
    }
    api.state.models.unload_all_models().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_text_ends_the_answer_before_itself() {
    let (api, _dir) = ready(|_| {}).await;
    let whole = ask(&api, json!({"max_tokens": 40})).await;
    let text = content(&whole);
    // some text of several tokens from the middle
    let letters: Vec<char> = text.chars().collect();
    let stop: String = letters[letters.len() / 2..letters.len() / 2 + 6].iter().collect();
    let expected = &text[..text.find(&stop).unwrap()];
    // so many tokens that the engine is far from their end when the stop is seen
    let more = json!({"max_tokens": 1500, "stop": [stop, "never to be seen"]});
    let answer = ask(&api, more.clone()).await;
    assert_eq!((content(&answer), &answer["choices"][0]["finish_reason"]), (expected, &json!("stop")));
    assert!(answer["usage"]["completion_tokens"].as_u64() < whole["usage"]["completion_tokens"].as_u64());
    assert_eq!(text_of(&stream(&api, more).await), expected);
    // nothing is generated behind a stop
    let served = api.state.models.get_model("concept").unwrap();
    let begun = Instant::now();
    while served.engine().stats().cancelled < 2 {
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", served.engine().stats());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(served);
    api.state.models.unload_all_models().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_frees_its_sequence() {
    let (api, _dir) = ready(|settings| settings.http.max_streams = 1).await;
    let body = asked(json!({"stream": true, "max_tokens": 400, "temperature": 1.0}));
    let send = || {
        let request = Request::post(PATH).body(Body::from(body.to_string())).unwrap();
        api.router.clone().oneshot(request)
    };
    let response = send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut events = response.into_body().into_data_stream();
    for _ in 0..3 {
        events.next().await.unwrap().unwrap();
    }
    let second = api.post_to(PATH, &body).await;
    second.refusal(503, "overloaded", None);
    drop(events);
    let begun = Instant::now();
    let served = api.state.models.get_model("concept").unwrap();
    while served.engine().stats().running > 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "it runs on for nobody");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(served.engine().stats().cancelled >= 1);
    drop(served);
    // nor does a client that waits for the whole
    let waiting = asked(json!({"max_tokens": 400, "temperature": 1.0}));
    let answer = tokio::time::timeout(Duration::from_millis(30), api.post_to(PATH, &waiting)).await;
    let served = api.state.models.get_model("concept").unwrap();
    let begun = Instant::now();
    while answer.is_err() && served.engine().stats().running > 0 {
        assert!(begun.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(served);
    api.state.models.unload_all_models().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_is_refused_in_openais_shape() {
    let (api, _dir) = ready(|_| {}).await;
    for (more, status, code, param) in [
        (json!({"model": "nobody"}), 404, "model_not_found", Some("model")),
        (json!({"model": "other"}), 503, "model_not_ready", None),
        (json!({"n": 2}), 400, "invalid_request", Some("n")),
        (json!({"tools": [{"type": "function"}]}), 400, "invalid_request", Some("tools")),
        (json!({"best_of": 3}), 400, "invalid_request", Some("best_of")),
        (
            json!({"messages": [{"role": "user", "content": "word ".repeat(4000)}]}),
            400,
            "context_length_exceeded",
            None,
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"not": {}}}}}),
            400,
            "invalid_schema",
            Some("response_format.json_schema.schema.not"),
        ),
    ] {
        for stream in [false, true] {
            let mut body = asked(more.clone());
            body["stream"] = json!(stream);
            api.post_to(PATH, &body).await.refusal(status, code, param);
        }
    }
    let text = |body: &'static str| Request::post(PATH).body(Body::from(body)).unwrap();
    api.send(text("{\"model\": ")).await.refusal(400, "invalid_request", None);
    api.send(text("[]")).await.refusal(400, "invalid_request", None);
    api.call("GET", PATH).await.refusal(405, "method_not_allowed", None);
    api.get("/v1/chat/nothing").await.refusal(404, "not_found", None);
    api.shutdown.request();
    api.post_to(PATH, &asked(json!({}))).await.refusal(503, "shutting_down", None);
    api.state.models.unload_all_models().await;
}

/// A model's name and its state are the same for an OpenAI client.
#[tokio::test]
async fn models_have_openais_fields() {
    let api = start().await;
    let list = api.get("/v1/models").await.ok();
    assert_eq!(list["object"], "list");
    for model in list["data"].as_array().unwrap() {
        assert!(model["id"].is_string() && model["owned_by"].is_string() && model["created"].is_i64());
        assert_eq!(model["object"], "model");
    }
    // clients of either kind understand the error
    let problem = api.get("/v1/models/nobody").await.problem(adit::domain::code::Code::UnknownModel);
    let error = &problem["error"];
    assert_eq!(
        (&error["code"], &error["type"]),
        (&json!("model_not_found"), &json!("invalid_request_error"))
    );
    assert_eq!((&error["message"], &error["param"]), (&problem["detail"], &Value::Null));
}
