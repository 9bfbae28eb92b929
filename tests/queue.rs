//! The queue against a real PostgreSQL: gate, fences, exactly once, fairness, outages of workers.
#![allow(clippy::unwrap_used)]

#[path = "support/postgres.rs"]
mod postgres;

pub use postgres::new_job;

#[path = "queue/fence.rs"]
mod fence;
#[path = "queue/rate.rs"]
mod rate;
#[path = "queue/share.rs"]
mod share;
#[path = "queue/work.rs"]
mod work;

use adit::domain::id::{JobId, Seq, WorkerId};
use adit::domain::item::{ItemDraft, NewResult, Outcome};
use adit::domain::lease::Claim;
use adit::domain::task::Task;
use adit::domain::usage::Usage;
use adit::store::Store;
use adit::store::claim::ClaimRequest;
use adit::store::submit::NewJob;
use serde_json::json;

pub async fn submit(store: &Store, job: NewJob, items: usize) -> JobId {
    let stage = job.spec.task.stages()[0];
    let mut submission = store.submit_begin(job).await.unwrap();
    for at in 0..items {
        submission.push(ItemDraft { stage, input: json!(at) }).await.unwrap();
    }
    submission.commit().await.unwrap().job
}

pub fn succeeded(seq: Seq) -> NewResult {
    let usage = Usage { prompt_tokens: 10, prefix_hit_tokens: 4, output_tokens: 3, forced_tokens: 1 };
    NewResult {
        seq,
        outcome: Outcome::Succeeded { output: json!({ "seq": seq }) },
        usage,
        latency_ms: 1,
        confidence: None,
    }
}

pub async fn claim(store: &Store, worker: WorkerId, budget: i32) -> Vec<Claim> {
    let request =
        ClaimRequest { worker, model: "concept", budget, lease_ms: 60_000, suspect_deaths: 2, besides: &[] };
    store.claim(&request).await.unwrap()
}

/// Lets every lease run out, as the database sees it.
pub async fn let_leases_pass(store: &Store) {
    sqlx::query("update chunks set lease_until = now() - interval '1 s' where state = 'running'")
        .execute(store.pool())
        .await
        .unwrap();
}
