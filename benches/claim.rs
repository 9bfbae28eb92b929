//! Cost of a claim by how much waits: rows/s of submission, latency of claim, items and release.
//!
//! `cargo bench --bench claim`. Prints a table; asserts nothing.
#![allow(clippy::unwrap_used)]

#[path = "../tests/support/postgres.rs"]
mod postgres;

use std::time::{Duration, Instant};

use adit::domain::id::{JobId, WorkerId};
use adit::domain::item::ItemDraft;
use adit::domain::job::{Class, Generation, JobSpec};
use adit::domain::task::{Stage, Task};
use adit::store::Store;
use adit::store::claim::ClaimRequest;
use adit::store::submit::NewJob;
use serde_json::json;

const CLAIMS: usize = 300;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!(
        "{:>10} {:>12} {:>12} {:>12} {:>14}",
        "waiting", "submit/s", "claim p50", "claim p99", "items/s read"
    );
    for waiting in [1_000, 100_000, 1_000_000] {
        runtime.block_on(measure(waiting));
    }
}

async fn measure(waiting: usize) {
    let store = postgres::fresh_store(256).await;
    let submit = submit(&store, waiting).await;
    let worker = WorkerId::new();
    let request = ClaimRequest {
        worker,
        model: "concept",
        budget: 256,
        lease_ms: 60_000,
        suspect_deaths: 2,
        besides: &[],
    };
    let (mut latencies, mut items, mut reading) = (Vec::new(), 0, Duration::ZERO);
    for _ in 0..CLAIMS {
        let began = Instant::now();
        let claims = store.claim(&request).await.unwrap();
        latencies.push(began.elapsed());
        let began = Instant::now();
        items += store.claimed_items(&claims).await.unwrap().len();
        reading += began.elapsed();
        let fences: Vec<_> = claims.iter().map(|claim| claim.fence).collect();
        store.release(&fences).await.unwrap();
    }
    latencies.sort();
    println!(
        "{waiting:>10} {:>12.0} {:>12.2?} {:>12.2?} {:>14.0}",
        waiting as f64 / submit.as_secs_f64(),
        latencies[CLAIMS / 2],
        latencies[CLAIMS * 99 / 100],
        items as f64 / reading.as_secs_f64(),
    );
}

async fn submit(store: &Store, items: usize) -> Duration {
    let began = Instant::now();
    let job = NewJob {
        id: JobId::new(),
        tenant: "bench".into(),
        spec: JobSpec {
            task: Task::Custom,
            model: None,
            schema: None,
            instructions: None,
            generation: Generation::default(),
            review_below: None,
        },
        catalog: None,
        class: Class::Normal,
        weight: Default::default(),
        idempotency_key: None,
        request_hash: None,
        expires_at: None,
    };
    let mut submission = store.submit_begin(job).await.unwrap();
    for at in 0..items {
        let input = json!({ "text": format!("{at:0>200}") });
        submission.push(ItemDraft { stage: Stage::Custom, input }).await.unwrap();
    }
    submission.commit().await.unwrap();
    began.elapsed()
}
