//! A headless Chromium of a test's own, spoken to in the DevTools protocol.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Message;

/// An answer that takes longer does not come.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

pub struct Chrome {
    child: Child,
    wire: Arc<Wire>,
    /// Profile and downloads.
    pub dir: TempDir,
}

/// One connection; commands and events of all pages go through it.
pub struct Wire {
    outbox: mpsc::UnboundedSender<String>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    events: Mutex<Vec<Value>>,
    last_id: AtomicU64,
}

/// The first browser on the search path.
fn program() -> PathBuf {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let found = names.iter().flat_map(|name| dirs.iter().map(move |dir| dir.join(name)));
    found.into_iter().find(|file| file.is_file()).unwrap_or_else(|| {
        panic!(
            "the dashboard's tests need a browser: none of {} is on PATH (Debian: apt-get install chromium)",
            names.join(", ")
        )
    })
}

impl Chrome {
    pub async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let mut command = Command::new(program());
        command.args([
            "--headless=new",
            "--remote-debugging-port=0",
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            // of its own accord the browser would look for updates and the like
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-extensions",
            "--window-size=1360,900",
        ]);
        if nix::unistd::geteuid().is_root() {
            command.arg("--no-sandbox");
        }
        command.arg(format!("--user-data-dir={}", dir.path().join("profile").display())).arg("about:blank");
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let address = lines.find_map(|line| {
            let address = line.strip_prefix("DevTools listening on ").map(String::from);
            said.push(line);
            address
        });
        let address = address.unwrap_or_else(|| panic!("the browser did not start:\n{}", said.join("\n")));
        // it goes on talking, and must not be held up
        std::thread::spawn(move || lines.for_each(drop));
        let wire = Wire::open(&address).await;
        Self { child, wire, dir }
    }

    /// A command to the browser as a whole.
    pub async fn call(&self, method: &str, params: Value) -> Value {
        self.wire.call(None, method, params).await
    }

    pub fn wire(&self) -> Arc<Wire> {
        self.wire.clone()
    }
}

impl Drop for Chrome {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Wire {
    async fn open(address: &str) -> Arc<Self> {
        let (socket, _) = tokio_tungstenite::connect_async(address).await.unwrap();
        let (mut sink, mut source) = socket.split();
        let (outbox, mut commands) = mpsc::unbounded_channel::<String>();
        let wire = Arc::new(Self {
            outbox,
            waiting: Mutex::default(),
            events: Mutex::default(),
            last_id: AtomicU64::new(0),
        });
        tokio::spawn(async move {
            while let Some(text) = commands.recv().await {
                if sink.send(Message::text(text)).await.is_err() {
                    return;
                }
            }
        });
        let reader = wire.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = source.next().await {
                if let Ok(text) = message.into_text() {
                    reader.take(serde_json::from_str(&text).unwrap_or_default());
                }
            }
        });
        wire
    }

    fn take(&self, message: Value) {
        match message["id"].as_u64() {
            Some(id) => {
                if let Some(answer) = self.waiting.lock().unwrap().remove(&id) {
                    let _ = answer.send(message);
                }
            }
            None => self.events.lock().unwrap().push(message),
        }
    }

    /// The result of a command; a refusal panics.
    pub async fn call(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        let id = self.last_id.fetch_add(1, Ordering::SeqCst) + 1;
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap().insert(id, answer);
        let mut command = json!({"id": id, "method": method, "params": params});
        if let Some(session) = session {
            command["sessionId"] = session.into();
        }
        self.outbox.send(command.to_string()).unwrap();
        let message = tokio::time::timeout(ANSWER_WITHIN, answered).await;
        let mut message =
            message.unwrap_or_else(|_| panic!("{method}: no answer")).expect("the browser is there");
        assert!(message["error"].is_null(), "{method}: {}", message["error"]);
        message["result"].take()
    }

    /// What has happened in a page so far, of one kind.
    pub fn events(&self, session: &str, method: &str) -> Vec<Value> {
        let events = self.events.lock().unwrap();
        let own = events.iter().filter(|event| event["sessionId"] == session && event["method"] == method);
        own.map(|event| event["params"].clone()).collect()
    }
}
