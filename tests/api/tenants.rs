//! Two tenants on one service: neither can tell that the other is there.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use adit::api::ROUTES;
use adit::domain::key::Scope;
use axum::body::Body;
use axum::http::Request;
use futures::StreamExt;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::harness::{Answer, Api, custom};
use crate::keys::locked;

fn line(name: &str) -> String {
    let body = json!({"model": "concept", "messages": [{"role": "user", "content": "x"}]});
    let line = json!({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body});
    format!("{line}\n")
}

fn batch_of(file: &str) -> Value {
    json!({"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"})
}

fn id_of(answer: &Answer) -> String {
    answer.ok()["id"].as_str().unwrap().to_string()
}

/// A tenant with something of every kind, and in every state that an action asks for.
async fn furnish(api: &Api, holder: &Api) -> Vec<String> {
    let mut ids = Vec::new();
    // half done, some failed; then ended; then cancelled; then untouched
    for _ in 0..2 {
        ids.push(holder.custom_job(4).await.to_string());
        let claims = api.claim(2).await;
        api.end(&claims, |seq| seq == 1).await;
    }
    let claims = api.claim(100).await;
    api.end(&claims, |seq| seq == 1).await;
    ids.push(holder.custom_job(2).await.to_string());
    holder.call("POST", &format!("/v1/jobs/{}/cancel", ids[2])).await.ok();
    ids.push(holder.custom_job(2).await.to_string());
    let file = holder.upload(line("a") + &line("b") + "no line\n").await;
    let batch = id_of(&holder.post_to("/v1/batches", &batch_of(&file)).await);
    let place = format!("/v1/batches/{batch}");
    while holder.get(&place).await.ok()["error_file_id"].is_null() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let claims = api.claim(100).await;
    api.end(&claims, |_| false).await;
    let made = holder.get(&place).await.ok();
    for file in ["output_file_id", "error_file_id"] {
        ids.push(made[file].as_str().unwrap().to_string());
    }
    ids.push(batch.replace("batch_", ""));
    ids.extend([file, batch]);
    let key = json!({"name": "spare", "scopes": ["read"]});
    ids.push(id_of(&holder.post_to("/v1/keys", &key).await));
    ids
}

/// All that a tenant can see of what it has.
async fn sight(holder: &Api, ids: &[String]) -> Vec<(String, u16, String)> {
    let mut seen = Vec::new();
    let whole = ["/v1/jobs", "/v1/files", "/v1/batches"].map(String::from);
    let mut paths: Vec<String> = whole.into();
    for (method, path, _) in ROUTES {
        // progress by the clock alone is no change
        if method != "GET"
            || !path.contains("{id}")
            || path.ends_with("/events")
            || path.ends_with("/throughput")
        {
            continue;
        }
        paths.extend(ids.iter().map(|id| path.replace("{id}", id)));
    }
    for path in paths {
        let query = if path.ends_with("/schema") { "?seq=0" } else { "" };
        let answer = holder.get(&format!("{path}{query}")).await;
        let mut body: Value = serde_json::from_slice(&answer.bytes).unwrap_or_else(|_| json!(answer.text()));
        forget_times(&mut body);
        seen.push((path, answer.status.as_u16(), body.to_string()));
    }
    let keys = holder.get("/v1/keys").await.ok()["keys"].as_array().unwrap().clone();
    let states = keys.iter().map(|key| (key["id"].to_string(), 200, key["state"].to_string()));
    seen.extend(states);
    seen
}

fn forget_times(body: &mut Value) {
    match body {
        Value::Object(fields) => {
            for word in ["throughput", "instance", "eta", "eta_s"] {
                fields.remove(word);
            }
            fields.values_mut().for_each(forget_times);
        }
        Value::Array(values) => values.iter_mut().for_each(forget_times),
        _ => {}
    }
}

/// An answer without the id that was asked for and the request's own.
fn told(answer: &Answer, id: &str) -> (u16, String) {
    let mut body: Value = serde_json::from_slice(&answer.bytes).unwrap_or_else(|_| json!(answer.text()));
    forget_times(&mut body);
    // an id may be said in another spelling
    let bare = |text: &str| text.replace('-', "");
    (answer.status.as_u16(), bare(&body.to_string()).replace(&bare(id), "ID"))
}

/// The form of an id with other digits.
fn unknown(id: &str) -> String {
    let tail = id.len() - 8;
    format!("{}ffff{}", &id[..tail], &id[tail + 4..])
}

#[tokio::test]
async fn anothers_id_is_as_good_as_none_on_every_route() {
    let api = locked().await;
    api.tend_batches();
    let a = api.holder("a", &Scope::ALL).await;
    let b = api.holder("b", &Scope::ALL).await;
    let ids_a = furnish(&api, &a).await;
    let ids_b = furnish(&api, &b).await;
    for (owner, other, ids) in [(&a, &b, &ids_a), (&b, &a, &ids_b)] {
        let before = sight(owner, ids).await;
        assert!(before.iter().filter(|(_, status, _)| *status == 200).count() > 25, "{before:#?}");
        for (method, path, _) in ROUTES {
            if !path.contains("{id}") {
                continue;
            }
            for id in ids {
                let query = if path.ends_with("/schema") { "?seq=0" } else { "" };
                let ask = |id: &str| format!("{}{query}", path.replace("{id}", id));
                let foreign = other.call(method, &ask(id)).await;
                let none = unknown(id);
                let nothing = other.call(method, &ask(&none)).await;
                assert_eq!(told(&foreign, id), told(&nothing, &none), "{method} {path} {id}");
                // pages are the same for everybody
                let status = if path == "/jobs/{id}" { 200 } else { 404 };
                assert_eq!(foreign.status.as_u16(), status, "{method} {path} {id}: {}", foreign.text());
            }
        }
        // ids in bodies
        for id in ids {
            let foreign = other.post_to("/v1/batches", &batch_of(id)).await;
            let nothing = other.post_to("/v1/batches", &batch_of(&unknown(id))).await;
            assert_eq!(told(&foreign, id), told(&nothing, &unknown(id)));
            assert!(foreign.status.is_client_error());
        }
        assert_eq!(sight(owner, ids).await, before, "something was changed");
    }
}

/// The beginning of an answer that may never end.
async fn beginning(holder: &Api, path: &str) -> String {
    let key = holder.key.as_ref().unwrap();
    let request = Request::get(path).header("authorization", format!("Bearer {key}"));
    let response = api_call(holder, request.body(Body::empty()).unwrap()).await;
    let mut parts = response.into_body().into_data_stream();
    let mut text = String::new();
    while let Ok(Some(part)) = tokio::time::timeout(Duration::from_millis(400), parts.next()).await {
        text.push_str(std::str::from_utf8(&part.unwrap()).unwrap());
        if text.len() > 200_000 {
            break;
        }
    }
    text
}

async fn api_call(api: &Api, request: Request<Body>) -> axum::response::Response {
    api.router.clone().oneshot(request).await.unwrap()
}

#[tokio::test]
async fn nothing_that_is_listed_or_told_names_anothers() {
    let api = locked().await;
    api.tend_batches();
    let a = api.holder("tenant-a", &Scope::ALL).await;
    let b = api.holder("tenant-b", &Scope::ALL).await;
    let ids = furnish(&api, &a).await;
    b.custom_job(1).await;
    for (method, path, _) in ROUTES {
        if method != "GET" || path.contains('{') {
            continue;
        }
        let text = beginning(&b, path).await;
        for id in &ids {
            assert!(!text.contains(id.as_str()), "{path} names {id}: {text}");
        }
        assert!(!text.contains("tenant-a"), "{path}: {text}");
    }
    // and the streams do tell its own
    assert!(beginning(&a, "/v1/events").await.contains(&ids[0]));
    // models in full are the same for everybody, and name no job
    let text = beginning(&b, "/v1/models/concept").await;
    assert!(ids.iter().all(|id| !text.contains(id.as_str())));
}

#[tokio::test]
async fn idempotency_keys_are_each_tenants_own() {
    let api = locked().await;
    let (a, b) = (api.holder("a", &Scope::ALL).await, api.holder("b", &Scope::ALL).await);
    let body = custom(json!(["x"])).to_string();
    let first = id_of(&a.post_keyed(body.clone(), Some("k")).await);
    let other = id_of(&b.post_keyed(body.clone(), Some("k")).await);
    assert_ne!(first, other);
    // a second key of the tenant is the same client
    let spare = api.holder("a", &[Scope::Submit]).await;
    assert_eq!(id_of(&spare.post_keyed(body, Some("k")).await), first);
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Submit,
    Upload,
    Batch,
    CancelJob,
    RetryJob,
    DeleteJob,
    DeleteFile,
    CancelBatch,
}

/// Who does what to which of whose things.
type Step = (usize, Kind, usize, usize);

/// An id in a body is as good as none, too.
#[tokio::test]
async fn no_job_is_made_from_anothers() {
    let api = locked().await;
    let (ours, theirs) = (api.holder("a", &Scope::ALL).await, api.holder("b", &Scope::ALL).await);
    let asked = |since: &str| json!({"task": "concept", "inputs": ["orders"], "since": since});
    let made = id_of(&ours.post(&json!({"task": "concept", "inputs": ["orders"]})).await);
    let claims = api.claim(100).await;
    api.end(&claims, |_| true).await;
    let nobodys = unknown(&made);
    for path in ["/v1/jobs", "/v1/jobs/estimate"] {
        let answer = told(&theirs.post_to(path, &asked(&made)).await, &made);
        assert_eq!(answer, told(&theirs.post_to(path, &asked(&nobodys)).await, &nobodys), "{path}");
        assert_eq!(answer.0, 404, "{answer:?}");
        ours.post_to(path, &asked(&made)).await.ok();
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![
        3 => Just(Kind::Submit),
        3 => Just(Kind::Upload),
        2 => Just(Kind::Batch),
        1 => Just(Kind::CancelJob),
        1 => Just(Kind::RetryJob),
        2 => Just(Kind::DeleteJob),
        2 => Just(Kind::DeleteFile),
        1 => Just(Kind::CancelBatch),
    ];
    prop::collection::vec((0..2_usize, kind, 0..2_usize, 0..8_usize), 1..40)
}

/// What each tenant should have.
#[derive(Default)]
struct Things {
    jobs: BTreeSet<String>,
    files: BTreeSet<String>,
    batches: BTreeSet<String>,
}

fn pick(from: &BTreeSet<String>, at: usize) -> Option<String> {
    from.iter().nth(at % from.len().max(1)).cloned()
}

async fn listed(holder: &Api, path: &str, list: &str) -> BTreeSet<String> {
    let page = holder.get(&format!("{path}?limit=100")).await.ok();
    page[list].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_string()).collect()
}

async fn play(api: &Api, steps: Vec<Step>) -> Result<(), TestCaseError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let round = NEXT.fetch_add(1, Ordering::SeqCst);
    let holders = [
        api.holder(&format!("{round}-a"), &Scope::ALL).await,
        api.holder(&format!("{round}-b"), &Scope::ALL).await,
    ];
    let mut things = [Things::default(), Things::default()];
    for (who, kind, whose, at) in steps {
        let holder = &holders[who];
        let of = &things[whose];
        let target = match kind {
            Kind::Submit | Kind::Upload => None,
            Kind::CancelJob | Kind::RetryJob | Kind::DeleteJob => pick(&of.jobs, at),
            Kind::Batch | Kind::DeleteFile => pick(&of.files, at),
            Kind::CancelBatch => pick(&of.batches, at),
        };
        let answer = match (kind, &target) {
            (Kind::Submit, _) => {
                let id = holder.custom_job(1 + at % 3).await.to_string();
                things[who].jobs.insert(id);
                continue;
            }
            (Kind::Upload, _) => {
                let id = holder.upload(line("a")).await;
                things[who].files.insert(id);
                continue;
            }
            (_, None) => continue,
            (Kind::Batch, Some(id)) => holder.post_to("/v1/batches", &batch_of(id)).await,
            (Kind::CancelJob, Some(id)) => holder.call("POST", &format!("/v1/jobs/{id}/cancel")).await,
            (Kind::RetryJob, Some(id)) => holder.call("POST", &format!("/v1/jobs/{id}/retry")).await,
            (Kind::DeleteJob, Some(id)) => holder.call("DELETE", &format!("/v1/jobs/{id}")).await,
            (Kind::DeleteFile, Some(id)) => holder.call("DELETE", &format!("/v1/files/{id}")).await,
            (Kind::CancelBatch, Some(id)) => holder.call("POST", &format!("/v1/batches/{id}/cancel")).await,
        };
        let (id, status) = (target.unwrap(), answer.status.as_u16());
        if who != whose {
            let wanted = if matches!(kind, Kind::Batch) { 400 } else { 404 };
            prop_assert_eq!(status, wanted, "{:?} by {} of {}'s {}", kind, who, whose, id);
            continue;
        }
        prop_assert!(answer.status.is_success() || status == 409, "{:?}: {} {}", kind, status, answer.text());
        if answer.status.is_success() {
            match kind {
                Kind::Batch => things[who].batches.insert(id_of(&answer)),
                Kind::DeleteJob => things[who].jobs.remove(&id),
                Kind::DeleteFile => things[who].files.remove(&id),
                _ => false,
            };
        }
    }
    for (holder, things) in holders.iter().zip(&things) {
        prop_assert_eq!(&listed(holder, "/v1/jobs", "jobs").await, &things.jobs);
        prop_assert_eq!(&listed(holder, "/v1/files", "data").await, &things.files);
        prop_assert_eq!(&listed(holder, "/v1/batches", "data").await, &things.batches);
    }
    Ok(())
}

/// Whatever two tenants do, and to whichever ids: each has exactly what it made and did not delete.
#[test]
fn two_tenants_never_meet() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let api = runtime.block_on(locked());
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    runner.run(&steps(), |steps| runtime.block_on(play(&api, steps))).unwrap();
}
