//! `adit submit --from` everything that it reads.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use adit::wire::job::Job;
use sqlx::{Connection, Executor};

use crate::server::{Server, folder, until};
use crate::{mariadb, postgres};

const SCHEMA: &str = r#"{"type":"object","properties":{"kind":{"enum":["letter","bill"]}},
    "required":["kind"],"additionalProperties":false}"#;
const DDL: &str = "create table customer (id int primary key, name text);
    create table orders (id int primary key, customer_id int references customer (id));";

fn job(output: &Output) -> Job {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().into()
}

/// The command with something on its stdin.
fn fed(server: &Server, args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_adit"))
        .args(["--server", &server.url])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[tokio::test]
async fn every_kind_of_source_becomes_a_job_that_ends_well() {
    let (dir, model) = folder();
    let server = Server::start(dir.path(), &model);
    let place = dir.path();
    let schema = write(place, "schema.json", SCHEMA);
    let ddl = write(place, "two.sql", DDL);
    let csv = write(
        place,
        "columns.csv",
        "table,column,type,key\ncustomer,id,int,pk\ncustomer,name,text,\nnote,id,int,pk\n",
    );
    let tables =
        write(place, "tables.json", r#"["customer", {"table": "orders", "comment": "what was bought"}]"#);
    let texts = write(place, "texts.jsonl", "\"Dear Sir\"\n\n{\"text\": \"Total: 45 EUR\"}\n\"Yours\"\n");
    let names = write(place, "names.jsonl", "\"customer\"\n\"orders\"\n");
    let custom =
        ["submit", "--json", "--task", "custom", "--schema", &schema, "--instructions", "Which kind?"];
    let with = |from: &str| server.adit(&[&custom[..], &["--from", from]].concat());

    let mut jobs = vec![
        job(&server.adit(&["submit", "--json", "--task", "attribute", "--from", &ddl])),
        job(&server.adit(&["submit", "--json", "--task", "attribute", "--from", &csv])),
        job(&server.adit(&["submit", "--json", "--task", "concept", "--from", &tables])),
        job(&server.adit(&["submit", "--json", "--task", "concept", "--from", &names])),
        job(&fed(
            &server,
            &["submit", "--json", "--task", "attribute", "--format", "ddl", "--from", "-"],
            DDL,
        )),
    ];
    assert!(jobs.iter().all(|job| job.counts.total > 0), "{jobs:?}");
    for texts in [
        job(&with(&texts)),
        job(&fed(&server, &[&custom[..], &["--from", "-"]].concat(), "\"a\"\n\"b\"\n\"c\"")),
    ] {
        assert_eq!(texts.counts.total, 3);
        jobs.push(texts);
    }
    // a schema beyond any URL: one document instead of a stream
    let long = SCHEMA.replace("\"letter\"", &format!("\"letter\", \"{}\"", "x".repeat(70_000)));
    let long = write(place, "long.json", &long);
    let args =
        ["submit", "--json", "--task", "custom", "--schema", &long, "--from", &texts, "--max-tokens", "20"];
    let output = server.adit(&args);
    assert_eq!(job(&output).counts.total, 3);
    assert!(String::from_utf8_lossy(&output.stderr).contains("too large for a streamed"), "{output:?}");

    for submitted in jobs {
        let output = server.adit(&["watch", "--json", &submitted.id.to_string()]);
        let ended = job(&output);
        assert_eq!(ended.counts.succeeded, ended.counts.total, "{ended:?}");
        assert!(!output.stderr.is_empty(), "progress is shown on stderr");
    }

    // what cannot be read is said with its place, and leaves no job
    let before = server.client().jobs(&Default::default()).await.unwrap().jobs.len();
    let broken = write(place, "broken.jsonl", "\"fine\"\n{\"text\": \n");
    let cases = [
        (with(&broken), 2, "line 2"),
        (
            server.adit(&["submit", "--task", "concept", "--from", &write(place, "odd.txt", "x")]),
            2,
            "--format",
        ),
        (
            server.adit(&["submit", "--task", "concept", "--from", "postgres://u:secret@127.0.0.1:1/x"]),
            1,
            "refused",
        ),
        (
            server.adit(&["submit", "--task", "concept", "--from", &ddl, "--model", "unheard-of"]),
            4,
            "unheard-of",
        ),
    ];
    for (output, code, words) in cases {
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(words) && !error.contains("secret"), "{error}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(server.client().jobs(&Default::default()).await.unwrap().jobs.len(), before);
}

/// Looks for bytes in every file below a folder.
fn holds(dir: &Path, needle: &[u8]) -> Option<std::path::PathBuf> {
    std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).find_map(|path| match path.is_dir() {
        true => holds(&path, needle),
        false => {
            let bytes = std::fs::read(&path).unwrap_or_default();
            bytes.windows(needle.len()).any(|window| window == needle).then_some(path)
        }
    })
}

#[tokio::test]
async fn a_live_database_is_read_and_its_password_goes_no_further() {
    let (dir, model) = folder();
    let server = Server::start(dir.path(), &model);
    let source = postgres::empty_database().await;
    source.pool().execute(DDL).await.unwrap();
    source
        .pool()
        .execute("create schema other; create table other.thing_of_mine (id int primary key)")
        .await
        .unwrap();
    let url = postgres::url(&source, "hush-hush");
    let args = ["submit", "--json", "--log", "debug", "--task", "attribute", "--from", &url];
    let output = server.adit(&args);
    let submitted = job(&output);
    let one = server.adit(&[&args[..], &["--schemas", "other"]].concat());
    assert!(submitted.counts.total > job(&one).counts.total, "{output:?} {one:?}");
    let ended =
        until(&server.client(), submitted.id, Duration::from_secs(120), |job| job.state.is_final()).await;
    assert_eq!(ended.counts.succeeded, ended.counts.total);
    for said in [&output.stdout, &output.stderr, &one.stderr] {
        assert!(!String::from_utf8_lossy(said).contains("hush-hush"), "{output:?}");
    }
    drop(server);
    // tables, write-ahead log and the server's own log; what was read is there, the password is not
    let data = dir.path().join("data");
    assert!(holds(&data, b"thing_of_mine").is_some());
    assert_eq!(holds(&data, b"hush-hush"), None);
}

#[tokio::test]
async fn a_live_mariadb_a_sqlite_file_and_a_dbt_manifest_are_read() {
    let (dir, model) = folder();
    let server = Server::start(dir.path(), &model);
    let path = dir.path().join("shop.data");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut file = sqlx::sqlite::SqliteConnection::connect_with(&options).await.unwrap();
    file.execute(DDL).await.unwrap();
    file.close().await.unwrap();
    let path = path.to_str().unwrap().to_string();
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sources/manifest.json");
    let mut sources = vec![path.clone(), format!("sqlite:{path}"), manifest.to_string()];
    let database =
        mariadb::database("create table customer (id int primary key, name text comment 'thing_of_mine')")
            .await;
    sources.extend(database.as_ref().map(|database| database.url("reader", "hush-hush")));
    for from in &sources {
        let output =
            server.adit(&["submit", "--json", "--log", "trace", "--task", "attribute", "--from", from]);
        let submitted = job(&output);
        let ended =
            until(&server.client(), submitted.id, Duration::from_secs(120), |job| job.state.is_final()).await;
        assert!(ended.counts.total > 0 && ended.counts.succeeded == ended.counts.total, "{from}: {ended:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("hush-hush"), "{output:?}");
    }
    if let Some(database) = database {
        // from the environment, where no list of processes shows it
        let url = database.url("reader", "").replace(":@", "@");
        let command = |password: &str| {
            Command::new(env!("CARGO_BIN_EXE_adit"))
                .args(["--server", &server.url, "submit", "--json", "--task", "concept", "--from", &url])
                .env("ADIT_SOURCE_PASSWORD", password)
                .output()
                .unwrap()
        };
        job(&command("hush-hush"));
        let refused = command("wrong-guess");
        let error = String::from_utf8_lossy(&refused.stderr);
        assert!(error.contains("mysql://localhost/") && error.contains("denied"), "{error}");
        assert!(!error.contains("wrong-guess") && refused.status.code() == Some(1), "{error}");
        drop(server);
        let data = dir.path().join("data");
        assert!(holds(&data, b"thing_of_mine").is_some());
        assert_eq!(holds(&data, b"hush-hush"), None);
    }
}

#[tokio::test]
async fn a_lenient_source_is_told_of_at_once_and_later() {
    let (dir, model) = folder();
    let server = Server::start(dir.path(), &model);
    let broken = format!(
        "{DDL}\ncreate table broken (id int nto null, name text);\nalter table gone add unique (x);\n"
    );
    let from = write(dir.path(), "broken.sql", &broken);
    let strict = server.adit(&["submit", "--task", "attribute", "--from", &from]);
    let error = String::from_utf8_lossy(&strict.stderr);
    assert!(error.contains("line 3, column 29") && strict.status.code() == Some(2), "{error}");
    let lenient = server.adit(&["submit", "--json", "--task", "attribute", "--lenient", "--from", &from]);
    let submitted = job(&lenient);
    let error = String::from_utf8_lossy(&lenient.stderr);
    assert!(
        error.contains("left out: line 3, column 29: ") && error.contains("left out: line 4, column 13: "),
        "{error}"
    );
    assert_eq!((submitted.left_out.len(), submitted.left_out_total), (2, 2));
    let shown = server.adit(&["jobs", &submitted.id.to_string()]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("line 4, column 13"), "{shown:?}");
    let texts = write(dir.path(), "texts.jsonl", "\"a\"\nno json\n\"b\"\n");
    let schema = write(dir.path(), "schema.json", SCHEMA);
    let streamed = server.adit(&[
        "submit",
        "--json",
        "--task",
        "custom",
        "--schema",
        &schema,
        "--lenient",
        "--from",
        &texts,
    ]);
    assert_eq!((job(&streamed).counts.total, job(&streamed).left_out[0].line), (2, 2));
}

#[tokio::test]
async fn a_large_file_streams_through_the_command_line() {
    let (dir, model) = folder();
    let server = Server::start(dir.path(), &model);
    // nothing is to run meanwhile
    assert!(server.adit(&["models", "unload", "concept"]).status.success());
    const LINES: usize = 200_000;
    let text = "word ".repeat(100);
    let mut file = std::io::BufWriter::new(std::fs::File::create(dir.path().join("large.jsonl")).unwrap());
    (0..LINES).for_each(|n| writeln!(file, "\"{n} {text}\"").unwrap());
    drop(file);
    let schema = write(dir.path(), "schema.json", SCHEMA);
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_adit"))
        .args([
            "--server",
            &server.url,
            "submit",
            "--json",
            "--task",
            "custom",
            "--schema",
            &schema,
            "--from",
        ])
        .arg(dir.path().join("large.jsonl"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut peak_kib = 0;
    while child.try_wait().unwrap().is_none() {
        peak_kib = peak_kib.max(resident_kib(child.id()));
        std::thread::sleep(Duration::from_millis(5));
    }
    let submitted = job(&child.wait_with_output().unwrap());
    assert_eq!(submitted.counts.total, LINES as i64);
    let bytes = std::fs::metadata(dir.path().join("large.jsonl")).unwrap().len();
    eprintln!("{} MiB in {:?}, at most {} MiB resident", bytes >> 20, begun.elapsed(), peak_kib >> 10);
    assert!(peak_kib > 0 && peak_kib < 64 << 10, "{peak_kib} KiB for a file of {bytes} bytes");
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
