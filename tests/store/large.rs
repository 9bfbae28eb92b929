//! A million items: streamed in with bounded memory, and no dearer to claim from.

use std::time::Instant;

use adit::domain::id::WorkerId;
use adit::domain::item::ItemDraft;
use adit::domain::task::{Stage, Task};
use adit::store::claim::ClaimRequest;
use serde_json::json;

use crate::postgres::fresh_store;
use crate::submit::new_job;

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_items_stream_in_and_out_of_claims() {
    let store = fresh_store(256).await;
    let (before, began) = (resident_bytes(), Instant::now());
    let mut submission = store.submit_begin(new_job(Task::Custom)).await.unwrap();
    let mut most = before;
    for at in 0..1_000_000 {
        let input = json!({ "text": format!("{at:0>100}") });
        submission.push(ItemDraft { stage: Stage::Custom, input }).await.unwrap();
        if at % 50_000 == 0 {
            most = most.max(resident_bytes());
        }
    }
    let job = submission.commit().await.unwrap().job;
    println!("1,000,000 items in {:?}, {} MiB more resident", began.elapsed(), (most - before) >> 20);
    assert!(most - before < 200 << 20, "{} MiB", (most - before) >> 20);
    assert_eq!(store.job(job).await.unwrap().unwrap().counts.waiting, 1_000_000);
    let request = ClaimRequest {
        worker: WorkerId::new(),
        model: "concept",
        budget: 1_024,
        lease_ms: 60_000,
        suspect_deaths: 2,
        besides: &[],
    };
    let began = Instant::now();
    let claims = store.claim(&request).await.unwrap();
    let items = store.claimed_items(&claims).await.unwrap();
    println!("a claim of {} items in {:?}", items.len(), began.elapsed());
    assert_eq!(items.len(), 1_024);
    let began = Instant::now();
    store.cancel(job).await.unwrap();
    println!("cancelled in {:?}", began.elapsed());
    assert_eq!(store.job(job).await.unwrap().unwrap().counts.cancelled, 1_000_000);
}
