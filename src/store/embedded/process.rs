//! The postmaster as a process: start, readiness, end.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::binaries::Binaries;
use super::{EmbeddedError, Owner, error, leftover};

/// Crash recovery of a large cluster takes minutes.
const READY_WITHIN: Duration = Duration::from_secs(600);
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// A fast shutdown that takes longer than this becomes an immediate one.
const STOP_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Postmaster {
    pid: i32,
    data: PathBuf,
    /// Absent for one that was taken over, or has ended.
    child: Option<Child>,
    /// Ends the thread that is the child's parent in the kernel's eyes.
    _keeper: Option<mpsc::Sender<()>>,
    ended: bool,
}

/// A program run as the cluster's user, from a folder that this user may be in.
pub(super) fn command(program: &Path, owner: Option<Owner>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).current_dir("/");
    if let Some(owner) = owner {
        command.gid(owner.gid).uid(owner.uid); // std drops root's other groups with the uid
    }
    command
}

impl Postmaster {
    pub fn adopted(pid: i32, data: PathBuf) -> Self {
        Self { pid, data, child: None, _keeper: None, ended: false }
    }

    pub fn start(
        binaries: &Binaries,
        base: &Path,
        data: PathBuf,
        socket_folder: &Path,
        owner: Option<Owner>,
        fsync: bool,
    ) -> Result<Self, EmbeddedError> {
        let log_path = base.join("postgres.log");
        let log =
            fs::OpenOptions::new().create(true).append(true).open(&log_path).map_err(error::at(&log_path))?;
        let mut command = command(&binaries.postgres(), owner);
        command.arg("-D").arg(&data).arg("-k").arg(socket_folder);
        for setting in ["listen_addresses=", "unix_socket_permissions=0700", "max_connections=100"] {
            command.args(["-c", setting]);
        }
        if !fsync {
            for setting in ["fsync=off", "synchronous_commit=off", "full_page_writes=off"] {
                command.args(["-c", setting]);
            }
        }
        command.stdout(log.try_clone().map_err(error::at(&log_path))?).stderr(log).process_group(0); // Ctrl-C in the terminal is for adit, which then stops the cluster itself
        let (child, keeper) = spawn_with_parent(command).map_err(error::at(&binaries.postgres()))?;
        let pid = i32::try_from(child.id()).expect("a process number is an i32");
        let mut started = Self { pid, data, child: Some(child), _keeper: Some(keeper), ended: false };
        started.wait_ready(&log_path)?;
        Ok(started)
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn was_adopted(&self) -> bool {
        self.child.is_none()
    }

    fn wait_ready(&mut self, log: &Path) -> Result<(), EmbeddedError> {
        let began = Instant::now();
        let mut next_word = PROGRESS_EVERY;
        while !leftover::is_ready(&self.data, self.pid) {
            if self.has_ended() {
                return Err(EmbeddedError::Ended { log: log.into(), tail: last_line(log) });
            }
            if began.elapsed() > READY_WITHIN {
                return Err(EmbeddedError::NotReady { log: log.into(), seconds: READY_WITHIN.as_secs() });
            }
            if began.elapsed() > next_word {
                tracing::info!(
                    seconds = began.elapsed().as_secs(),
                    "waiting for the private PostgreSQL to recover"
                );
                next_word += PROGRESS_EVERY;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Once it has, its number is not used any more: it may be another process's.
    pub fn has_ended(&mut self) -> bool {
        self.ended = self.ended
            || match &mut self.child {
                Some(child) => child.try_wait().is_ok_and(|status| status.is_some()),
                None => !leftover::is_alive(self.pid),
            };
        self.ended
    }

    fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid), signal);
    }

    pub fn stop(&mut self) {
        if self.ended {
            return;
        }
        self.signal(Signal::SIGINT);
        let began = Instant::now();
        let mut patience = STOP_WITHIN;
        while !self.has_ended() {
            if began.elapsed() > patience {
                tracing::warn!("the private PostgreSQL does not stop; stopping it at once");
                self.signal(Signal::SIGQUIT);
                patience += STOP_WITHIN;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(Signal::SIGINT);
        }
    }
}

/// Starts the child from a thread that lives until the returned sender is dropped: the kernel sends the
/// parent-death signal when the *thread* that started the child ends, and a worker thread of an async
/// runtime may end at any time.
fn spawn_with_parent(mut command: Command) -> io::Result<(Child, mpsc::Sender<()>)> {
    let (keeper, end) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    #[cfg(target_os = "linux")]
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; prctl is a bare system call
    // and touches no memory of ours. std runs this after setuid, which would clear the setting.
    unsafe {
        command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGINT).map_err(io::Error::from));
    }
    std::thread::Builder::new().name("postgres-parent".into()).spawn(move || {
        let _ = tell.send(command.spawn());
        let _ = end.recv();
    })?;
    let child = told.recv().map_err(|_| io::Error::other("the starting thread ended"))??;
    Ok((child, keeper))
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
}
