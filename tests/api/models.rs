//! Models over HTTP: states, loading by hand, waiting, refusals.

use adit::config::settings::Model;
use adit::domain::code::Code;
use serde_json::json;

use crate::harness::{model, start, start_with};
use crate::support::tiny::{Arch, tiny_model};

#[tokio::test]
async fn states_are_listed() {
    let api = start().await;
    let states = api.get("/api/models/status").await.ok();
    assert_eq!(
        states,
        json!({"concept": "not_loaded", "relationship": "not_loaded", "attribute": "not_loaded"})
    );
    api.custom_job(3).await;
    let list = api.get("/v1/models").await.ok();
    assert_eq!((&list["object"], &list["data"][0]["object"]), (&json!("list"), &json!("model")));
    let names: Vec<&str> =
        list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["concept", "relationship", "attribute"]);
    let concept = api.get("/v1/models/concept").await.ok();
    assert_eq!((&concept["state"], &concept["items_waiting"]), (&json!("not_loaded"), &json!(3)));
    assert_eq!(concept["shares_base_with"], json!(["relationship", "attribute"]));
}

#[tokio::test]
async fn a_model_that_nobody_configured_is_unknown() {
    let api = start().await;
    for (method, path) in [("GET", ""), ("POST", "/load"), ("POST", "/unload"), ("GET", "/wait?timeout=0")] {
        api.call(method, &format!("/v1/models/nobody{path}")).await.problem(Code::UnknownModel);
    }
}

#[tokio::test]
async fn a_wait_ends_with_the_reason() {
    let api = start().await;
    let problem = api.get("/v1/models/concept/wait?timeout=0.05").await.problem(Code::RequestTimeout);
    assert!(problem["detail"].as_str().unwrap().contains("not_loaded"), "{problem}");
    api.get("/v1/models/concept/wait?timeout=-1").await.problem(Code::InvalidRequest);
    api.get("/v1/models/concept/wait?timeout=3601").await.problem(Code::InvalidRequest);
    // its path does not exist
    api.call("POST", "/v1/models/concept/load").await;
    let began = std::time::Instant::now();
    let problem = api.get("/v1/models/concept/wait?timeout=60").await.problem(Code::ModelFailed);
    assert!(
        began.elapsed().as_secs() < 30 && problem["detail"].as_str().unwrap().contains("concept"),
        "{problem}"
    );
    let shown = api.get("/v1/models/concept").await.ok();
    assert_eq!(shown["state"], "error");
    assert!(shown["error"]["hint"].is_string() && shown["error"]["attempt"].is_u64(), "{shown}");
    let id = api.custom_job(1).await;
    let job = api.get(&format!("/v1/jobs/{id}")).await.ok();
    assert_eq!(job["waiting_for"][0]["reason"], "model_error");
}

#[tokio::test]
async fn a_model_is_loaded_and_unloaded_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny_model(dir.path().join("base"), Arch::Qwen2, 1);
    let api = start_with(|settings| {
        settings.engine.kv_tokens = 2048;
        settings.models =
            vec![Model { load_at_start: false, ..Model::new("concept", path.to_str().unwrap()) }];
    })
    .await;
    let plan = api.get("/v1/models/concept").await.ok()["plan"].clone();
    assert_eq!(plan["fits"], true, "{plan}");
    assert!(plan["needed_bytes"].as_u64().unwrap() > 0);
    api.call("POST", "/v1/models/concept/load").await.ok();
    let ready = api.get("/v1/models/concept/wait?timeout=60").await.ok();
    assert_eq!((&ready["state"], ready["load_s"].is_f64()), (&json!("ready"), true));
    assert_eq!(api.get("/v1/models/concept/wait?timeout=0").await.ok()["state"], "ready");
    let metrics = api.get("/metrics").await;
    assert!(
        metrics.text().contains("adit_engine{model=\"concept\",what=\"kv_blocks_total\"}"),
        "{}",
        metrics.text()
    );
    api.call("POST", "/v1/models/concept/unload").await.ok();
    let gone = async {
        while api.get("/api/models/status").await.ok()["concept"] != "not_loaded" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), gone).await.unwrap();
    api.state.models.unload_all_models().await;
}

#[tokio::test]
async fn a_model_that_does_not_fit_is_refused_with_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny_model(dir.path().join("base"), Arch::Llama, 2);
    let api = start_with(|settings| {
        // a pool of a billion positions fits nowhere
        settings.engine.kv_tokens = 1 << 40;
        settings.models = vec![
            Model { load_at_start: false, ..Model::new("concept", path.to_str().unwrap()) },
            model("other"),
        ];
    })
    .await;
    let problem = api.call("POST", "/v1/models/concept/load").await.problem(Code::InsufficientMemory);
    let plan = &problem["plan"];
    assert_eq!(plan["fits"], false);
    assert!(plan["needed_bytes"].as_u64().unwrap() > plan["budget_bytes"].as_u64().unwrap(), "{problem}");
    assert_eq!(api.get("/api/models/status").await.ok()["concept"], "not_loaded");
}
