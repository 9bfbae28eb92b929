//! A service of a test's own: database, models that nobody loads, router.

use std::sync::Arc;

use adit::api::{Parts, SchemaIssue, State, router};
use adit::clock::Clock;
use adit::config::settings::{Model, Settings};
use adit::domain::code::Code;
use adit::domain::id::{JobId, WorkerId};
use adit::domain::item::{NewResult, Outcome};
use adit::domain::lease::Claim;
use adit::domain::usage::Usage;
use adit::models::manager::Manager;
use adit::shutdown::Shutdown;
use adit::store::Store;
use adit::store::claim::ClaimRequest;
use adit::store::finish::{Finish, Write};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::postgres;

pub struct Api {
    pub router: Router,
    pub state: State,
    pub store: Store,
    pub shutdown: Shutdown,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e} in: {}", self.text()))
    }

    /// The body of a success.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, self.text());
        self.json()
    }

    /// The error object of a refusal under OpenAI's paths, whose form is checked on the way.
    #[track_caller]
    pub fn refusal(&self, status: u16, code: &str, param: Option<&str>) -> Value {
        let body = self.json();
        assert_eq!(self.status.as_u16(), status, "{body}");
        assert_eq!(self.headers["content-type"], "application/json");
        assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
        let error = body["error"].as_object().unwrap();
        assert_eq!(error.keys().collect::<Vec<_>>(), ["message", "type", "param", "code"]);
        let kind = if status < 500 { "invalid_request_error" } else { "server_error" };
        assert_eq!((&error["type"], &error["code"]), (&json!(kind), &json!(code)), "{body}");
        assert_eq!(error["param"], json!(param), "{body}");
        assert!(!error["message"].as_str().unwrap().is_empty());
        assert!(self.headers.contains_key("x-request-id"));
        assert_eq!(self.headers.contains_key("retry-after"), status == 503);
        body["error"].clone()
    }

    /// The body of a problem, whose form is checked on the way.
    #[track_caller]
    pub fn problem(&self, code: Code) -> Value {
        let problem = self.json();
        assert_eq!(problem["code"], code.as_str(), "{problem}");
        assert_eq!(self.status.as_u16(), code.status());
        assert_eq!(problem["status"], code.status());
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(problem["type"], format!("/docs#{code}"));
        assert_eq!(problem["title"], code.about());
        let id = self.headers["x-request-id"].to_str().unwrap();
        assert_eq!(problem["instance"], format!("urn:uuid:{id}"));
        assert_eq!(self.headers.contains_key("retry-after"), self.status.as_u16() == 503);
        problem
    }
}

/// Models that are configured and not loaded; their paths do not exist.
pub fn model(name: &str) -> Model {
    Model { load_at_start: false, ..Model::new(name, "/nonexistent/base") }
}

pub async fn start() -> Api {
    start_with(|_| {}).await
}

pub async fn start_with(change: impl FnOnce(&mut Settings)) -> Api {
    start_on(postgres::fresh_database().await, change).await
}

/// For tests that take the database away.
pub async fn start_on(store: Store, change: impl FnOnce(&mut Settings)) -> Api {
    let mut settings = Settings {
        models: ["concept", "relationship", "attribute"].map(model).to_vec(),
        ..Settings::default()
    };
    settings.http.stream_poll_ms = 20;
    settings.queue.poll_ms = 20;
    change(&mut settings);
    let shutdown = Shutdown::new();
    let clock = Clock::default();
    let models = Manager::start(settings.models.clone(), &settings, shutdown.clone(), clock.clone()).unwrap();
    let check_schema = |schema: &Value| match schema.get("not") {
        None => Ok(()),
        Some(_) => Err(SchemaIssue {
            code: Code::InvalidSchema,
            path: "/not".into(),
            message: "'not' cannot be enforced".into(),
        }),
    };
    let state = State::new(Parts {
        store: store.clone(),
        models,
        settings: Arc::new(settings),
        metrics: adit::telemetry::metric::install(),
        shutdown: shutdown.clone(),
        clock,
        check_schema: Arc::new(check_schema),
    });
    Api { router: router(state.clone()), state, store, shutdown }
}

impl Api {
    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: head.status, headers: head.headers, bytes }
    }

    pub async fn call(&self, method: &str, path: &str) -> Answer {
        self.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path).await
    }

    pub async fn lines(&self, path: &str) -> Vec<Value> {
        let request =
            Request::builder().uri(path).header("accept", "application/x-ndjson").body(Body::empty());
        let answer = self.send(request.unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub async fn post(&self, body: &Value) -> Answer {
        self.post_keyed(body.to_string(), None).await
    }

    pub async fn post_keyed(&self, body: impl Into<Body>, key: Option<&str>) -> Answer {
        let mut request = Request::post("/v1/jobs").header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    pub async fn post_to(&self, path: &str, body: &Value) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        self.send(request.body(body.to_string().into()).unwrap()).await
    }

    /// A form as clients send it: fields and files by name, file name and content.
    pub async fn post_form(&self, path: &str, parts: &[(&str, Option<&str>, &[u8])]) -> Answer {
        let body = form(parts);
        let request = Request::post(path).header("content-type", "multipart/form-data; boundary=edge");
        self.send(request.body(body.into()).unwrap()).await
    }

    /// Uploads the lines of a batch; the file's id.
    pub async fn upload(&self, content: impl AsRef<[u8]>) -> String {
        let parts = [("purpose", None, &b"batch"[..]), ("file", Some("in.jsonl"), content.as_ref())];
        let file = self.post_form("/v1/files", &parts).await.ok();
        file["id"].as_str().unwrap().to_string()
    }

    /// Checks and ends batches in the background, as the service's own workers do.
    pub fn tend_batches(&self) {
        let settings = &self.state.settings;
        adit::worker::batch::start(&self.store, self.state.models.names(), settings, &self.shutdown);
    }

    pub async fn post_lines(&self, query: &str, body: impl Into<Body>, key: Option<&str>) -> Answer {
        let mut request =
            Request::post(format!("/v1/jobs?{query}")).header("content-type", "application/x-ndjson");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    /// A custom job over `inputs` texts; its id.
    pub async fn custom_job(&self, inputs: usize) -> JobId {
        let texts: Vec<String> = (0..inputs).map(|at| format!("text {at}")).collect();
        let job = self.post(&custom(json!(texts))).await.ok();
        job["id"].as_str().unwrap().parse().unwrap()
    }

    /// Claims up to `items` items for the model of custom jobs.
    pub async fn claim(&self, items: i32) -> Vec<Claim> {
        let request = ClaimRequest {
            worker: WorkerId::new(),
            model: "concept",
            budget: items,
            lease_ms: 60_000,
            suspect_deaths: 3,
            besides: &[],
        };
        self.store.claim(&request).await.unwrap()
    }

    /// Ends every item of a claim: failed where `fails` says so, succeeded otherwise.
    pub async fn end(&self, claims: &[Claim], fails: impl Fn(i32) -> bool) {
        for claim in claims {
            let items = self.store.claimed_items(std::slice::from_ref(claim)).await.unwrap();
            let results: Vec<NewResult> =
                items.iter().map(|item| result(item.seq, fails(item.seq))).collect();
            self.store
                .finish(&Finish { claim, results: &results, again: &[], again_after_ms: 0 })
                .await
                .unwrap();
        }
    }

    /// Commits results of some items while the claim goes on.
    pub async fn commit(&self, claim: &Claim, seqs: &[i32]) {
        let results: Vec<NewResult> = seqs.iter().map(|seq| result(*seq, false)).collect();
        self.store.commit_results(&[Write { claim, results: &results }]).await.unwrap();
    }
}

pub fn form(parts: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, content) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        body.extend(
            format!("--edge\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes(),
        );
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--edge--\r\n");
    body
}

pub fn custom(inputs: Value) -> Value {
    json!({"task": "custom", "schema": {"type": "object"}, "inputs": inputs})
}

pub fn result(seq: i32, fails: bool) -> NewResult {
    let outcome = if fails {
        Outcome::Failed { code: Code::InvalidAnswer, message: "planted".into() }
    } else {
        Outcome::Succeeded { output: json!({"b": seq, "a": "kept in order"}) }
    };
    let usage = Usage { prompt_tokens: 10, prefix_hit_tokens: 4, output_tokens: 5, forced_tokens: 2 };
    NewResult { seq, outcome, usage, latency_ms: 7, confidence: None }
}
