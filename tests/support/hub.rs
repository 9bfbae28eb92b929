//! A model hub on this machine: repositories out of folders, with the faults and waits that tests plant.

#![allow(dead_code)] // each test binary uses a part

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Bytes of a weight file that are sent before a hold is looked at.
const BEFORE_HOLD: usize = 2_000;

/// Listens until the test's process ends.
#[derive(Clone)]
pub struct HubStandIn {
    pub endpoint: String,
    inner: Arc<Inner>,
}

struct Inner {
    /// `owner/name` and the folder its files lie in.
    repos: Vec<(String, PathBuf)>,
    token: Option<&'static str>,
    /// Requests for file contents: path and range.
    requests: Mutex<Vec<(String, String)>>,
    /// Bytes after which one download of weights is cut off; 0: never.
    cut_after: AtomicU64,
    /// The rest of every weight file is withheld while this is true.
    is_held: Mutex<bool>,
    let_go: Condvar,
}

impl HubStandIn {
    pub fn start(repos: &[(&str, PathBuf)], token: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            repos: repos.iter().map(|(name, files)| (name.to_string(), files.clone())).collect(),
            token,
            requests: Mutex::default(),
            cut_after: AtomicU64::new(0),
            is_held: Mutex::new(false),
            let_go: Condvar::new(),
        });
        let shared = inner.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let inner = shared.clone();
                std::thread::spawn(move || inner.serve(stream));
            }
        });
        Self { endpoint, inner }
    }

    /// File contents that were asked for so far: name and range.
    pub fn requests(&self) -> Vec<(String, String)> {
        self.inner.requests.lock().unwrap().clone()
    }

    /// The next download of weights breaks off after this many bytes.
    pub fn cut_after(&self, bytes: u64) {
        self.inner.cut_after.store(bytes, Ordering::SeqCst);
    }

    /// Weights stop arriving after their first bytes, until [`HubStandIn::release`].
    pub fn hold(&self) {
        *self.inner.is_held.lock().unwrap() = true;
    }

    pub fn release(&self) {
        *self.inner.is_held.lock().unwrap() = false;
        self.inner.let_go.notify_all();
    }
}

impl Inner {
    fn serve(&self, mut stream: TcpStream) {
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
        let mut answer = |status: &str, extra: &str, body: &[u8], declared: usize, may_hold: bool| {
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {declared}\r\nConnection: close\r\nETag: \"{}\"\r\n\
                 X-Repo-Commit: {COMMIT}\r\n{extra}\r\n",
                path.replace('/', "-")
            );
            let (now, later) = body.split_at(if may_hold { body.len().min(BEFORE_HOLD) } else { body.len() });
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(now));
            if !later.is_empty() {
                let mut is_held = self.is_held.lock().unwrap();
                while *is_held {
                    is_held = self.let_go.wait(is_held).unwrap();
                }
                drop(is_held);
                let _ = stream.write_all(later);
            }
        };
        if self.token.is_some_and(|token| header("authorization") != format!("Bearer {token}")) {
            return answer("401 Unauthorized", "", b"", 0, false);
        }
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (owner, name, rest) = match parts[..] {
            ["api", "models", owner, name, "revision", ..] => (owner, name, None),
            [owner, name, "resolve", _, file] => (owner, name, Some(file)),
            _ => return answer("404 Not Found", "", b"", 0, false),
        };
        let repo = format!("{owner}/{name}");
        let Some((_, files)) = self.repos.iter().find(|(known, _)| *known == repo) else {
            return answer("404 Not Found", "", b"", 0, false);
        };
        let Some(file) = rest else {
            let names: Vec<_> = std::fs::read_dir(files)
                .unwrap()
                .map(|entry| serde_json::json!({"rfilename": entry.unwrap().file_name().to_string_lossy()}))
                .collect();
            let body = serde_json::json!({"sha": COMMIT, "siblings": names}).to_string();
            return answer(
                "200 OK",
                "Content-Type: application/json\r\n",
                body.as_bytes(),
                body.len(),
                false,
            );
        };
        let Ok(bytes) = std::fs::read(files.join(file)) else {
            return answer("404 Not Found", "", b"", 0, false);
        };
        let range = header("range");
        let (from, to) = range.trim_start_matches("bytes=").split_once('-').unwrap_or(("0", ""));
        let from: usize = from.parse().unwrap_or(0);
        let to = to.parse().map_or(bytes.len(), |last: usize| last + 1);
        // one byte is how the client asks for the size
        let is_content = to != 1;
        if is_content {
            self.requests.lock().unwrap().push((file.into(), range.clone()));
        }
        let part = &bytes[from.min(bytes.len())..to.min(bytes.len())];
        let content_range = format!("Content-Range: bytes {from}-{}/{}\r\n", to - 1, bytes.len());
        let is_weights = file.ends_with(".safetensors") && is_content;
        let limit = if is_weights { self.cut_after.swap(0, Ordering::SeqCst) as usize } else { 0 };
        let sent = if limit > 0 { &part[..limit.min(part.len())] } else { part };
        answer("206 Partial Content", &content_range, sent, part.len(), is_weights);
    }
}
