//! `adit bench --peer`: a real server on one side, a stand-in on the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::server::{Server, folder};

/// Answers validly, but fails every fourth request.
async fn stand_in() -> String {
    let n = Arc::new(AtomicUsize::new(0));
    let complete = move |Json(body): Json<Value>| async move {
        if n.fetch_add(1, Ordering::SeqCst) % 4 == 3 {
            return Err((StatusCode::INTERNAL_SERVER_ERROR, "planted"));
        }
        let product = &body["response_format"]["json_schema"]["schema"]["properties"]["product"]["enum"][0];
        let content =
            json!({"intent": "order", "product": product, "urgent": true, "topic": "a crack"}).to_string();
        Ok(Json(json!({"choices": [{"message": {"role": "assistant", "content": content}}],
                       "usage": {"prompt_tokens": 50, "completion_tokens": 20}})))
    };
    let routes = Router::new().route("/v1/chat/completions", post(complete));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    format!("http://{address}/v1")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_are_measured_in_turn() {
    let (dir, model) = folder();
    let server = Server::start(dir.path(), &model);
    let peer = stand_in().await;
    let args = [
        "bench",
        "--workload",
        "tiny",
        "--items",
        "12",
        "--runs",
        "2",
        "--json",
        "--peer",
        &peer,
        "--peer-model",
        "stand-in",
        "--peer-concurrency",
        "3",
    ];
    let output = tokio::task::block_in_place(|| server.adit(&args));
    let log = String::from_utf8_lossy(&output.stderr);
    // items without an answer are not hidden behind a success
    assert_eq!(output.status.code(), Some(3), "{log}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let order: Vec<&str> =
        log.lines().filter_map(|line| line.split(':').next()?.split(' ').next_back()).collect();
    assert_eq!(order, ["adit", "peer", "adit", "peer", "adit", "peer"], "{log}");
    for run in report["adit"]["runs"].as_array().unwrap() {
        // a random model may write a string of rare characters until its tokens run out; how often depends on the
        // machine's kernels
        let truncated = run["errors"]["output_truncated"].as_u64().unwrap_or(0);
        assert_eq!(run["answered"].as_u64().unwrap() + truncated, 12, "{run}");
        assert_eq!((&run["valid"], &run["items"]), (&run["answered"], &json!(12)));
        assert!(truncated < 12, "{run}");
        assert!(run["prompt_tokens"].as_u64().unwrap() > 12 * 20);
        assert!(run["forced_share"].as_f64().unwrap() > 0.2, "{run}");
    }
    assert_eq!(report["peer"]["errors"], json!({"status_500": 6}));
    for run in report["peer"]["runs"].as_array().unwrap() {
        assert_eq!(
            (&run["answered"], &run["valid"], &run["prompt_tokens"]),
            (&json!(9), &json!(9), &json!(450))
        );
    }
    let (ours, theirs) = (&report["adit"]["median"]["items/s"], &report["peer"]["median"]["items/s"]);
    let ratio = ours.as_f64().unwrap() / theirs.as_f64().unwrap();
    assert!((report["ratio"]["items/s"].as_f64().unwrap() - ratio).abs() < 1e-9);
    let engine = &report["engine"];
    assert_eq!((&engine["jump_forward"], &engine["prefix_cache"]), (&json!(true), &json!(true)));
    assert!(engine["steps"].as_u64().unwrap() > 0 && engine["mask_s"].as_f64().unwrap() > 0.0, "{engine}");
}

/// The engine by itself, on the CPU and a shape that takes no time.
#[test]
fn the_engine_alone_needs_no_server() {
    for (workload, items) in [("w5", 5), ("w6", 4)] {
        let args = [
            "--json",
            "bench",
            "--engine-only",
            "--shape",
            "tiny",
            "--device",
            "cpu",
            "--workload",
            workload,
        ];
        let items = items.to_string();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_adit"))
            .args(args)
            .args(["--runs", "1", "--items", &items])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["workload"], &report["device"]), (&json!(workload), &json!("the CPU")));
        let run = &report["run"];
        assert!(run["output_tokens_per_s"].as_f64().unwrap() > 0.0, "{report}");
        assert!(run["prefix_hit_tokens"].as_u64().unwrap() >= 384, "{report}");
        assert_eq!(run["forced_tokens"].as_u64().unwrap() > 0, workload == "w5", "{report}");
        assert!(report["limit"].is_null(), "a CPU has none");
    }
}
