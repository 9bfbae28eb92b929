//! Files and batches in the tables: one process checks a batch, whatever the others do, and nothing is left half.

use adit::domain::batch::{BatchError, BatchState};
use adit::domain::code::Code;
use adit::domain::id::{BatchId, FileId};
use adit::domain::item::{ItemDraft, Outcome};
use adit::domain::job::JobState;
use adit::domain::task::{Stage, Task};
use adit::store::Store;
use adit::store::batch::NewBatch;
use adit::store::submit::{NewJob, Submission};
use serde_json::json;

use crate::postgres::{assert_invariants, fresh_store, new_job};

const TENANT: &str = "t";

async fn batch(store: &Store) -> BatchId {
    let batch = NewBatch {
        id: BatchId::new(),
        tenant: TENANT.into(),
        charge: None,
        input_bytes: 0,
        endpoint: "/v1/chat/completions".into(),
        input_file: FileId::new(),
        completion_window: "24h".into(),
        window_s: 86_400,
        metadata: None,
        output_ttl_s: None,
        idempotency: None,
    };
    store.create_batch(&batch).await.unwrap()
}

fn job_of(id: BatchId) -> NewJob {
    NewJob { id: id.job(), ..new_job(Task::Chat) }
}

async fn push(submission: &mut Submission, model: &str, items: usize) {
    for at in 0..items {
        submission.push(ItemDraft { stage: Stage::Chat, input: json!({ "at": at }) }).await.unwrap();
    }
    submission.served_by(model);
}

async fn state(store: &Store, id: BatchId) -> BatchState {
    store.batch(TENANT, id).await.unwrap().unwrap().state
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_checks_a_batch_and_another_takes_over_when_it_dies() {
    let store = fresh_store(2).await;
    let id = batch(&store).await;
    let other = batch(&store).await;
    let mut first = store.validation_begin(job_of(id)).await.unwrap().expect("nobody is at it");
    push(&mut first, "concept", 3).await;
    assert!(store.validation_begin(job_of(id)).await.unwrap().is_none(), "somebody is at it");
    assert!(store.validation_begin(job_of(other)).await.unwrap().is_some(), "not at this one");
    // the first one dies
    drop(first);
    let mut second = loop {
        // the rollback goes on behind the drop
        if let Some(second) = store.validation_begin(job_of(id)).await.unwrap() {
            break second;
        }
    };
    assert_eq!(state(&store, id).await, BatchState::Validating);
    push(&mut second, "concept", 3).await;
    push(&mut second, "attribute", 1).await;
    assert!(second.commit_batch().await.unwrap());
    assert!(store.validation_begin(job_of(id)).await.unwrap().is_none(), "it is done");
    let row = store.batch(TENANT, id).await.unwrap().unwrap();
    assert_eq!((row.state, row.counts.total, row.counts.waiting), (BatchState::InProgress, 4, 4));
    assert_eq!(row.models, ["concept", "attribute"]);
    assert!(row.output_file.is_some() && row.error_file.is_some() && row.output_file != row.error_file);
    let chunks: Vec<(String, i32, i32)> =
        sqlx::query_as("select model, lo, hi from chunks where job_id = $1 order by lo")
            .bind(id.0)
            .fetch_all(store.pool())
            .await
            .unwrap();
    let expected = [("concept", 0, 2), ("concept", 2, 3), ("attribute", 3, 4)];
    assert_eq!(chunks, expected.map(|(model, lo, hi)| (model.to_string(), lo, hi)));
    assert!(store.batch("somebody else", id).await.unwrap().is_none());
    assert_invariants(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn items_that_failed_as_they_came_are_counted_and_never_claimed() {
    let store = fresh_store(256).await;
    let id = batch(&store).await;
    let mut checking = store.validation_begin(job_of(id)).await.unwrap().unwrap();
    push(&mut checking, "concept", 1).await;
    // more than one write of results has
    for at in 0..4_500 {
        let draft = ItemDraft { stage: Stage::Chat, input: json!({ "line": at }) };
        checking.push_failed(draft, Code::InvalidRequest, format!("line {at}\0")).await.unwrap();
    }
    assert!(checking.commit_batch().await.unwrap());
    assert_invariants(&store).await;
    let row = store.batch(TENANT, id).await.unwrap().unwrap();
    assert_eq!((row.state, row.counts.failed, row.counts.waiting), (BatchState::InProgress, 4_500, 1));
    let page = store.results(id.job(), None, 10_000, None).await.unwrap();
    for (at, result) in page.rows.iter().enumerate() {
        let failed = Outcome::Failed { code: Code::InvalidRequest, message: format!("line {at}") };
        assert_eq!((result.seq as usize, &result.outcome), (at + 1, &failed));
    }
    assert_eq!(page.rows.len(), 4_500);
    // nothing but failures is no job
    let other = batch(&store).await;
    let mut checking = store.validation_begin(job_of(other)).await.unwrap().unwrap();
    let draft = ItemDraft { stage: Stage::Chat, input: json!({}) };
    checking.push_failed(draft, Code::InvalidRequest, "x".into()).await.unwrap();
    assert!(checking.commit_batch().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_comes_while_lines_are_checked_wins() {
    let store = fresh_store(256).await;
    let id = batch(&store).await;
    let mut checking = store.validation_begin(job_of(id)).await.unwrap().unwrap();
    push(&mut checking, "concept", 3).await;
    // not held up by the checking
    store.cancel_batch(id).await.unwrap();
    assert_eq!(state(&store, id).await, BatchState::Cancelling);
    assert!(!checking.commit_batch().await.unwrap());
    store.drop_batch(id).await.unwrap();
    assert_eq!(state(&store, id).await, BatchState::Cancelled);
    assert!(store.job(id.job()).await.unwrap().is_none());
    // an end is an end
    store.fail_batch(id, &[]).await.unwrap();
    assert_eq!(state(&store, id).await, BatchState::Cancelled);
    assert!(store.cancel_batch(id).await.is_err(), "there is nothing to cancel");
    assert_invariants(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_closed_once_with_the_end_it_was_measured_at() {
    let store = fresh_store(256).await;
    let id = batch(&store).await;
    let mut checking = store.validation_begin(job_of(id)).await.unwrap().unwrap();
    push(&mut checking, "concept", 1).await;
    checking.commit_batch().await.unwrap();
    assert!(store.batches_to_close().await.unwrap().is_empty());
    store.cancel_batch(id).await.unwrap();
    assert_eq!(state(&store, id).await, BatchState::Cancelling);
    assert_eq!(store.job(id.job()).await.unwrap().unwrap().state, JobState::Cancelled);
    let due = store.batches_to_close().await.unwrap()[0];
    let stale =
        adit::store::batch::ToClose { finished_at: due.finished_at - chrono::TimeDelta::seconds(1), ..due };
    store.close_batch(stale, 1, 1).await.unwrap();
    assert_eq!(state(&store, id).await, BatchState::Cancelling);
    store.close_batch(due, 0, 70).await.unwrap();
    store.close_batch(due, 9, 9).await.unwrap();
    let row = store.batch(TENANT, id).await.unwrap().unwrap();
    assert_eq!((row.state, row.counts.cancelled), (BatchState::Cancelled, 1));
    let errors = store.file(TENANT, row.error_file.unwrap()).await.unwrap().unwrap();
    assert_eq!((errors.bytes, errors.batch), (70, Some(id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_batch_keeps_its_errors() {
    let store = fresh_store(256).await;
    let id = batch(&store).await;
    let error = BatchError { code: "empty_file".into(), line: None, message: "x".into(), param: None };
    store.fail_batch(id, std::slice::from_ref(&error)).await.unwrap();
    let row = store.batch(TENANT, id).await.unwrap().unwrap();
    assert_eq!((row.state, row.errors), (BatchState::Failed, vec![error]));
    assert!(store.batches_to_validate().await.unwrap().is_empty());
    assert!(store.validation_begin(job_of(id)).await.unwrap().is_none());
}
