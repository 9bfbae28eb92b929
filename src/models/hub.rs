//! Checkpoints from a hub: resolved to a commit, downloaded file by file with resume, found again offline.
//!
//! Blocking. Only the files that adit reads are fetched; none of them can hold code that runs outside the
//! template sandbox.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

use super::error::ModelError;
use super::progress::Meter;
use crate::config::settings::Settings;
use crate::domain::model::LoadStage;

/// Tries of one file before the load as a whole fails (and is tried again later).
const RETRIES: usize = 3;
/// Small files that are fetched where the repository has them.
const TEXTS: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "adapter_config.json",
    "model.safetensors.index.json",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub endpoint: Option<String>,
    pub token: Option<String>,
    pub cache_dir: PathBuf,
    pub offline: bool,
}

impl Options {
    pub fn new(settings: &Settings) -> Self {
        let hub = &settings.hub;
        Self {
            endpoint: hub.endpoint.clone(),
            token: hub.token.clone(),
            cache_dir: hub.cache_dir.clone().unwrap_or_else(|| settings.data_dir.join("models")),
            offline: hub.offline,
        }
    }
}

/// The checkpoint's place in the cache, if it is there in full.
pub fn cached(repo: &str, revision: &str, options: &Options) -> Option<PathBuf> {
    let place = Repo::with_revision(repo.into(), RepoType::Model, revision.into());
    let cache = Cache::new(options.cache_dir.clone()).repo(place);
    let config = ["config.json", "adapter_config.json"].iter().find_map(|name| cache.get(name))?;
    let dir = config.parent()?.to_path_buf();
    is_complete(&dir).then_some(dir)
}

/// Whether the hub tells about a repository within `timeout`. The client itself waits without a bound, so it
/// is asked on a thread that is left to its own if it does not come back.
pub fn answers(repo: &str, options: &Options, timeout: Duration) -> bool {
    let (sender, answer) = std::sync::mpsc::channel();
    let place = Repo::with_revision(repo.into(), RepoType::Model, "main".into());
    let options = options.clone();
    let ask = move || {
        let told = client(&options).and_then(|api| api.repo(place).info());
        let _ = sender.send(told.is_ok());
    };
    std::thread::Builder::new().name("hub-probe".into()).spawn(ask).is_ok()
        && answer.recv_timeout(timeout).unwrap_or(false)
}

/// Whether every weight file that the snapshot's index names is there.
fn is_complete(dir: &std::path::Path) -> bool {
    let index = std::fs::read(dir.join("model.safetensors.index.json")).ok();
    match index.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok()) {
        Some(index) => index["weight_map"].as_object().is_some_and(|map| {
            map.values().all(|file| file.as_str().is_some_and(|file| dir.join(file).exists()))
        }),
        None => ["model.safetensors", "adapter_model.safetensors"].iter().any(|name| dir.join(name).exists()),
    }
}

/// Fetches a repository's checkpoint or adapter and returns its directory. Where the hub cannot be reached
/// and the cache is complete, the cache serves.
pub fn fetch(
    repo: &str,
    revision: &str,
    options: &Options,
    on_progress: &mut dyn FnMut(&mut Meter),
) -> Result<PathBuf, ModelError> {
    let known = cached(repo, revision, options);
    if options.offline {
        return known.ok_or_else(|| ModelError::Hub {
            repo: repo.into(),
            cause: format!(
                "revision {revision} is not in {} and offline mode is on",
                options.cache_dir.display()
            ),
            is_passing: false,
        });
    }
    match download(repo, revision, options, on_progress) {
        Ok(dir) => Ok(dir),
        Err(cause) => match known {
            Some(dir) if is_passing(&cause) => {
                tracing::warn!(repo, %cause, "hub not reached, the cached checkpoint is used");
                Ok(dir)
            }
            _ => Err(ModelError::Hub {
                repo: repo.into(),
                is_passing: is_passing(&cause),
                cause: cause.to_string(),
            }),
        },
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Api(#[from] ApiError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Content(String),
}

/// A refusal by the hub stays one; everything else is the network's or the disk's.
fn is_passing(cause: &Failure) -> bool {
    match cause {
        Failure::Content(_) => false,
        Failure::Io(_) => true,
        // the client's own error type is not ours to name, its text carries the status
        Failure::Api(cause) => {
            let text = cause.to_string();
            !["401", "403", "404", "410"].iter().any(|status| text.contains(&format!("status: {status}")))
        }
    }
}

fn download(
    repo: &str,
    revision: &str,
    options: &Options,
    on_progress: &mut dyn FnMut(&mut Meter),
) -> Result<PathBuf, Failure> {
    let api = client(options)?;
    let info = api.repo(Repo::with_revision(repo.into(), RepoType::Model, revision.into())).info()?;
    if info.sha.is_empty() || !info.sha.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(Failure::Content(format!("the hub answered the commit `{}`", info.sha)));
    }
    // every file from one commit, even if the branch moves meanwhile
    let place = Repo::with_revision(repo.into(), RepoType::Model, info.sha.clone());
    let commit = api.repo(place.clone());
    let cache = Cache::new(options.cache_dir.clone()).repo(place);
    let names: Vec<String> =
        info.siblings.into_iter().map(|file| file.rfilename).filter(|name| is_wanted(name)).collect();
    if !names.iter().any(|name| name.ends_with(".safetensors")) {
        return Err(Failure::Content("it holds no safetensors".into()));
    }
    let mut missing = Vec::new();
    let (mut total, mut present) = (0u64, 0u64);
    for name in &names {
        if let Some(path) = cache.get(name) {
            let bytes = std::fs::metadata(path)?.len();
            total += bytes;
            present += bytes;
        } else {
            let bytes = api.metadata(&commit.url(name))?.size() as u64;
            total += bytes;
            missing.push((name, bytes));
        }
    }
    let mut meter = Meter::new(LoadStage::Download, total, Instant::now());
    meter.skip(present);
    on_progress(&mut meter);
    let mut finished = present;
    for (name, bytes) in missing {
        let bar = Bar { meter: &mut meter, before: finished, on_progress };
        let path = commit.download_with_progress(name, bar)?;
        let got = std::fs::metadata(&path)?.len();
        if got != bytes {
            let _ = std::fs::remove_file(path.canonicalize()?);
            let _ = std::fs::remove_file(&path);
            return Err(Failure::Io(std::io::Error::other(format!("{name} has {got} of {bytes} bytes"))));
        }
        finished += bytes;
    }
    let branch = Repo::with_revision(repo.into(), RepoType::Model, revision.into());
    Cache::new(options.cache_dir.clone()).repo(branch).create_ref(&info.sha)?;
    Ok(cache.pointer_path(&info.sha))
}

fn client(options: &Options) -> Result<Api, ApiError> {
    let mut builder = ApiBuilder::from_cache(Cache::new(options.cache_dir.clone()))
        .with_progress(false)
        .with_retries(RETRIES)
        .with_user_agent("adit", env!("CARGO_PKG_VERSION"));
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_string());
    }
    // without one of ours the client looks for the token that its own login left
    if options.token.is_some() {
        builder = builder.with_token(options.token.clone());
    }
    builder.build()
}

/// Files of the repository's top folder that a load reads. A name from the hub becomes a path here, so
/// nothing with a separator passes.
fn is_wanted(name: &str) -> bool {
    let is_plain = !name.contains(['/', '\\']) && !name.starts_with('.');
    let is_weight =
        name.ends_with(".safetensors") && (name.starts_with("model") || name.starts_with("adapter_model"));
    is_plain && (is_weight || TEXTS.contains(&name))
}

/// Counts one file's bytes into the whole load's meter. A retry starts from what is on disk.
struct Bar<'a> {
    meter: &'a mut Meter,
    before: u64,
    on_progress: &'a mut dyn FnMut(&mut Meter),
}

impl Progress for Bar<'_> {
    fn init(&mut self, _size: usize, _filename: &str) {
        self.meter.set_done(self.before);
    }

    fn update(&mut self, size: usize) {
        self.meter.add(size as u64);
        (self.on_progress)(self.meter);
    }

    fn finish(&mut self) {
        (self.on_progress)(self.meter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_are_read_are_fetched() {
        for name in ["config.json", "model.safetensors", "model-00001-of-00002.safetensors", "tokenizer.json"]
        {
            assert!(is_wanted(name), "{name}");
        }
        for name in
            ["pytorch_model.bin", "../model.safetensors", "onnx/model.safetensors", "modeling.py", ".x"]
        {
            assert!(!is_wanted(name), "{name}");
        }
    }
}
