//! The other side: every item as one chat completion, a bounded number of them at a time.

use std::time::Instant;

use anyhow::Result;
use futures::StreamExt;

use super::figures::{self, Ended, Run};
use super::workload::{Item, Workload};
use crate::client::openai::OpenAi;

/// Asks for every item of the workload, in order, `concurrency` at a time. The clock runs from the first
/// request to the last answer; an item's latency is that of its own request.
pub async fn measure(peer: &OpenAi, workload: &Workload, concurrency: usize) -> Result<Run> {
    let begun = Instant::now();
    let mut ended: Vec<(usize, Ended)> = futures::stream::iter(workload.items.iter().enumerate())
        .map(|(at, item)| async move { (at, ask(peer, workload, item).await) })
        // unordered: a slow answer must not keep the next request back
        .buffer_unordered(concurrency.max(1))
        .collect()
        .await;
    let wall_s = begun.elapsed().as_secs_f64();
    ended.sort_by_key(|(at, _)| *at);
    let ended: Vec<Ended> = ended.into_iter().map(|(_, one)| one).collect();
    figures::judge(workload, &ended, wall_s)
}

async fn ask(peer: &OpenAi, workload: &Workload, item: &Item) -> Ended {
    let begun = Instant::now();
    let schema = &workload.schemas[item.schema];
    let answer = peer.complete(&item.messages, schema, item.max_tokens).await;
    let latency_ms = begun.elapsed().as_secs_f64() * 1e3;
    let (answer, tokens) = match answer {
        Ok(answer) => {
            let tokens = (answer.prompt_tokens, answer.cached_tokens, answer.output_tokens);
            (Ok(answer.content), tokens)
        }
        Err(failure) => {
            tracing::debug!(%failure, "the peer failed an item");
            (Err(failure.word()), (0, 0, 0))
        }
    };
    let (prompt_tokens, cached_tokens, output_tokens) = tokens;
    Ended { answer, prompt_tokens, cached_tokens, output_tokens, forced_tokens: 0, latency_ms }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use axum::http::StatusCode;
    use axum::routing::{get, post};
    use axum::{Json, Router};
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::bench::workload::{Shape, workload};

    /// Every fourth answer is no valid one, every fifth request fails; no more than three may come at once.
    async fn stand_in(now: Arc<AtomicUsize>, most: Arc<AtomicUsize>) -> String {
        let complete = move |Json(body): Json<Value>| async move {
            let running = now.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(running, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            let is_request = body["response_format"]["json_schema"]["schema"]["type"] == "object"
                && body["messages"][0]["role"] == "system"
                && body["temperature"] == 0.0
                && body["max_tokens"] == 64;
            let text = body["messages"][1]["content"].as_str().unwrap_or_default();
            let number = text.split([':', '-']).nth(1).and_then(|number| number.parse::<usize>().ok());
            let (true, Some(number)) = (is_request, number) else {
                return Err((StatusCode::BAD_REQUEST, body.to_string()));
            };
            if number % 5 == 4 {
                return Err((StatusCode::SERVICE_UNAVAILABLE, "planted".into()));
            }
            let intent = if number % 4 == 3 { "steal" } else { "order" };
            let content =
                json!({"intent": intent, "product": "oak_shelf", "urgent": true, "topic": "a crack"})
                    .to_string();
            Ok(Json(json!({
                "choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 60, "completion_tokens": 20, "total_tokens": 80,
                          "prompt_tokens_details": {"cached_tokens": 15}},
            })))
        };
        let models = || async { Json(json!({"object": "list", "data": [{"id": "stand-in"}]})) };
        let routes =
            Router::new().route("/v1/models", get(models)).route("/v1/chat/completions", post(complete));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        crate::shutdown::Shutdown::new().spawn(async move { axum::serve(listener, routes).await });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn a_stand_in_is_measured_with_its_errors() {
        let most = Arc::new(AtomicUsize::new(0));
        let url = stand_in(Arc::default(), most.clone()).await;
        let peer = OpenAi::connect(&format!("{url}/v1/"), None, Duration::from_secs(5)).await.unwrap();
        assert_eq!((peer.model(), peer.base()), ("stand-in", url.as_str()));
        let run = measure(&peer, &workload(Shape::Tiny, 40, 17), 3).await.unwrap();
        // of 40: 4, 9, 14, … fail; of the others 3, 7, 11, … but 19 and 39 are invalid
        assert_eq!((run.items, run.answered, run.valid), (40, 32, 24));
        assert_eq!(run.errors.get("status_503"), Some(&8));
        assert_eq!((run.prompt_tokens, run.output_tokens), (32 * 60, 32 * 20));
        assert!((run.prefix_hit_share - 0.25).abs() < 1e-9);
        assert!((run.items_per_s * run.wall_s - 32.0).abs() < 1e-6, "errors are not served");
        assert!((run.valid_items_per_s * run.wall_s - 24.0).abs() < 1e-6);
        assert!(run.p50_latency_ms >= 5.0 && run.p99_latency_ms >= run.p50_latency_ms);
        assert_eq!(most.load(Ordering::SeqCst), 3, "as many at once as was said");
    }

    #[tokio::test]
    async fn a_peer_that_is_not_there_is_an_error_and_not_a_figure() {
        let url = "http://127.0.0.1:1";
        assert!(OpenAi::connect(url, None, Duration::from_secs(1)).await.is_err());
        let peer = OpenAi::connect(url, Some("m"), Duration::from_secs(1)).await.unwrap();
        let run = measure(&peer, &workload(Shape::Tiny, 3, 1), 2).await.unwrap();
        assert_eq!((run.answered, run.errors.get("unreachable")), (0, Some(&3)));
        assert_eq!(run.items_per_s, 0.0);
    }
}
