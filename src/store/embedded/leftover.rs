//! What an earlier adit has left in the data directory: a running postmaster, or the files of a dead one.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::binaries::Binaries;

/// Recovery and shutdown of a large cluster take a while.
const MAX_WAIT: Duration = Duration::from_secs(600);
/// One that says it is ready may still have the signal of its dead parent on the way.
const SETTLED_AFTER: Duration = Duration::from_millis(300);

/// The postmaster that runs on `data`, once it is ready; `None` when there is none, or when it has ended
/// while we looked.
pub(super) fn adopt(binaries: &Binaries, data: &Path) -> Option<i32> {
    let began = Instant::now();
    let pid = live_postmaster(binaries, data)?;
    while began.elapsed() < MAX_WAIT {
        if live_postmaster(binaries, data) != Some(pid) {
            return None;
        }
        if is_ready(data, pid) && began.elapsed() > SETTLED_AFTER {
            return Some(pid);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

/// Removes the lock files of a postmaster that is gone. PostgreSQL itself only asks whether some process
/// has the number in them: a zombie, which a container's init may never reap, or a reused number would
/// block the start for good. The caller holds our own lock and has found nobody alive.
pub(super) fn clear(data: &Path, socket_folder: &Path) {
    let _ = fs::remove_file(data.join("postmaster.pid"));
    for entry in fs::read_dir(socket_folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(".s.PGSQL.") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Line 8 of `postmaster.pid` says `ready` once recovery is over.
pub(super) fn is_ready(data: &Path, pid: i32) -> bool {
    let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let mut lines = text.lines();
    lines.next().and_then(|line| line.trim().parse().ok()) == Some(pid)
        && lines.nth(6).is_some_and(|line| line.trim() == "ready")
}

/// Whether the process exists and is no zombie.
pub(super) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    if stat.is_empty() {
        return nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok();
    }
    // the name in parentheses may hold anything; the state follows the last one
    !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
}

/// Alive, the same program, and with our data directory on its command line: numbers are reused.
fn live_postmaster(binaries: &Binaries, data: &Path) -> Option<i32> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: i32 = text.lines().next()?.trim().parse().ok()?;
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let is_ours = is_alive(pid)
        && program == fs::canonicalize(binaries.postgres()).ok()?
        && command.split(|byte| *byte == 0).any(|word| word == data.as_os_str().as_encoded_bytes());
    is_ours.then_some(pid)
}
