//! The OpenAPI document, the pages, the metrics.

use std::collections::BTreeSet;

use adit::domain::code::Code;
use adit::wire::result::ExportFormat;
use serde_json::{Map, Value};

use crate::harness::start;

/// Paths of DESIGN's table that this service has to have.
const PATHS: [(&str, &str); 45] = [
    ("post", "/v1/jobs"),
    ("get", "/v1/jobs"),
    ("get", "/v1/jobs/{id}"),
    ("delete", "/v1/jobs/{id}"),
    ("get", "/v1/jobs/{id}/results"),
    ("get", "/v1/jobs/{id}/schema"),
    ("get", "/v1/jobs/{id}/export"),
    ("get", "/v1/jobs/{id}/difference"),
    ("post", "/v1/jobs/estimate"),
    ("get", "/v1/jobs/{id}/events"),
    ("get", "/v1/jobs/{id}/errors"),
    ("get", "/v1/jobs/{id}/throughput"),
    ("get", "/v1/events"),
    ("post", "/v1/jobs/{id}/cancel"),
    ("post", "/v1/jobs/{id}/retry"),
    ("get", "/api/models/status"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{name}"),
    ("post", "/v1/models/{name}/load"),
    ("post", "/v1/models/{name}/unload"),
    ("get", "/v1/models/{name}/wait"),
    ("post", "/v1/files"),
    ("get", "/v1/files"),
    ("get", "/v1/files/{id}"),
    ("delete", "/v1/files/{id}"),
    ("get", "/v1/files/{id}/content"),
    ("post", "/v1/batches"),
    ("get", "/v1/batches"),
    ("get", "/v1/batches/{id}"),
    ("post", "/v1/batches/{id}/cancel"),
    ("post", "/v1/chat/completions"),
    ("get", "/v1/keys"),
    ("post", "/v1/keys"),
    ("delete", "/v1/keys/{id}"),
    ("get", "/livez"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/openapi.json"),
    ("get", "/docs"),
    ("get", "/"),
    ("get", "/jobs/{id}"),
    ("get", "/assets/{file}"),
    // a second look at those that clients know by heart
    ("get", "/v1/models"),
    ("get", "/v1/jobs"),
    ("get", "/livez"),
];

fn operations(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap();
    let of = |(path, item): (&String, &Value)| -> Vec<(String, String)> {
        item.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())).collect()
    };
    paths.iter().flat_map(of).collect()
}

#[tokio::test]
async fn the_document_has_exactly_the_routes() {
    let api = start().await;
    let document = api.get("/openapi.json").await.ok();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let documented = operations(&document);
    let wanted: BTreeSet<(String, String)> = PATHS.map(|(m, p)| (m.to_string(), p.to_string())).into();
    assert_eq!(documented, wanted);
    for method in ["get", "post", "delete", "put", "patch"] {
        for (path, _) in document["paths"].as_object().unwrap() {
            let concrete = path
                .replace("{id}", "01890000-0000-7000-8000-000000000000")
                .replace("{name}", "concept")
                .replace("{file}", "base.css");
            let query = match path.as_str() {
                "/v1/models/{name}/wait" => "?timeout=0",
                // else it would go on for ever
                "/v1/events" => "?limit=0",
                _ => "",
            };
            let answer = api.call(&method.to_uppercase(), &format!("{concrete}{query}")).await;
            let detail = serde_json::from_slice::<Value>(&answer.bytes).unwrap_or_default();
            let detail = detail["detail"].as_str().or(detail["error"]["message"].as_str());
            let detail = detail.unwrap_or_default().to_string();
            assert!(!detail.starts_with("no path"), "{method} {path}: {detail}");
            let served = answer.status != 405;
            assert_eq!(served, documented.contains(&(method.to_string(), path.clone())), "{method} {path}");
        }
    }
}

#[test]
fn routes_come_only_from_documented_handlers() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    let text = std::fs::read_to_string(root.join("routes.rs")).unwrap();
    assert!(!text.contains(".route("), "use routes!(…), which documents what it serves");
    assert!(!text.contains("nest_service") && !text.contains("route_service"));
}

#[tokio::test]
async fn references_of_the_document_point_somewhere() {
    let api = start().await;
    let document = api.get("/openapi.json").await.ok();
    let known: &Map<String, Value> = document["components"]["schemas"].as_object().unwrap();
    let text = document.to_string();
    let references = text
        .match_indices("#/components/schemas/")
        .map(|(at, head)| text[at + head.len()..].chars().take_while(|c| *c != '"').collect::<String>());
    let references: BTreeSet<String> = references.collect();
    assert!(references.len() > 15, "{references:?}");
    for name in references {
        assert!(known.contains_key(&name), "{name}");
    }
    let codes = known["Code"]["enum"].as_array().unwrap();
    assert_eq!(codes.len(), Code::ALL.len());
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let is_openai = operation["tags"][0] == "openai";
            let (media_type, name) = match is_openai {
                true => ("application/json", "OpenAiError"),
                false => ("application/problem+json", "Problem"),
            };
            let problem = &operation["responses"]["default"]["content"][media_type];
            let reference = format!("#/components/schemas/{name}");
            assert_eq!(problem["schema"]["$ref"], reference, "{method} {path}");
            assert!(operation["summary"].is_string(), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_document_lists_every_format() {
    let api = start().await;
    let document = api.get("/openapi.json").await.ok();
    let text = document.to_string();
    let listed = |word: &str| {
        let known: &Map<String, Value> = document["components"]["schemas"].as_object().unwrap();
        let words: Vec<&str> = match &known[word] {
            one if one["enum"].is_array() => {
                one["enum"].as_array().unwrap().iter().filter_map(Value::as_str).collect()
            }
            many => many["oneOf"].as_array().unwrap().iter().filter_map(|v| v["enum"][0].as_str()).collect(),
        };
        words.into_iter().map(String::from).collect::<Vec<String>>()
    };
    assert_eq!(listed("ExportFormat"), ExportFormat::ALL.map(|format| format.as_str().to_string()));
    assert!(
        ["ddl", "csv", "tables", "catalog", "dbt", "jsonl"]
            .iter()
            .all(|f| listed("Format").contains(&f.to_string()))
    );
    assert!(text.contains("left_out_total"));
}

/// Answers obey the schemas that the document gives for them.
#[tokio::test]
async fn answers_are_what_the_document_says() {
    let api = start().await;
    let document = api.get("/openapi.json").await.ok();
    let id = api.custom_job(3).await;
    let claims = api.claim(3).await;
    api.end(&claims, |seq| seq == 1).await;
    for (name, path) in [
        ("Job", format!("/v1/jobs/{id}")),
        ("JobPage", "/v1/jobs".into()),
        ("ResultPage", format!("/v1/jobs/{id}/results?input=true")),
        ("ErrorGroups", format!("/v1/jobs/{id}/errors")),
        ("ThroughputHistory", format!("/v1/jobs/{id}/throughput")),
        ("ModelList", "/v1/models".into()),
        ("Health", "/readyz".into()),
        ("Problem", "/nowhere".into()),
    ] {
        let mut schema = document.clone();
        schema["$ref"] = format!("#/components/schemas/{name}").into();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let answer = api.get(&path).await.json();
        let errors: Vec<String> = validator.iter_errors(&answer).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
        assert!(!validator.is_valid(&serde_json::json!({"x": 1})), "{name} accepts anything");
    }
}

#[tokio::test]
async fn pages_are_whole_and_need_nothing_from_elsewhere() {
    let api = start().await;
    let docs = api.get("/docs").await;
    for code in Code::ALL {
        assert!(docs.text().contains(&format!("<tr id=\"{code}\">")), "{code}");
        assert!(docs.text().contains(code.about()), "{code}");
    }
    for path in ["/", "/jobs/anything", "/docs"] {
        let page = api.get(path).await;
        assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(page.headers["x-content-type-options"], "nosniff");
    }
    for (file, kind) in
        [("main.js", "text/javascript"), ("docs.js", "text/javascript"), ("base.css", "text/css")]
    {
        let answer = api.get(&format!("/assets/{file}")).await;
        assert!(answer.headers["content-type"].to_str().unwrap().starts_with(kind));
    }
    api.get("/assets/none.js").await.problem(Code::NotFound);
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let api = start().await;
    api.custom_job(4).await;
    api.get("/nowhere").await;
    let text = api.get("/metrics").await.text().to_string();
    for line in [
        "adit_model_state{model=\"concept\",state=\"not_loaded\"} 1",
        "adit_model_state{model=\"concept\",state=\"ready\"} 0",
        "adit_http_requests_total{route=\"unmatched\",method=\"GET\",status=\"404\"}",
        "adit_http_request_seconds_bucket{route=\"/v1/jobs\"",
        "adit_items_submitted_total{task=\"custom\"}",
        "adit_queue_items{model=\"concept\"}",
        "adit_process_resident_bytes",
    ] {
        assert!(text.contains(line), "{line} in:\n{text}");
    }
}
