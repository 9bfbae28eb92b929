//! The official OpenAI Python client, unmodified, against the real binary: the whole life of batches, a chat
//! completion with a Pydantic model, a stream.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::fair::gauge;
use crate::gate::{LONG, place, text};
use crate::support::tiny::{Arch, Tiny, tiny_model};

/// What an OpenAI user has installed. Pinned, so that a failure here is ours.
const PACKAGES: [&str; 2] = ["openai==3.57.0", "pydantic==2.14.4"];

/// A Python that has them, made once and kept under the target folder.
fn python() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_adit")).parent().unwrap().parent().unwrap();
    let venv = target.join(format!("python-{}", PACKAGES.join("-").replace("==", "-")));
    let (python, whole) = (venv.join("bin/python"), venv.join("whole"));
    if !whole.exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(PACKAGES));
        std::fs::write(whole, "").unwrap();
    }
    python
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{out}\n{err}");
    out.into_owned()
}

/// Clients that hang up, over real sockets: whether they wait for the whole or for chunks, nothing runs on for them.
async fn hang_up(url: &str) {
    let address = url.strip_prefix("http://").unwrap();
    let name = "adit_chat_completions_total{model=\"alpha\"";
    let before = gauge(url, name, "end=\"gone\"").await;
    for stream in [true, false, true, false] {
        let body = serde_json::json!({
            "model": "alpha", "messages": [{"role": "user", "content": "Write on."}], "max_tokens": 3_000,
            "stream": stream, "response_format": {"type": "json_schema", "json_schema": {
                "name": "long", "schema": {"type": "string", "minLength": 10_000}}},
        })
        .to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        // it has begun; then the client is gone
        let begun = Instant::now();
        while gauge(url, "adit_engine{model=\"alpha\"", "what=\"running\"").await == 0.0 {
            assert!(begun.elapsed() < LONG, "it never began");
        }
        drop(socket);
    }
    let begun = Instant::now();
    while gauge(url, name, "end=\"gone\"").await < before + 4.0 {
        if begun.elapsed() > Duration::from_secs(20) {
            let metrics = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
            panic!("an answer went on for nobody:\n{metrics}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_works_unmodified() {
    let dir = TempDir::new().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    Tiny::new(Arch::Llama, 7).context(4_000).write(&first);
    tiny_model(&second, Arch::Qwen2, 8);
    // a model that is never loaded keeps a batch open for as long as the test wants
    let asleep = format!("[[models]]\nname = \"asleep\"\npath = \"{}\"\nload_at_start = false", text(&first));
    let models = [("alpha", text(&first)), ("beta", text(&second))];
    let place = place(dir, &models, &asleep).await;
    for model in ["alpha", "beta"] {
        place.client.wait(model, LONG.as_secs_f64()).await.unwrap();
    }
    hang_up(&place.server.url).await;
    let python = tokio::task::spawn_blocking(python).await.unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/openai_client.py");
    let url = format!("{}/v1", place.server.url);
    let ran = tokio::task::spawn_blocking(move || {
        run(Command::new(python)
            .arg(script)
            // nothing but what a user sets
            .env_clear()
            .env("OPENAI_BASE_URL", url)
            .env("OPENAI_API_KEY", "none"))
    });
    let said = tokio::time::timeout(Duration::from_secs(120), ran).await.expect("the client hangs").unwrap();
    // the script's last word: it did not end early
    assert_eq!(said.lines().last(), Some("all of it works"), "{said}");
    crate::postgres::assert_invariants(&place.store).await;
}
