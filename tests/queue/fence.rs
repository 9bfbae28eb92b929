//! Claims and fences by hand, without workers: every order of events that a race could take.

use adit::domain::id::WorkerId;
use adit::domain::item::{ItemDraft, NewResult, Outcome, OutcomeKind, StageItems};
use adit::domain::job::JobState;
use adit::domain::task::{Stage, Task};
use adit::store::StoreError;
use adit::store::advance::{Advanced, NextStage};
use adit::store::finish::{Fenced, Finish, Finished, Write};
use adit::store::rescue::Rescued;
use serde_json::json;

use super::postgres::{assert_invariants, fresh_store};
use super::*;

fn finish<'a>(claim: &'a Claim, results: &'a [NewResult]) -> Finish<'a> {
    Finish { claim, results, again: &[], again_after_ms: 0 }
}

fn results(claim: &Claim) -> Vec<NewResult> {
    match &claim.range {
        adit::domain::lease::ItemRange::Span { lo, hi } => (*lo..*hi).map(succeeded).collect(),
        adit::domain::lease::ItemRange::List(seqs) => seqs.iter().copied().map(succeeded).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lost_its_claim_cannot_write() {
    let store = fresh_store(4).await;
    let job = submit(&store, new_job(Task::Custom), 4).await;
    let (zombie, heir) = (WorkerId::new(), WorkerId::new());
    let old = claim(&store, zombie, 4).await.remove(0);
    let_leases_pass(&store).await;
    let abandoned = store.abandoned().await.unwrap().remove(0);
    assert_eq!(store.rescue(abandoned, true, false, 3).await.unwrap(), Rescued::Ready);
    assert_eq!(store.rescue(abandoned, true, false, 3).await.unwrap(), Rescued::Gone);
    let new = claim(&store, heir, 4).await.remove(0);
    assert_invariants(&store).await;
    // the zombie wakes: renewal, results and end all miss
    assert!(store.renew(&[old.fence], 1_000).await.unwrap().is_empty());
    let write = Write { claim: &old, results: &results(&old) };
    assert_eq!(store.commit_results(&[write]).await.unwrap(), [Fenced::Lost]);
    assert_eq!(store.finish(&finish(&old, &results(&old))).await.unwrap(), Finished::Lost);
    assert_eq!(store.release(&[old.fence]).await.unwrap(), 0);
    assert_eq!(store.finish(&finish(&new, &results(&new))).await.unwrap(), Finished::JobCompleted(job));
    assert_invariants(&store).await;
    let row = store.job(job).await.unwrap().unwrap();
    assert_eq!((row.state, row.counts.succeeded, row.usage.prompt_tokens), (JobState::Completed, 4, 40));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_reads_only_what_has_no_result_and_writing_twice_counts_once() {
    let store = fresh_store(8).await;
    let job = submit(&store, new_job(Task::Custom), 8).await;
    let first = claim(&store, WorkerId::new(), 8).await.remove(0);
    let some = [succeeded(1), succeeded(5)];
    for _ in 0..2 {
        store.commit_results(&[Write { claim: &first, results: &some }]).await.unwrap();
    }
    assert_invariants(&store).await;
    assert_eq!(store.release(&[first.fence]).await.unwrap(), 1);
    let second = claim(&store, WorkerId::new(), 8).await.remove(0);
    assert!(second.fence.attempt > first.fence.attempt);
    let items = store.claimed_items(std::slice::from_ref(&second)).await.unwrap();
    assert_eq!(items.iter().map(|item| item.seq).collect::<Vec<_>>(), [0, 2, 3, 4, 6, 7]);
    // left out of the finish: those items wait again
    let rest = [succeeded(0), succeeded(2)];
    assert_eq!(store.finish(&finish(&second, &rest)).await.unwrap(), Finished::Open);
    assert_invariants(&store).await;
    let third = claim(&store, WorkerId::new(), 8).await.remove(0);
    store.finish(&finish(&third, &results(&third))).await.unwrap();
    let row = store.job(job).await.unwrap().unwrap();
    assert_eq!((row.state, row.counts.succeeded, row.usage.output_tokens), (JobState::Completed, 8, 24));
    assert_invariants(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_kills_is_split_and_its_poison_fails_alone() {
    let store = fresh_store(4).await;
    let job = submit(&store, new_job(Task::Custom), 4).await;
    let killer = 2;
    for _ in 0..40 {
        let claims = claim(&store, WorkerId::new(), 16).await;
        for claim in &claims {
            let items = store.claimed_items(std::slice::from_ref(claim)).await.unwrap();
            if items.iter().any(|item| item.seq == killer) {
                let_leases_pass(&store).await;
            } else {
                let ended: Vec<_> = items.iter().map(|item| succeeded(item.seq)).collect();
                store.finish(&finish(claim, &ended)).await.unwrap();
            }
        }
        for abandoned in store.abandoned().await.unwrap() {
            store.rescue(abandoned, true, false, 3).await.unwrap();
        }
        assert_invariants(&store).await;
    }
    let row = store.job(job).await.unwrap().unwrap();
    assert_eq!((row.state, row.counts.succeeded, row.counts.failed), (JobState::Completed, 3, 1));
    let failed = store.results(job, None, 10, Some(OutcomeKind::Failed)).await.unwrap().rows;
    assert_eq!(failed[0].seq, killer);
    assert!(matches!(&failed[0].outcome, Outcome::Failed { code, .. } if code.as_str() == "poison"));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_ends_every_open_item_at_once() {
    let store = fresh_store(4).await;
    let job = submit(&store, new_job(Task::Custom), 12).await;
    let running = claim(&store, WorkerId::new(), 4).await.remove(0);
    store.commit_results(&[Write { claim: &running, results: &[succeeded(1)] }]).await.unwrap();
    store.cancel(job).await.unwrap();
    store.cancel(job).await.unwrap();
    assert_invariants(&store).await;
    assert_eq!(store.finish(&finish(&running, &results(&running))).await.unwrap(), Finished::Lost);
    let row = store.job(job).await.unwrap().unwrap();
    assert_eq!((row.state, row.counts.succeeded, row.counts.cancelled), (JobState::Cancelled, 1, 11));
    // pages show each item once, with or without a row
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.results(job, after, 5, None).await.unwrap().rows;
        let Some(last) = page.last() else { break };
        after = Some(last.seq);
        seen.extend(page.iter().map(|row| row.seq));
    }
    assert_eq!(seen, (0..12).collect::<Vec<_>>());
    assert!(matches!(store.retry_failed(job, None).await, Err(StoreError::InvalidState { .. })));
    store.delete(job).await.unwrap();
    assert!(store.job(job).await.unwrap().is_none());
    assert_invariants(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_items_are_retried_and_tries_are_counted() {
    let store = fresh_store(4).await;
    let job = submit(&store, new_job(Task::Custom), 4).await;
    let first = claim(&store, WorkerId::new(), 4).await.remove(0);
    let bad = NewResult {
        outcome: Outcome::Failed { code: adit::domain::code::Code::InvalidAnswer, message: "no\0pe".into() },
        ..succeeded(0)
    };
    let some = [bad, succeeded(1)];
    let end = Finish { claim: &first, results: &some, again: &[2, 3], again_after_ms: 60_000 };
    assert_eq!(store.finish(&end).await.unwrap(), Finished::Open);
    assert_invariants(&store).await;
    assert!(claim(&store, WorkerId::new(), 4).await.is_empty());
    assert_eq!(store.promote_due().await.unwrap(), 0);
    sqlx::query("update chunks set run_at = now() where state = 'delayed'")
        .execute(store.pool())
        .await
        .unwrap();
    assert_eq!(store.promote_due().await.unwrap(), 1);
    let second = claim(&store, WorkerId::new(), 4).await.remove(0);
    assert_eq!(second.tries, 1);
    assert_eq!(store.finish(&finish(&second, &results(&second))).await.unwrap(), Finished::JobCompleted(job));
    assert_eq!(store.failures(job).await.unwrap().len(), 1);
    assert_eq!(store.retry_failed(job, None).await.unwrap(), 1);
    assert_invariants(&store).await;
    let third = claim(&store, WorkerId::new(), 4).await.remove(0);
    assert_eq!(store.finish(&finish(&third, &results(&third))).await.unwrap(), Finished::JobCompleted(job));
    assert_eq!(store.job(job).await.unwrap().unwrap().counts.succeeded, 4);
    assert_invariants(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_past_its_time_expires() {
    let store = fresh_store(4).await;
    let mut job = new_job(Task::Custom);
    job.expires_at = chrono::DateTime::from_timestamp(1, 0);
    let job = submit(&store, job, 8).await;
    let running = claim(&store, WorkerId::new(), 4).await.remove(0);
    assert!(store.expire_due().await.unwrap().is_empty());
    assert_invariants(&store).await;
    assert_eq!(
        store.finish(&finish(&running, &results(&running))).await.unwrap(),
        Finished::JobCompleted(job)
    );
    let counts = store.job(job).await.unwrap().unwrap().counts;
    assert_eq!((counts.succeeded, counts.expired), (4, 4));
    let expired = store.results(job, None, 10, Some(OutcomeKind::Expired)).await.unwrap().rows;
    assert_eq!(expired.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_caller_learns_that_a_stage_is_done() {
    let store = fresh_store(1).await;
    let job = submit(&store, new_job(Task::DataModel), 12).await;
    let claims = claim(&store, WorkerId::new(), 12).await;
    assert_eq!(claims.len(), 12);
    let ends = claims.iter().map(|claim| {
        let store = store.clone();
        async move { store.finish(&finish(claim, &results(claim))).await.unwrap() }
    });
    let ends = futures::future::join_all(ends).await;
    let mut done: Vec<_> = ends
        .iter()
        .filter_map(|end| if let Finished::StageDone(done) = end { Some(*done) } else { None })
        .collect();
    assert_eq!(done.len(), 1);
    let done = done.remove(0);
    // its maker dies: handed out again, once, after the time
    assert!(store.take_over_stages(60_000).await.unwrap().is_empty());
    assert_eq!(store.take_over_stages(0).await.unwrap(), [done]);
    let drafts = vec![ItemDraft { stage: Stage::Relationship, input: json!(1) }; 3];
    let next = NextStage::Items(StageItems { stage: Stage::Relationship, carried: Vec::new(), drafts });
    assert_eq!(store.advance(done, next.clone()).await.unwrap(), Advanced::Started);
    assert_eq!(store.advance(done, next).await.unwrap(), Advanced::Stale);
    let row = store.job(job).await.unwrap().unwrap();
    assert_eq!((row.stage, row.counts.total, row.counts.waiting), (Stage::Relationship, 15, 3));
    assert_invariants(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_job_is_not_behind_a_long_one() {
    let store = fresh_store(256).await;
    submit(&store, new_job(Task::Custom), 100_000).await;
    claim(&store, WorkerId::new(), 1_024).await;
    let short = submit(&store, new_job(Task::Custom), 1).await;
    let mut bundles = 0;
    loop {
        bundles += 1;
        if claim(&store, WorkerId::new(), 256).await.iter().any(|claim| claim.job == short) {
            break;
        }
    }
    assert!(bundles <= 3, "claimed in bundle {bundles}");
}
