//! A running `adit serve` as a child process, with short leases and small random models.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use adit::client::Client;
use adit::wire::job::Job;
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::tiny::{Arch, tiny_model};

/// Short leases, so that the work of a killed process is taken up soon.
pub const CONFIG: &str = "[queue]\nlease_ms = 4000\nrenew_ms = 1000\nrescue_ms = 500\n";

pub struct Server {
    pub child: Child,
    pub url: String,
}

impl Server {
    /// Three models on one base, named as the environment names them.
    pub fn start(dir: &Path, model: &Path) -> Self {
        let model = model.as_os_str();
        let named = [
            ("CONCEPT_MODEL_PATH", model),
            ("RELATIONSHIP_MODEL_PATH", model),
            ("ATTRIBUTE_MODEL_PATH", model),
            ("GPU_MEMORY_UTILIZATION", "0.5".as_ref()),
        ];
        Self::start_with(dir, CONFIG, &named)
    }

    /// In `dir`, with `config` as its `adit.toml` and nothing but `variables` to override it.
    pub fn start_with(dir: &Path, config: &str, variables: &[(&str, &OsStr)]) -> Self {
        Self::start_at("127.0.0.1:0", dir, config, variables)
    }

    /// At an address of the test's choice: one that comes back where it was.
    pub fn start_at(address: &str, dir: &Path, config: &str, variables: &[(&str, &OsStr)]) -> Self {
        std::fs::write(dir.join("adit.toml"), config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_adit"))
            .args(["serve", "--listen", address])
            .current_dir(dir)
            .env_remove("DATABASE_URL")
            .env("ADIT_DATA_DIR", dir.join("data"))
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("adit listens on ").expect("the address").to_string();
        Self { child, url }
    }

    /// Over a database of the test's own, with settings of its own; without a model, those of the settings.
    pub fn start_on(dir: &Path, model: Option<&Path>, database: Option<&str>, config: &str) -> Self {
        let names = ["CONCEPT_MODEL_PATH", "RELATIONSHIP_MODEL_PATH", "ATTRIBUTE_MODEL_PATH"];
        let mut variables: Vec<(&str, &OsStr)> = vec![("GPU_MEMORY_UTILIZATION", "0.5".as_ref())];
        variables.extend(names.into_iter().filter_map(|name| Some((name, model?.as_os_str()))));
        variables.extend(database.map(|url| ("DATABASE_URL", url.as_ref())));
        Self::start_with(dir, config, &variables)
    }

    pub fn client(&self) -> Client {
        Client::new(&self.url).unwrap()
    }

    pub fn adit(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_adit")).args(["--server", &self.url]).args(args).output().unwrap()
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // the private Postgres ends with its parent
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn folder() -> (TempDir, std::path::PathBuf) {
    let dir = TempDir::new().unwrap();
    let model = tiny_model(dir.path().join("model"), Arch::Llama, 7);
    (dir, model)
}

pub async fn until(client: &Client, job: Uuid, limit: Duration, done: impl Fn(&Job) -> bool) -> Job {
    let begun = Instant::now();
    loop {
        let job = client.job(job).await.unwrap();
        assert!(job.counts.adds_up(), "{:?}", job.counts);
        if done(&job) {
            return job;
        }
        assert!(begun.elapsed() < limit, "still {:?} after {limit:?}", job.counts);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// For tests that measure time or memory, or run several servers: one of them at a time.
pub async fn alone() -> tokio::sync::MutexGuard<'static, ()> {
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    ALONE.lock().await
}
