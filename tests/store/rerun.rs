//! A job made from an earlier one: what is copied, what waits, and that it is whole without the other.

use std::time::Duration;

use adit::domain::confidence::{Confidence, ItemConfidence};
use adit::domain::difference::TableChanges;
use adit::domain::fact::DataModel;
use adit::domain::id::{JobId, WorkerId};
use adit::domain::item::{Carried, ItemDraft, NewResult, Outcome, StageItems};
use adit::domain::job::JobState;
use adit::domain::lease::Claim;
use adit::domain::task::{Stage, Task};
use adit::domain::usage::Usage;
use adit::store::Store;
use adit::store::advance::{Advanced, NextStage};
use adit::store::claim::ClaimRequest;
use adit::store::finish::{Finish, Finished};
use adit::store::rerun::Rerun;
use serde_json::json;
use sqlx::Executor;

use crate::postgres::{assert_invariants, fresh_store};
use crate::submit::{new_job, submit};

async fn claim(store: &Store, model: &str) -> Vec<Claim> {
    let request = ClaimRequest {
        worker: WorkerId::new(),
        model,
        budget: 1_000,
        lease_ms: 60_000,
        suspect_deaths: 3,
        besides: &[],
    };
    store.claim(&request).await.unwrap()
}

fn half_sure() -> ItemConfidence {
    ItemConfidence { least: Confidence::new(0.5).unwrap(), fields: Default::default() }
}

/// Answers everything that waits for `model`.
async fn answer(store: &Store, model: &str) -> Finished {
    let mut last = Finished::Open;
    for claim in claim(store, model).await {
        let items = store.claimed_items(std::slice::from_ref(&claim)).await.unwrap();
        let results: Vec<NewResult> = items
            .iter()
            .map(|item| NewResult {
                seq: item.seq,
                outcome: Outcome::Succeeded { output: json!({"z": item.seq, "a": "kept in order\u{0}"}) },
                usage: Usage { prompt_tokens: 10, prefix_hit_tokens: 4, output_tokens: 5, forced_tokens: 2 },
                latency_ms: 7,
                confidence: Some(half_sure()),
            })
            .collect();
        let finish = Finish { claim: &claim, results: &results, again: &[], again_after_ms: 0 };
        last = store.finish(&finish).await.unwrap();
    }
    last
}

/// A data model job that has ended: five concept items, two relationship items.
async fn ended(store: &Store) -> JobId {
    let job = submit(store, new_job(Task::DataModel), 5).await.unwrap().job;
    for (model, next, drafts) in [("concept", Stage::Relationship, 2), ("relationship", Stage::Attribute, 0)]
    {
        let Finished::StageDone(done) = answer(store, model).await else { panic!() };
        let drafts = (0..drafts).map(|n| draft(next, n)).collect();
        let items = StageItems { stage: next, carried: Vec::new(), drafts };
        store.advance(done, NextStage::Items(items)).await.unwrap();
    }
    assert_eq!(store.job(job).await.unwrap().unwrap().state, JobState::Completed);
    job
}

fn draft(stage: Stage, n: usize) -> ItemDraft {
    ItemDraft { stage, input: json!({"n": n, "text": "\u{0}"}) }
}

fn carried(stage: Stage, seq: i32) -> Carried {
    Carried { seq, draft: draft(stage, 100 + seq as usize), output: json!({"of": seq, "a": "\u{0}"}) }
}

fn rerun(since: JobId) -> Rerun {
    let tables = TableChanges { unchanged: 3, changed: vec!["a".into()], ..TableChanges::default() };
    Rerun { since, tables, model: DataModel::default() }
}

async fn count(store: &Store, table: &str) -> i64 {
    let query = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
    sqlx::query_scalar(query).fetch_one(store.pool()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_copied_with_every_column_and_the_earlier_job_may_go() {
    let store = fresh_store(2).await;
    let earlier = ended(&store).await;
    // whatever results come to hold goes along
    store
        .pool()
        .execute(
            "alter table results add column later real default 0.75;
             alter table results alter column later set default 0.125",
        )
        .await
        .unwrap();
    let job = new_job(Task::DataModel);
    let id = job.id;
    let mut submission = store.submit_begin(job).await.unwrap();
    let held = submission.hold(earlier).await.unwrap().unwrap();
    assert_eq!((held.state, held.spec.task), (JobState::Completed, Task::DataModel));
    assert_eq!(submission.items_of(earlier).await.unwrap().len(), 7);
    let of_concepts: Vec<Carried> = [0, 2, 4].map(|seq| carried(Stage::Concept, seq)).to_vec();
    let of_relationships: Vec<Carried> = [5, 6].map(|seq| carried(Stage::Relationship, seq)).to_vec();
    let all = [of_concepts.clone(), of_relationships.clone()].concat();
    let stage =
        StageItems { stage: Stage::Concept, carried: of_concepts, drafts: vec![draft(Stage::Concept, 1)] };
    submission.write_rerun(&rerun(earlier), &all, &[stage]).await.unwrap();
    submission.commit().await.unwrap();
    assert_invariants(&store).await;

    let row = store.job(id).await.unwrap().unwrap();
    assert_eq!((row.state, row.since, row.carried()), (JobState::Queued, Some(earlier), 3));
    assert_eq!((row.counts.total, row.counts.succeeded, row.counts.waiting), (4, 3, 1));
    assert_eq!(row.usage, Usage::default(), "what was carried took nothing here");
    assert_eq!(count(&store, "carried").await, 2);
    let [before, now] = [earlier, id].map(|job| {
        let store = store.clone();
        async move { store.results(job, None, 100, None).await.unwrap().rows }
    });
    let (before, now) = (before.await, now.await);
    for (place, seq) in [(0, 0), (1, 2), (2, 4)] {
        let (then, copy) = (&before[seq], &now[place]);
        assert_eq!(
            (copy.usage, copy.attempts, copy.latency_ms),
            (then.usage, then.attempts, then.latency_ms)
        );
        assert_eq!((copy.finished_at, copy.carried, then.carried), (then.finished_at, true, false));
        assert_eq!(copy.confidence, Some(half_sure()), "how sure the model was is carried along");
        let Outcome::Succeeded { output } = &copy.outcome else { panic!() };
        assert_eq!(output.to_string(), carried(Stage::Concept, seq as i32).output.to_string());
        assert_eq!(copy.input, draft(Stage::Concept, 100 + seq).input);
    }
    let later: Vec<Option<f32>> = sqlx::query_scalar("select later from results where job_id = $1")
        .bind(id.0)
        .fetch_all(store.pool())
        .await
        .unwrap();
    assert_eq!(later, [Some(0.75); 3]);
    let learnt = store.experience("concept", Stage::Concept).await.unwrap();
    let items: f64 = learnt.iter().map(|(_, of_digest)| of_digest.items).sum();
    assert_eq!(items, 5.0, "the carried ones teach nothing");

    store.delete(earlier).await.unwrap();
    let Finished::StageDone(done) = answer(&store, "concept").await else { panic!() };
    let kept = store.carried(id, Stage::Relationship).await.unwrap();
    assert_eq!(kept, of_relationships);
    // one of the two no longer holds
    let items = StageItems { stage: Stage::Relationship, carried: kept[1..].to_vec(), drafts: Vec::new() };
    let advanced = store.advance(done, NextStage::Items(items.clone())).await.unwrap();
    let Advanced::Passed(done) = advanced else { panic!("{advanced:?}") };
    assert_invariants(&store).await;
    assert_eq!(count(&store, "carried").await, 0);
    // told twice, done once
    let again = adit::store::finish::StageDone { job: id, stage: Stage::Concept };
    assert_eq!(store.advance(again, NextStage::Items(items)).await.unwrap(), Advanced::Stale);
    let last =
        StageItems { stage: Stage::Attribute, carried: Vec::new(), drafts: vec![draft(Stage::Attribute, 0)] };
    assert_eq!(store.advance(done, NextStage::Items(last)).await.unwrap(), Advanced::Started);
    assert_eq!(answer(&store, "attribute").await, Finished::JobCompleted(id));
    assert_invariants(&store).await;
    let row = store.job(id).await.unwrap().unwrap();
    assert_eq!((row.state, row.carried(), row.counts.succeeded), (JobState::Completed, 4, 6));
    assert_eq!(row.usage.prompt_tokens, 20, "two items ran");
    let kept = store.rerun(id).await.unwrap().unwrap();
    assert_eq!((kept.since, kept.tables), (earlier, rerun(earlier).tables));

    // and it takes all it has with it
    store.delete(id).await.unwrap();
    for table in ["jobs", "items", "results", "chunks", "reruns", "carried"] {
        assert_eq!(count(&store, table).await, 0, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_nothing_to_run_ends_with_its_submission() {
    let store = fresh_store(2).await;
    let earlier = ended(&store).await;
    let job = new_job(Task::DataModel);
    let id = job.id;
    let mut submission = store.submit_begin(job).await.unwrap();
    submission.hold(earlier).await.unwrap();
    let stage = |stage, seqs: &[i32]| StageItems {
        stage,
        carried: seqs.iter().map(|seq| carried(stage, *seq)).collect(),
        drafts: Vec::new(),
    };
    let stages = [
        stage(Stage::Concept, &[0, 1, 2, 3, 4]),
        stage(Stage::Relationship, &[5, 6]),
        stage(Stage::Attribute, &[]),
    ];
    let all: Vec<Carried> = stages.iter().flat_map(|items| items.carried.clone()).collect();
    submission.write_rerun(&rerun(earlier), &all, &stages).await.unwrap();
    submission.commit().await.unwrap();
    assert_invariants(&store).await;
    let row = store.job(id).await.unwrap().unwrap();
    assert_eq!((row.state, row.counts.succeeded, row.carried()), (JobState::Completed, 7, 7));
    assert!(row.finished_at.is_some() && row.started_at.is_none());
    assert!(claim(&store, "concept").await.is_empty() && store.waiting_by_model().await.unwrap().is_empty());
    assert_eq!(count(&store, "carried").await, 0);
    assert_eq!(store.retry_failed(id, None).await.unwrap(), 0);
    assert_invariants(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_earlier_job_is_held_until_the_submission_ends_and_a_dropped_one_leaves_nothing() {
    let store = fresh_store(2).await;
    let earlier = ended(&store).await;
    let mut submission = store.submit_begin(new_job(Task::DataModel)).await.unwrap();
    assert!(submission.hold(JobId::new()).await.unwrap().is_none());
    submission.hold(earlier).await.unwrap().unwrap();
    let mut deleting = Box::pin(store.delete(earlier));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut deleting).await.is_err());
    let stage =
        StageItems { stage: Stage::Concept, carried: vec![carried(Stage::Concept, 0)], drafts: Vec::new() };
    let all = [carried(Stage::Concept, 0), carried(Stage::Relationship, 5)];
    submission.write_rerun(&rerun(earlier), &all, &[stage]).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut deleting).await.is_err());
    drop(submission);
    deleting.await.unwrap();
    for table in ["jobs", "items", "results", "chunks", "reruns", "carried"] {
        assert_eq!(count(&store, table).await, 0, "{table}");
    }
}
