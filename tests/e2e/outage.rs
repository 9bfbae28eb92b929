//! Postgres goes away, workers freeze, processes die: the service goes on, and every item ends once.

use std::path::Path;
use std::time::{Duration, Instant};

use adit::config::settings::Database;
use adit::domain::job::JobState;
use adit::store::Store;
use adit::store::embedded::PrivatePostgres;
use adit::wire::result::ResultsQuery;
use adit::wire::submit::JobRequest;
use futures::StreamExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::fair::gauge;
use crate::postgres::assert_invariants;
use crate::server::{Server, alone, folder, until};

/// Short leases, a short wait for a connection, and random deaths accuse nobody.
const TESTED: &str = "[queue]\nlease_ms = 4000\nrenew_ms = 1000\nrescue_ms = 500\nmax_worker_deaths = 50\n\
                      [database]\nacquire_timeout_ms = 1500\nidle_in_transaction_ms = 3000\n";

/// A durable PostgreSQL server of the test's own.
struct Postgres {
    // ends before its folder goes
    server: PrivatePostgres,
    folder: TempDir,
}

impl Postgres {
    fn start() -> Self {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        open_to_all(folder.path());
        let server = PrivatePostgres::start(folder.path(), &Database::default()).unwrap();
        Self { folder, server }
    }

    fn url(&self) -> String {
        format!("postgres://adit@localhost/postgres?host={}/postgres/run", self.folder.path().display())
    }

    /// `pg_ctl stop -m immediate`: nothing is written any more, the next start recovers.
    fn stop_immediately(&self) {
        let pid = self.server.pid();
        kill(Pid::from_raw(pid), Signal::SIGQUIT).unwrap();
        let began = Instant::now();
        while is_running(pid) {
            assert!(began.elapsed() < Duration::from_secs(10), "the server does not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn start_again(&mut self) {
        assert!(self.server.revive().unwrap());
    }

    async fn check(&self) {
        let store = Store::connect(&self.server.address(), &Database::default(), 1).await.unwrap();
        assert_invariants(&store).await;
        store.close().await;
    }
}

/// The server's user must get in when the tests run as root.
fn open_to_all(folder: &Path) {
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

/// Neither gone nor a zombie.
fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

fn request(inputs: usize) -> JobRequest {
    serde_json::from_value(json!({
        "task": "custom",
        "schema": {"type": "object", "properties": {"kind": {"enum": ["letter", "bill", "note"]}},
                   "required": ["kind"], "additionalProperties": false},
        "instructions": "What kind of text is it?",
        "inputs": (0..inputs).map(|n| format!("text {n}")).collect::<Vec<_>>(),
    }))
    .unwrap()
}

/// Every item of a completed job has one result.
async fn check_results(server: &Server, job: Uuid, items: i64) {
    let stream = server.client().results_stream(job, &ResultsQuery::default()).await.unwrap();
    let seqs: Vec<i64> = stream.map(|result| result.unwrap().seq).collect().await;
    assert_eq!(seqs, (0..items).collect::<Vec<_>>());
}

async fn answer(call: reqwest::RequestBuilder) -> (u16, Option<String>, String) {
    let response = call.send().await.unwrap();
    let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_string());
    (response.status().as_u16(), retry_after, response.text().await.unwrap())
}

fn check_refused(what: &str, (status, retry_after, text): (u16, Option<String>, String)) {
    assert_eq!(status, 503, "{what}: {text}");
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(problem["code"], "database_unavailable", "{what}: {text}");
    assert!(retry_after.is_some_and(|seconds| seconds.parse::<u32>().unwrap() > 0), "{what}: no Retry-After");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_restarts_in_the_middle_of_a_job() {
    let _alone = alone().await;
    let mut postgres = Postgres::start();
    let (dir, model) = folder();
    let mut server = Server::start_on(dir.path(), Some(&model), Some(&postgres.url()), TESTED);
    let (client, http, url) = (server.client(), reqwest::Client::new(), server.url.clone());
    let process = server.child.id();
    let items = 6_000;
    let job = client.submit(&request(items), Some("once")).await.unwrap().id;
    let before = until(&client, job, Duration::from_secs(120), |job| job.counts.succeeded >= 200).await;
    postgres.stop_immediately();
    let ended_then = gauge(&url, "adit_items_ended_total", "").await;
    let away = Instant::now();
    // longer than a lease
    while away.elapsed() < Duration::from_secs(7) {
        assert_eq!(answer(http.get(format!("{url}/livez"))).await.0, 200);
        check_refused("readyz", answer(http.get(format!("{url}/readyz"))).await);
        check_refused("submit", answer(http.post(format!("{url}/v1/jobs")).json(&request(1))).await);
        let lines = http
            .post(format!("{url}/v1/jobs?task=custom&schema=%7B%7D"))
            .header("content-type", "application/x-ndjson");
        check_refused("stream", answer(lines.body("\"a\"\n")).await);
        check_refused("cancel", answer(http.post(format!("{url}/v1/jobs/{job}/cancel"))).await);
        check_refused("read", answer(http.get(format!("{url}/v1/jobs/{job}"))).await);
        assert!(server.child.try_wait().unwrap().is_none(), "the process ended");
    }
    let meanwhile = gauge(&url, "adit_items_ended_total", "").await - ended_then;
    postgres.start_again();
    let back = Instant::now();
    while answer(http.get(format!("{url}/readyz"))).await.0 != 200 {
        assert!(back.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ready = back.elapsed();
    let had = before.counts.succeeded;
    let first = until(&client, job, Duration::from_secs(60), |job| job.counts.succeeded > had).await;
    let committed = back.elapsed();
    println!(
        "away for {:.1?}; ready {ready:.1?} and writing {committed:.1?} after the server was up; {meanwhile} items \
         ended meanwhile, {} committed at the first look",
        away.elapsed() - back.elapsed(),
        first.counts.succeeded - had
    );
    assert!(committed < Duration::from_secs(30), "{committed:?} until work went on");
    assert!(meanwhile > 0.0, "nothing was generated while the database was away");
    let ended = until(&client, job, Duration::from_secs(300), |job| job.state.is_final()).await;
    assert_eq!((ended.state, ended.counts.succeeded), (JobState::Completed, items as i64));
    check_results(&server, job, items as i64).await;
    println!("{:.0} answers for {items} items", gauge(&url, "adit_items_ended_total", "").await);
    assert!(server.child.try_wait().unwrap().is_none() && server.child.id() == process);
    assert_eq!(client.submit(&request(items), Some("once")).await.unwrap().id, job, "the key is remembered");
    postgres.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_private_server_is_started_again_when_it_dies() {
    let _alone = alone().await;
    let (dir, model) = folder();
    open_to_all(dir.path());
    let mut server = Server::start(dir.path(), &model);
    let client = server.client();
    let pid_file = dir.path().join("data/postgres/data/postmaster.pid");
    let pid: i32 = std::fs::read_to_string(pid_file).unwrap().lines().next().unwrap().parse().unwrap();
    let job = client.submit(&request(1_000), None).await.unwrap().id;
    until(&client, job, Duration::from_secs(120), |job| job.counts.succeeded > 0).await;
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let killed = Instant::now();
    let ended = loop {
        assert!(server.child.try_wait().unwrap().is_none(), "the process ended");
        assert!(killed.elapsed() < Duration::from_secs(60), "the job does not end");
        match client.job(job).await {
            Ok(job) if job.state.is_final() => break job,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    println!("the job ended {:.1?} after its database was killed", killed.elapsed());
    assert_eq!(ended.counts.succeeded, 1_000);
    check_results(&server, job, 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_sleeps_through_its_lease_writes_nothing_when_it_wakes() {
    let _alone = alone().await;
    let postgres = Postgres::start();
    let (dir, model) = folder();
    let (other_dir, _) = folder();
    let sleeper = Server::start_on(dir.path(), Some(&model), Some(&postgres.url()), TESTED);
    let items = 3_000;
    let job = sleeper.client().submit(&request(items), None).await.unwrap().id;
    until(&sleeper.client(), job, Duration::from_secs(120), |job| job.counts.succeeded >= 50).await;
    let pid = Pid::from_raw(i32::try_from(sleeper.child.id()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    let other = Server::start_on(other_dir.path(), Some(&model), Some(&postgres.url()), TESTED);
    let client = other.client();
    let ended = until(&client, job, Duration::from_secs(120), |job| job.state.is_final()).await;
    assert_eq!(ended.counts.succeeded, items as i64);
    kill(pid, Signal::SIGCONT).unwrap();
    // it wakes with answers in hand, and finds that they are not wanted any more
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(sleeper.client().job(job).await.unwrap().counts, ended.counts);
    assert_eq!(client.job(job).await.unwrap().usage, ended.usage);
    check_results(&other, job, items as i64).await;
    // and works on as if nothing had been
    drop(other);
    let next = sleeper.client().submit(&request(5), None).await.unwrap().id;
    let next = until(&sleeper.client(), next, Duration::from_secs(60), |job| job.state.is_final()).await;
    assert_eq!(next.counts.succeeded, 5);
    postgres.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_killed_at_random_lose_and_double_nothing() {
    let _alone = alone().await;
    let postgres = Postgres::start();
    let (dir, model) = folder();
    let (other_dir, _) = folder();
    let dirs = [dir.path(), other_dir.path()];
    let start = |at: usize| Server::start_on(dirs[at], Some(&model), Some(&postgres.url()), TESTED);
    let mut servers = [start(0), start(1)];
    let items = 4_000;
    let job = servers[0].client().submit(&request(items), None).await.unwrap().id;
    let mut seed = 7_u64;
    for round in 0..6 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_millis(200 + (seed >> 33) % 800)).await;
        let at = round % 2;
        servers[at].kill();
        let counts = servers[1 - at].client().job(job).await.unwrap().counts;
        assert!(counts.adds_up(), "{counts:?}");
        servers[at] = start(at);
    }
    let client = servers[0].client();
    let ended = until(&client, job, Duration::from_secs(200), |job| job.state.is_final()).await;
    assert_eq!((ended.state, ended.counts.succeeded), (JobState::Completed, items as i64));
    check_results(&servers[0], job, items as i64).await;
    postgres.check().await;
}
