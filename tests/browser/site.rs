//! A server that can go away and come back at the same address, and a browser that looks at it.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use adit::client::Client;
use adit::wire::job::Job;
use adit::wire::submit::JobRequest;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::MutexGuard;
use uuid::Uuid;

use crate::chrome::Chrome;
use crate::page::Page;
use crate::server::{CONFIG, Server, alone, until};

pub const LONG: Duration = Duration::from_secs(120);

pub struct Site {
    // ended in this order: the browser, the server, its files
    pub chrome: Chrome,
    pub server: Server,
    pub client: Client,
    pub dir: TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// Entries of the configuration: name, path, and what else the entry says.
pub type Models<'a> = &'a [(&'a str, &'a Path, &'a str)];

pub fn config(models: Models, more: &str) -> String {
    let entry = |(name, path, more): &(&str, &Path, &str)| {
        format!("[[models]]\nname = \"{name}\"\npath = \"{}\"\n{more}\n", path.display())
    };
    let models: String = models.iter().map(entry).collect();
    format!("{CONFIG}[engine]\nkv_tokens = 4096\nthreads = 1\n{more}\n{models}")
}

impl Site {
    pub async fn start(dir: TempDir, config: &str) -> Self {
        Self::start_with(dir, config, &[]).await
    }

    pub async fn start_with(dir: TempDir, config: &str, variables: &[(&str, &OsStr)]) -> Self {
        let alone = alone().await;
        let chrome = Chrome::start().await;
        let server = Server::start_with(dir.path(), config, variables);
        Self { client: server.client(), chrome, server, dir, _alone: alone }
    }

    /// A page of the dashboard, by its path.
    pub async fn open(&self, path: &str) -> Page {
        Page::open(&self.chrome, &format!("{}{path}", self.server.url)).await
    }

    /// Starts the server again where it was, over the same data.
    pub fn restart(&mut self, config: &str) {
        let address = self.server.url.strip_prefix("http://").unwrap().to_string();
        self.server.kill();
        self.server = Server::start_at(&address, self.dir.path(), config, &[]);
    }

    pub async fn submit(&self, request: Value) -> Uuid {
        let request: JobRequest = serde_json::from_value(request).unwrap();
        self.client.submit(&request, None).await.unwrap().id
    }

    pub async fn ended(&self, job: Uuid) -> Job {
        until(&self.client, job, LONG, |job| job.state.is_final()).await
    }

    /// Nothing of what the page did went anywhere else, and nothing went wrong in it.
    #[track_caller]
    pub fn assert_clean(&self, page: &Page) {
        let requests = page.requests();
        assert!(requests.len() > 10, "{requests:?}");
        let own = format!("{}/", self.server.url);
        let strange = requests.iter().filter(|url| {
            !url.starts_with(&own) && !url.starts_with("data:") && !url.starts_with(&format!("blob:{own}"))
        });
        assert_eq!(strange.collect::<Vec<_>>(), Vec::<&String>::new());
        assert_eq!(page.errors(), Vec::<String>::new());
    }
}

/// A job of texts, each answered by one of three words.
pub fn texts(model: &str, inputs: Vec<String>) -> Value {
    json!({
        "task": "custom",
        "model": model,
        "schema": {"type": "object", "properties": {"kind": {"enum": ["letter", "bill", "note"]}},
                   "required": ["kind"], "additionalProperties": false},
        "instructions": "What kind of text is it?",
        "inputs": inputs,
    })
}

pub fn letters(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("text {n}")).collect()
}
