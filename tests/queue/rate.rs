//! The rate of the last minute, from chunks' counters.

use adit::domain::id::WorkerId;
use adit::store::finish::Write;
use adit::store::job::Recent;

use super::postgres::fresh_store;
use super::*;

/// A job of 100 chunks of 10 items, of which some were claimed and answered some seconds ago.
struct Past {
    store: Store,
    job: JobId,
}

impl Past {
    async fn new() -> Self {
        let store = fresh_store(10).await;
        let job = submit(&store, new_job(Task::Custom), 1_000).await;
        Self { store, job }
    }

    /// A claim of `chunks` chunks, all answered; claimed and answered this many seconds ago.
    async fn work(&self, chunks: i32, claimed: f64, answered: f64) {
        let claims = claim(&self.store, WorkerId::new(), chunks * 10).await;
        assert_eq!(claims.len(), chunks as usize);
        for claim in &claims {
            let items = self.store.claimed_items(std::slice::from_ref(claim)).await.unwrap();
            let results: Vec<_> = items.iter().map(|item| succeeded(item.seq)).collect();
            self.store.commit_results(&[Write { claim, results: &results }]).await.unwrap();
            let finish = adit::store::finish::Finish { claim, results: &[], again: &[], again_after_ms: 0 };
            self.store.finish(&finish).await.unwrap();
            sqlx::query(
                "update chunks set claimed_at = now() - make_interval(secs => $2),
                                   result_at = now() - make_interval(secs => $3) where id = $1",
            )
            .bind(claim.fence.chunk.0)
            .bind(claimed)
            .bind(answered)
            .execute(self.store.pool())
            .await
            .unwrap();
        }
    }

    async fn recent(&self) -> Option<Recent> {
        self.store.job(self.job).await.unwrap().unwrap().recent
    }

    #[track_caller]
    fn check(recent: Option<Recent>, seconds: f64, items: f64) {
        let recent = recent.expect("something ended lately");
        assert!(
            (recent.seconds - seconds).abs() < 0.05 * seconds,
            "{recent:?}, wanted {items} in {seconds} s"
        );
        assert!((recent.items - items).abs() < 0.05 * items, "{recent:?}, wanted {items} in {seconds} s");
        assert!((recent.prompt_tokens - 10.0 * recent.items).abs() < 0.01 * recent.prompt_tokens);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steady_work_is_measured_over_the_last_minute() {
    let past = Past::new().await;
    assert_eq!(past.recent().await, None);
    past.work(20, 200.0, 100.0).await;
    assert_eq!(past.recent().await, None, "that was long ago");
    // of these, half lies within the minute
    past.work(10, 100.0, 20.0).await;
    past.work(2, 20.0, 0.5).await;
    Past::check(past.recent().await, 60.0, 50.0 + 20.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_pause_the_measurement_begins_anew() {
    let past = Past::new().await;
    // 10 items a second, then half a minute of nothing, then 2 items a second
    past.work(20, 60.0, 40.0).await;
    past.work(1, 8.0, 3.0).await;
    past.work(1, 6.0, 1.0).await;
    Past::check(past.recent().await, 8.0, 20.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_stands_still_slows_down_to_nothing() {
    let past = Past::new().await;
    past.work(6, 55.0, 45.0).await;
    Past::check(past.recent().await, 60.0, 60.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_an_earlier_claim_do_not_count_twice() {
    let store = fresh_store(10).await;
    let job = submit(&store, new_job(Task::Custom), 10).await;
    let first = claim(&store, WorkerId::new(), 10).await.remove(0);
    let early: Vec<_> = (0..8).map(succeeded).collect();
    store.commit_results(&[Write { claim: &first, results: &early }]).await.unwrap();
    store.release(&[first.fence]).await.unwrap();
    sqlx::query("update chunks set result_at = now() - interval '100 s'")
        .execute(store.pool())
        .await
        .unwrap();
    let second = claim(&store, WorkerId::new(), 10).await.remove(0);
    store.commit_results(&[Write { claim: &second, results: &[succeeded(8)] }]).await.unwrap();
    let recent = store.job(job).await.unwrap().unwrap().recent.unwrap();
    assert!((recent.items - 1.0).abs() < 0.01, "{recent:?}");
}
