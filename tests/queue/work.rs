//! Workers at work: the gate, cancel, panics, many bundles at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use adit::config::settings;
use adit::domain::job::JobState;
use adit::domain::model::{LoadFailure, LoadProgress, LoadStage, ModelStatus};
use adit::queue::bundle::Bundle;
use adit::queue::{Handler, Queue};
use adit::shutdown::Shutdown;
use futures::FutureExt;
use tokio::sync::watch;

use super::postgres::{self, assert_invariants, fresh_store};
use super::*;

fn ready() -> ModelStatus {
    ModelStatus::Ready { since: chrono::DateTime::default(), load_s: 0.0, draining: false }
}

fn loading() -> ModelStatus {
    let progress = LoadProgress {
        stage: LoadStage::Read,
        bytes_done: 0,
        bytes_total: 1,
        bytes_per_s: None,
        eta_s: None,
    };
    ModelStatus::Loading { progress, since: chrono::DateTime::default() }
}

fn failed() -> ModelStatus {
    let failure = LoadFailure {
        code: "file_missing".into(),
        message: String::new(),
        hint: String::new(),
        attempt: 1,
        next_retry_at: None,
    };
    ModelStatus::Error { failure, since: chrono::DateTime::default() }
}

fn quick() -> settings::Queue {
    settings::Queue { flush_ms: 20, poll_ms: 100, rescue_ms: 100, renew_ms: 100, ..Default::default() }
}

/// Answers every item, after `pause` each bundle.
fn answering(pause: Duration) -> Handler {
    Arc::new(move |bundle: Arc<Bundle>| {
        async move {
            tokio::time::sleep(pause).await;
            answer_all(&bundle).await;
        }
        .boxed()
    })
}

async fn answer_all(bundle: &Bundle) {
    for (at, held) in bundle.chunks.iter().enumerate() {
        let results: Vec<_> = held.items.iter().map(|item| succeeded(item.seq)).collect();
        bundle.finish(at, &results, &[]).await;
    }
}

struct Bench {
    store: Store,
    gate: watch::Sender<ModelStatus>,
    shutdown: Shutdown,
}

impl Bench {
    async fn new(store: Store, status: ModelStatus, handler: Handler) -> Self {
        Self::with(store, quick(), status, handler).await
    }

    async fn with(store: Store, settings: settings::Queue, status: ModelStatus, handler: Handler) -> Self {
        let shutdown = Shutdown::new();
        let (queue, _) = Queue::start(store.clone(), settings, WorkerId::new(), shutdown.clone());
        let (gate, watching) = watch::channel(status);
        queue.serve("concept", watching, handler);
        Self { store, gate, shutdown }
    }

    async fn running(&self) -> i64 {
        sqlx::query_scalar("select count(*) from chunks where state = 'running'")
            .fetch_one(self.store.pool())
            .await
            .unwrap()
    }

    async fn claims(&self) -> i64 {
        sqlx::query_scalar("select coalesce(sum(attempt), 0) from chunks")
            .fetch_one(self.store.pool())
            .await
            .unwrap()
    }

    async fn untouched(&self) -> bool {
        sqlx::query_scalar("select not exists (select from chunks where attempt > 0)")
            .fetch_one(self.store.pool())
            .await
            .unwrap()
    }

    async fn wait(&self, what: &str, within: Duration, mut holds: impl AsyncFnMut(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self).await {
            assert!(began.elapsed() < within, "{what}: not within {within:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_ended(&self, job: JobId) {
        self.wait("the job ends", Duration::from_secs(30), async |bench| {
            bench.store.job(job).await.unwrap().unwrap().state.is_final()
        })
        .await;
    }

    async fn stop(self) {
        self.shutdown.request();
        assert!(self.shutdown.finish(Duration::from_secs(20)).await, "every task ends");
        assert_invariants(&self.store).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_claimed_behind_a_closed_gate() {
    let store = fresh_store(16).await;
    let bench = Bench::new(store.clone(), ModelStatus::NotLoaded, answering(Duration::ZERO)).await;
    let job = submit(&store, new_job(Task::Custom), 200).await;
    for status in [loading(), failed(), ModelStatus::NotLoaded, loading()] {
        bench.gate.send(status).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(bench.untouched().await);
    }
    bench.gate.send(ready()).unwrap();
    bench.wait("a claim", Duration::from_secs(1), async |bench| !bench.untouched().await).await;
    bench.until_ended(job).await;
    let row = store.job(job).await.unwrap().unwrap();
    assert_eq!((row.state, row.counts.succeeded), (JobState::Completed, 200));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_the_gate_at_any_moment_leaves_nothing_claimed() {
    let store = fresh_store(16).await;
    let bench = Bench::new(store.clone(), loading(), answering(Duration::from_millis(2))).await;
    submit(&store, new_job(Task::Custom), 60_000).await;
    let mut seed = 12_345_u64;
    for _ in 0..30 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bench.gate.send(ready()).unwrap();
        tokio::time::sleep(Duration::from_micros(500 + (seed >> 33) % 15_000)).await;
        bench.gate.send(loading()).unwrap();
        // a claim that was on its way when the gate closed lands, and is given back
        tokio::time::sleep(Duration::from_millis(80)).await;
        bench.wait("claims end", Duration::from_secs(5), async |bench| bench.running().await == 0).await;
        let before = bench.claims().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(bench.running().await, 0);
        assert_eq!(bench.claims().await, before);
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_bundle_learns_of_a_cancel() {
    let store = fresh_store(16).await;
    let told = Arc::new(AtomicBool::new(false));
    let tell = told.clone();
    let handler: Handler = Arc::new(move |bundle: Arc<Bundle>| {
        let tell = tell.clone();
        async move {
            bundle.chunks[0].lost.cancelled().await;
            tell.store(true, Ordering::SeqCst);
        }
        .boxed()
    });
    let bench = Bench::new(store.clone(), ready(), handler).await;
    let job = submit(&store, new_job(Task::Custom), 16).await;
    bench.wait("a claim", Duration::from_secs(5), async |bench| bench.running().await > 0).await;
    store.cancel(job).await.unwrap();
    bench.wait("the handler is told", Duration::from_secs(1), async |_| told.load(Ordering::SeqCst)).await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_whose_handler_panics_each_time_ends_as_poison() {
    let store = fresh_store(8).await;
    let handler: Handler = Arc::new(|bundle: Arc<Bundle>| {
        async move {
            assert!(bundle.chunks.iter().flat_map(|held| &held.items).all(|item| item.seq != 5), "planted");
            answer_all(&bundle).await;
        }
        .boxed()
    });
    let bench = Bench::new(store.clone(), ready(), handler).await;
    let job = submit(&store, new_job(Task::Custom), 16).await;
    bench.until_ended(job).await;
    let counts = store.job(job).await.unwrap().unwrap().counts;
    assert_eq!((counts.succeeded, counts.failed), (15, 1));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_vanishes_is_replaced_and_every_item_ends_once() {
    let store = fresh_store(16).await;
    let stuck: Handler = Arc::new(|bundle: Arc<Bundle>| {
        async move {
            let some = bundle.chunks[0].items.iter().take(5).map(|item| succeeded(item.seq)).collect();
            bundle.commit(&[(0, some)]).await;
            std::future::pending::<()>().await;
        }
        .boxed()
    });
    let job = submit(&store, new_job(Task::Custom), 64).await;
    let doomed = Bench::new(store.clone(), ready(), stuck).await;
    doomed
        .wait("early results", Duration::from_secs(5), async |bench| {
            bench.store.job(job).await.unwrap().unwrap().counts.succeeded > 0
        })
        .await;
    doomed.shutdown.request_now();
    doomed.shutdown.finish(Duration::from_secs(5)).await;
    let_leases_pass(&store).await;
    let bench = Bench::new(store.clone(), ready(), answering(Duration::ZERO)).await;
    bench.until_ended(job).await;
    let results: i64 =
        sqlx::query_scalar("select count(*) from results").fetch_one(store.pool()).await.unwrap();
    assert_eq!(results, 64);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_wait_are_bounded_and_nothing_is_claimed_beyond() {
    let store = fresh_store(16).await;
    let room = Arc::new(tokio::sync::Notify::new());
    let held = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (tell, keep) = (room.clone(), held.clone());
    // takes room for each item as the worker does, and keeps what it got
    let handler: Handler = Arc::new(move |bundle: Arc<Bundle>| {
        let (tell, keep) = (tell.clone(), keep.clone());
        async move {
            let mut places = Vec::new();
            for _ in 0..bundle.n_items() {
                match bundle.place() {
                    Some(place) => places.push(place),
                    None => break,
                }
            }
            keep.lock().unwrap().push(places.len());
            tell.notified().await;
            answer_all(&bundle).await;
        }
        .boxed()
    });
    let settings = settings::Queue { max_buffered_results: 24, bundles_in_hand: 8, ..quick() };
    let bench = Bench::with(store.clone(), settings, ready(), handler).await;
    let job = submit(&store, new_job(Task::Custom), 160).await;
    let full = async |_: &Bench| held.lock().unwrap().iter().sum::<usize>() == 24;
    bench.wait("room for 24 results is taken", Duration::from_secs(5), full).await;
    // a claim may have been on its way when the last place was taken
    tokio::time::sleep(Duration::from_millis(500)).await;
    let claims = bench.claims().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(held.lock().unwrap().iter().sum::<usize>(), 24);
    assert!(claims <= 4 && bench.claims().await == claims, "claimed without room");
    let notify = async {
        loop {
            room.notify_waiters();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = bench.until_ended(job) => {}
        () = notify => {}
    }
    assert_eq!(store.job(job).await.unwrap().unwrap().counts.succeeded, 160);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_refuses_for_a_while_ends_no_worker() {
    let store = fresh_store(16).await;
    let bench = Bench::new(store.clone(), ready(), answering(Duration::from_millis(50))).await;
    let job = submit(&store, new_job(Task::Custom), 640).await;
    bench.wait("a claim", Duration::from_secs(5), async |bench| !bench.untouched().await).await;
    // every session is ended, again and again, as by a server that restarts
    let admin = postgres::server().address();
    let admin = Store::connect(&admin, &postgres::settings(), 1).await.unwrap();
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(store.pool()).await.unwrap();
    for _ in 0..20 {
        sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1")
            .bind(&name)
            .execute(admin.pool())
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let began = Instant::now();
    while !store.job(job).await.is_ok_and(|row| row.unwrap().state.is_final()) {
        assert!(began.elapsed() < Duration::from_secs(30), "the job does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(store.job(job).await.unwrap().unwrap().counts.succeeded, 640);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_comes_in_is_claimed_although_both_hands_are_full() {
    let store = fresh_store(16).await;
    let begun = Arc::new(std::sync::Mutex::new(Vec::new()));
    let tell = begun.clone();
    let never: Handler = Arc::new(move |bundle: Arc<Bundle>| {
        tell.lock().unwrap().push((bundle.chunks[0].claim.job, bundle.n_items()));
        std::future::pending::<()>().boxed()
    });
    let bench = Bench::new(store.clone(), ready(), never).await;
    let huge = submit(&store, new_job(Task::Custom), 10_000).await;
    bench.wait("two bundles", Duration::from_secs(5), async |_| begun.lock().unwrap().len() == 2).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(begun.lock().unwrap().len(), 2, "the third place is not for a job that is in hand");
    // of a lower class: its turn has not come
    let bulk = NewJob { class: adit::domain::job::Class::Bulk, ..new_job(Task::Custom) };
    submit(&store, bulk, 1).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(begun.lock().unwrap().len(), 2);
    let short = submit(&store, new_job(Task::Custom), 1).await;
    bench.wait("the short job", Duration::from_secs(1), async |_| begun.lock().unwrap().len() == 3).await;
    let seen: Vec<JobId> = begun.lock().unwrap().iter().map(|(job, _)| *job).collect();
    assert_eq!(seen, [huge, huge, short]);
    bench.shutdown.request_now();
    bench.shutdown.finish(Duration::from_secs(5)).await;
}
