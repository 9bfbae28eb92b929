//! Submitting: atomic, idempotent, streamed.

use adit::domain::item::ItemDraft;
use adit::domain::job::JobState;
use adit::domain::task::{Stage, Task};
use adit::store::submit::{NewJob, Submitted};
use adit::store::{Store, StoreError};
use serde_json::json;

pub use crate::postgres::new_job;
use crate::postgres::{assert_invariants, fresh_store};

pub async fn submit(store: &Store, job: NewJob, items: usize) -> Result<Submitted, StoreError> {
    let stage = job.spec.task.stages()[0];
    let mut submission = store.submit_begin(job).await?;
    for at in 0..items {
        submission.push(ItemDraft { stage, input: json!({ "z": at, "a": "text" }) }).await?;
    }
    submission.commit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submitted_job_waits_with_all_its_items() {
    let store = fresh_store(256).await;
    for items in [1, 2_000, 2_001, 5_000] {
        let job = submit(&store, new_job(Task::Custom), items).await.unwrap();
        assert!(job.created);
        let row = store.job(job.job).await.unwrap().unwrap();
        assert_eq!(
            (row.state, row.counts.total, row.counts.waiting),
            (JobState::Queued, items as i64, items as i64)
        );
        assert_eq!(row.stages[0].stage, Stage::Custom);
    }
    assert_invariants(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_or_empty_submission_leaves_nothing() {
    let store = fresh_store(256).await;
    let job = new_job(Task::Custom);
    let mut submission = store.submit_begin(job.clone()).await.unwrap();
    for _ in 0..3_000 {
        submission.push(ItemDraft { stage: Stage::Custom, input: json!("x") }).await.unwrap();
    }
    drop(submission);
    assert!(matches!(submit(&store, job, 0).await, Err(StoreError::Empty(_))));
    assert!(store.jobs(&Default::default(), None, 10).await.unwrap().is_empty());
    let items: i64 = sqlx::query_scalar("select count(*) from items").fetch_one(store.pool()).await.unwrap();
    assert_eq!(items, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_submissions_under_one_key_make_one_job() {
    let store = fresh_store(256).await;
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let store = store.clone();
            let mut job = new_job(Task::Custom);
            job.idempotency_key = Some("k".into());
            job.request_hash = Some(vec![7]);
            async move { submit(&store, job, 3).await.unwrap() }
        })
        .collect();
    let answers = futures::future::join_all(tasks).await;
    assert_eq!(answers.iter().filter(|answer| answer.created).count(), 1);
    assert!(answers.iter().all(|answer| answer.job == answers[0].job));
    let mut other = new_job(Task::Custom);
    other.idempotency_key = Some("k".into());
    other.request_hash = Some(vec![8]);
    let error = submit(&store, other, 3).await.unwrap_err();
    assert!(matches!(error, StoreError::IdempotencyConflict { job } if job == answers[0].job));
    assert_invariants(&store).await;
}
