//! One private cluster per test binary, one database per test.
//!
//! The cluster runs without fsync in a temporary folder and ends with the process (parent-death signal);
//! its folder is removed by the next run. Databases are copies of a migrated template, about 25 ms each.

#![allow(dead_code)] // each test binary uses a part

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use adit::config::settings::Database;
use adit::domain::id::JobId;
use adit::domain::job::{Class, Generation, JobSpec};
use adit::domain::task::Task;
use adit::store::embedded::PrivatePostgres;
use adit::store::submit::NewJob;
use adit::store::{Address, Store};
use sqlx::{AssertSqlSafe, Executor};

const TEMPLATE: &str = "template_adit";

/// The server of this test binary, started by the first test that asks.
pub fn server() -> &'static PrivatePostgres {
    static SERVER: OnceLock<PrivatePostgres> = OnceLock::new();
    SERVER.get_or_init(|| {
        remove_left_overs();
        let folder = PathBuf::from(format!("/tmp/adit-test-{}", std::process::id()));
        let postgres = PrivatePostgres::start(&folder, &settings()).expect("a private cluster");
        let address = postgres.address();
        // a runtime of its own: the caller may be inside one
        std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let admin = Store::connect(&address, &settings(), 1).await.unwrap();
                admin.pool().execute(AssertSqlSafe(format!("create database {TEMPLATE}"))).await.unwrap();
                admin.close().await;
                let store = Store::connect(&address.with_database(TEMPLATE), &settings(), 1).await.unwrap();
                store.migrate().await.unwrap();
                store.close().await;
            });
        })
        .join()
        .unwrap();
        postgres
    })
}

pub fn settings() -> Database {
    Database { fsync: false, max_connections: 8, acquire_timeout_ms: 10_000, ..Database::default() }
}

/// Address of a new migrated database that nobody else uses.
pub async fn fresh_address() -> Address {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::SeqCst));
    let address = tokio::task::spawn_blocking(|| server().address()).await.unwrap();
    let admin = Store::connect(&address, &settings(), 1).await.unwrap();
    let create = format!("create database {name} template {TEMPLATE} strategy file_copy");
    admin.pool().execute(AssertSqlSafe(create)).await.unwrap();
    admin.close().await;
    address.with_database(&name)
}

/// A store over a new migrated database. Chunks of `chunk_items`.
pub async fn fresh_store(chunk_items: u32) -> Store {
    Store::connect(&fresh_address().await, &settings(), chunk_items).await.unwrap()
}

/// A store over a new migrated database, with the service's own chunk size.
pub async fn fresh_database() -> Store {
    fresh_store(256).await
}

/// The address of a store's database as a user would write it, with a password that the cluster does not ask for.
pub fn url(store: &Store, password: &str) -> String {
    let options = store.pool().connect_options();
    let folder = options.get_socket().expect("the cluster has a socket").display().to_string();
    let database = options.get_database().expect("a database");
    format!("postgres://{}:{password}@localhost/{database}?host={folder}", options.get_username())
}

/// Where the cluster's server writes its log.
pub fn log_file() -> PathBuf {
    PathBuf::from(format!("/tmp/adit-test-{}/postgres/postgres.log", std::process::id()))
}

/// A new database with nothing in it.
pub async fn empty_database() -> Store {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("empty_{}", NEXT.fetch_add(1, Ordering::SeqCst));
    let address = tokio::task::spawn_blocking(|| server().address()).await.unwrap();
    let admin = Store::connect(&address, &settings(), 1).await.unwrap();
    admin.pool().execute(AssertSqlSafe(format!("create database {name}"))).await.unwrap();
    admin.close().await;
    Store::connect(&address.with_database(&name), &settings(), 256).await.unwrap()
}

/// What must hold at every commit, over all jobs. Each query answers the rows that break a rule.
pub async fn assert_invariants(store: &Store) {
    let rules: [(&str, &str); 6] = [
        (
            "every item belongs to exactly one chunk of its stage",
            "select i.job_id::text || '/' || i.seq from items i
             left join (select job_id, stage, chunk_seqs(lo, hi, seqs) as seq from chunks) o
               on o.job_id = i.job_id and o.seq = i.seq and o.stage = i.stage
             group by i.job_id, i.seq having count(o.seq) <> 1",
        ),
        (
            "the chunks of a job hold as many items as it has",
            "select j.id::text from jobs j left join chunks c on c.job_id = j.id
             group by j.id having j.total <> coalesce(sum(c.n_items), 0)
                or j.total <> (select count(*) from items i where i.job_id = j.id)",
        ),
        (
            "a chunk counts the results of its items",
            "select c.id::text from chunks c
             left join lateral (
                 select count(*) filter (where r.outcome = 'succeeded') as ok,
                        count(*) filter (where r.outcome = 'failed') as bad
                 from chunk_seqs(c.lo, c.hi, c.seqs) s (seq)
                 join results r on r.job_id = c.job_id and r.seq = s.seq) x on true
             where c.n_succeeded <> x.ok or c.n_failed <> x.bad",
        ),
        (
            "a final job has no open chunk",
            "select j.id::text from jobs j join chunks c on c.job_id = j.id
             where j.state in ('completed', 'cancelled', 'failed') and c.state in ('ready', 'delayed', 'running')",
        ),
        (
            "every result is an item's",
            "select r.job_id::text || '/' || r.seq from results r
             where not exists (select from items i where i.job_id = r.job_id and i.seq = r.seq)",
        ),
        (
            "a job of chunks at work has started",
            "select j.id::text from jobs j join chunks c on c.job_id = j.id
             -- items that failed as they came in were never claimed
             where j.state = 'queued' and c.n_succeeded + c.n_failed > 0 and c.attempt > 0",
        ),
    ];
    for (rule, query) in rules {
        let broken: Vec<String> = sqlx::query_scalar(query).fetch_all(store.pool()).await.unwrap();
        assert!(broken.is_empty(), "{rule}: {:?}", &broken[..broken.len().min(5)]);
    }
    for job in store.jobs(&Default::default(), None, 1_000).await.unwrap() {
        assert!(job.counts.adds_up(), "{:?}", job.counts);
    }
}

fn remove_left_overs() {
    for entry in std::fs::read_dir("/tmp").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("adit-test-").and_then(|pid| pid.parse::<u32>().ok()) else {
            continue;
        };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A job of one task with everything else at its default.
pub fn new_job(task: Task) -> NewJob {
    NewJob {
        id: JobId::new(),
        tenant: "t".into(),
        spec: JobSpec {
            task,
            model: None,
            schema: None,
            instructions: None,
            generation: Generation::default(),
            review_below: None,
        },
        catalog: None,
        class: Class::Normal,
        weight: Default::default(),
        idempotency_key: None,
        request_hash: None,
        expires_at: None,
    }
}
