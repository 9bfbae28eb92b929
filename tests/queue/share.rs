//! Who is served when: shares by weight, precedence by class.

use std::collections::BTreeMap;

use adit::domain::id::WorkerId;
use adit::domain::item::StageItems;
use adit::domain::job::{Class, Weight};
use adit::domain::lease::ItemRange;
use adit::domain::task::{Stage, Task};
use adit::store::advance::NextStage;
use adit::store::finish::{Finish, Finished};

use super::postgres::fresh_store;
use super::*;

fn of_weight(percent: i16) -> NewJob {
    NewJob { weight: Weight::new(percent).unwrap(), ..new_job(Task::Custom) }
}

fn n_items(claim: &Claim) -> i64 {
    match &claim.range {
        ItemRange::Span { lo, hi } => i64::from(hi - lo),
        ItemRange::List(seqs) => seqs.len() as i64,
    }
}

/// Items claimed of each job over `bundles` claims of 64 items.
async fn served(store: &Store, bundles: usize) -> BTreeMap<JobId, i64> {
    let mut served = BTreeMap::new();
    for _ in 0..bundles {
        for claim in claim(store, WorkerId::new(), 64).await {
            *served.entry(claim.job).or_default() += n_items(&claim);
        }
    }
    served
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_served_by_their_weights() {
    let store = fresh_store(16).await;
    let mut jobs = Vec::new();
    for percent in [100, 300, 50] {
        jobs.push((percent, submit(&store, of_weight(percent), 8_000).await));
    }
    let served = served(&store, 100).await;
    let all: i64 = served.values().sum();
    for (percent, job) in jobs {
        let (share, due) = (served[&job] as f64 / all as f64, f64::from(percent) / 450.0);
        println!(
            "weight {percent}: {} of {all} items, {:.1} %, due {:.1} %",
            served[&job],
            share * 100.0,
            due * 100.0
        );
        assert!((share - due).abs() < 0.02, "weight {percent}: share {share:.3}, due {due:.3}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_comes_later_gets_its_share_from_then_on_and_no_arrears() {
    let store = fresh_store(16).await;
    let first = submit(&store, of_weight(100), 8_000).await;
    served(&store, 50).await;
    let later = submit(&store, of_weight(100), 8_000).await;
    let served = served(&store, 60).await;
    let (of_first, of_later) = (served[&first] as f64, served[&later] as f64);
    assert!((of_first / of_later - 1.0).abs() < 0.1, "{of_first} and {of_later}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_higher_class_goes_first_whatever_the_weights() {
    let store = fresh_store(16).await;
    let heavy = NewJob { class: Class::Bulk, ..of_weight(1_000) };
    let heavy = submit(&store, heavy, 400).await;
    let light = submit(&store, of_weight(1), 200).await;
    let urgent = NewJob { class: Class::Interactive, ..of_weight(1) };
    let urgent = submit(&store, urgent, 64).await;
    let mut bundles: BTreeMap<JobId, Vec<usize>> = BTreeMap::new();
    for bundle in 0..11 {
        for claim in claim(&store, WorkerId::new(), 64).await {
            bundles.entry(claim.job).or_default().push(bundle);
        }
    }
    let (urgent, light, heavy) = (&bundles[&urgent], &bundles[&light], &bundles[&heavy]);
    assert!(urgent.last() <= light.first() && light.last() <= heavy.first(), "{bundles:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_stage_keeps_the_jobs_weight() {
    let store = fresh_store(1).await;
    let job =
        submit(&store, NewJob { weight: Weight::new(500).unwrap(), ..new_job(Task::DataModel) }, 1).await;
    let first = claim(&store, WorkerId::new(), 1).await.remove(0);
    let ended = [succeeded(0)];
    let finish = Finish { claim: &first, results: &ended, again: &[], again_after_ms: 0 };
    let Finished::StageDone(done) = store.finish(&finish).await.unwrap() else { panic!("the stage is done") };
    let drafts = vec![ItemDraft { stage: Stage::Relationship, input: json!(1) }; 3];
    store
        .advance(
            done,
            NextStage::Items(StageItems { stage: Stage::Relationship, carried: Vec::new(), drafts }),
        )
        .await
        .unwrap();
    let times: Vec<i64> =
        sqlx::query_scalar("select vtime from chunks where job_id = $1 and state = 'ready' order by lo")
            .bind(job.0)
            .fetch_all(store.pool())
            .await
            .unwrap();
    assert_eq!((times[1] - times[0], times[2] - times[0]), (200, 400));
}
