//! Models over HTTP: states, loading by hand, waiting, refusals.

use adit::config::settings::Model;
use adit::domain::code::Code;
use adit::domain::id::WorkerId;
use adit::domain::model::ModelStatus;
use serde_json::{Value, json};

use crate::harness::{model, start, start_with};
use crate::support::tiny::{ALL_TARGETS, Arch, tiny_adapter, tiny_model};

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

#[tokio::test]
async fn an_adapter_beside_a_loaded_base_is_refused_with_the_plan_and_the_view_says_what_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny_model(dir.path().join("base"), Arch::Qwen2, 1);
    let adapter = tiny_adapter(dir.path().join("adapter"), 1, ALL_TARGETS);
    let path = path.to_str().unwrap();
    let adapted = Model {
        adapter: Some(adapter.to_str().unwrap().into()),
        load_at_start: false,
        ..Model::new("adapted", path)
    };
    let plain = Model { load_at_start: false, ..Model::new("concept", path) };
    let settings = |share: f64| {
        let mut models = [plain.clone(), adapted.clone()];
        models.iter_mut().for_each(|model| model.gpu_memory_utilization = share);
        move |settings: &mut adit::config::settings::Settings| {
            settings.engine.kv_tokens = 2048;
            settings.loading.reserve_bytes = 1 << 20;
            settings.models = models.to_vec();
        }
    };
    let needed = |view: Value| view["plan"]["needed_bytes"].as_u64().unwrap();
    let api = start_with(settings(0.9)).await;
    let plain_bytes = needed(api.get("/v1/models/concept").await.ok());
    let adapter_bytes = needed(api.get("/v1/models/adapted").await.ok()) - plain_bytes;
    let total_bytes = adit::models::device::cpu_memory().total_bytes as f64;
    let api = start_with(settings((plain_bytes + adapter_bytes / 2) as f64 / total_bytes)).await;
    api.call("POST", "/v1/models/concept/load").await.ok();
    let ready = api.get("/v1/models/concept/wait?timeout=60").await.ok();
    assert!(ready["memory"]["in_use_bytes"].as_u64().unwrap() > 0, "{ready}");
    let problem = api.call("POST", "/v1/models/adapted/load").await.problem(Code::InsufficientMemory);
    assert_eq!(problem["plan"]["adapter_bytes"], adapter_bytes, "{problem}");
    assert_eq!((&problem["plan"]["fits"], &problem["plan"]["weights_bytes"]), (&json!(false), &json!(0)));
    let adapted = api.get("/v1/models/adapted").await.ok();
    assert_eq!((&adapted["state"], &adapted["memory"]), (&json!("not_loaded"), &Value::Null));
    api.state.models.unload_all_models().await;

    // with room enough: one is charged for the base, the other for its adapter
    let api = start_with(settings(0.9)).await;
    for name in ["concept", "adapted"] {
        api.call("POST", &format!("/v1/models/{name}/load")).await.ok();
        api.get(&format!("/v1/models/{name}/wait?timeout=60")).await.ok();
    }
    let list = api.get("/v1/models").await.ok();
    let memory = |at: usize| list["data"][at]["memory"].clone();
    assert_eq!((&memory(0)["adapter_bytes"], &memory(0)["charged_to"]), (&json!(0), &Value::Null));
    assert_eq!((&memory(1)["base_bytes"], &memory(1)["charged_to"]), (&json!(0), &json!("concept")));
    assert_eq!(memory(1)["in_use_bytes"], adapter_bytes);
    api.state.models.unload_all_models().await;
}

#[tokio::test]
async fn the_view_tells_of_replicas_waiting_jobs_and_the_last_error() {
    let api = start().await;
    api.custom_job(3).await;
    api.custom_job(2).await;
    let (here, there) = (WorkerId::new(), WorkerId::new());
    let now = adit::clock::Clock::default().now();
    let ready = ModelStatus::Ready { since: now, load_s: 1.0, draining: false };
    api.store.put_replica(here, "concept", &ModelStatus::NotLoaded).await.unwrap();
    api.store.put_replica(there, "concept", &ready).await.unwrap();
    api.store.put_replica(there, "attribute", &ready).await.unwrap();
    // its path does not exist
    api.call("POST", "/v1/models/concept/load").await;
    api.get("/v1/models/concept/wait?timeout=60").await.problem(Code::ModelFailed);
    let concept = api.get("/v1/models/concept").await.ok();
    assert_eq!((&concept["items_waiting"], &concept["jobs_waiting"]), (&json!(5), &json!(2)));
    let mut replicas: Vec<(&str, &str)> = concept["replicas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|replica| (replica["worker"].as_str().unwrap(), replica["state"].as_str().unwrap()))
        .collect();
    let (here, there) = (here.0.to_string(), there.0.to_string());
    let mut expected = [(here.as_str(), "not_loaded"), (there.as_str(), "ready")];
    replicas.sort_unstable();
    expected.sort_unstable();
    assert_eq!(replicas, expected);
    let error = &concept["last_error"];
    assert!(
        error["hint"].as_str().is_some_and(|hint| !hint.is_empty()) && error["at"].is_string(),
        "{concept}"
    );
    assert_eq!(error["message"], concept["error"]["message"]);
    // an unload takes the state away, not the memory of what went wrong
    api.call("POST", "/v1/models/concept/unload").await.ok();
    let concept = api.get("/v1/models/concept").await.ok();
    assert!(concept["last_error"]["message"].is_string(), "{concept}");
}
