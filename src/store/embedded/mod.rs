//! The private cluster: a PostgreSQL of our own in the data directory, from binaries found on the machine.
//!
//! Listens on a unix socket only, has checksums and fsync on, runs as an ordinary user even when adit runs
//! as root, ends with adit (orderly, or when adit is killed), and is found again, running or crashed, by
//! the next start. One adit per data directory. postgresql_embedded was measured to start with fsync off,
//! to fail as root and not to recover what it had left behind, and to cost 236 crates; so binaries are not
//! downloaded: the error names the package that has them.

mod binaries;
mod error;
mod leftover;
mod process;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Uid, User};

use super::Address;
use crate::config::settings::Database;

use binaries::Binaries;
pub use error::EmbeddedError;
use process::Postmaster;

const USER: &str = "adit";
/// A socket's path has at most 107 bytes; `/.s.PGSQL.5432` is part of it.
const MAX_SOCKET_FOLDER_BYTES: usize = 90;
/// A lock may be held for a moment by a predecessor that is ending.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The running cluster. Dropped without [`PrivatePostgres::stop`], it is asked to stop and not waited for.
#[derive(Debug)]
pub struct PrivatePostgres {
    binaries: Binaries,
    base: PathBuf,
    socket_folder: PathBuf,
    owner: Option<Owner>,
    fsync: bool,
    postmaster: Postmaster,
    /// Held until the cluster has ended.
    _lock: Flock<fs::File>,
}

/// The ordinary user that PostgreSQL runs as when adit is root.
#[derive(Clone, Copy, Debug)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl PrivatePostgres {
    /// Starts, or takes over, the cluster in `<data_dir>/postgres`. Blocks until it accepts connections,
    /// which after a crash takes as long as recovery does; call it from a blocking thread.
    pub fn start(data_dir: &Path, settings: &Database) -> Result<Self, EmbeddedError> {
        let binaries = Binaries::find(settings.postgres_bin_dir.as_deref())?;
        let owner = find_owner(settings.postgres_user.as_deref())?;
        fs::create_dir_all(data_dir).map_err(error::at(data_dir))?;
        let data_dir = fs::canonicalize(data_dir).map_err(error::at(data_dir))?;
        let base = choose_base(&data_dir, owner)?;
        make_folder(&base, owner)?;
        let lock = lock(&base.join("adit.lock"))?;
        let socket_folder = choose_socket_folder(&base);
        make_folder(&socket_folder, owner)?;
        let data = base.join("data");
        if !data.join("PG_VERSION").exists() {
            init(&binaries, &base, &data, owner)?;
        }
        binaries.check_version(&data)?;
        let postmaster = match leftover::adopt(&binaries, &data) {
            Some(pid) => {
                tracing::info!(pid, "took over the private PostgreSQL that an earlier adit had left running");
                Postmaster::adopted(pid, data)
            }
            None => {
                leftover::clear(&data, &socket_folder);
                Postmaster::start(&binaries, &base, data, &socket_folder, owner, settings.fsync)?
            }
        };
        let fsync = settings.fsync;
        Ok(Self { binaries, base, socket_folder, owner, fsync, postmaster, _lock: lock })
    }

    /// Starts the server again if its process has ended without being asked to; says whether it had to.
    /// Blocks as long as recovery takes. After an error it may be called again.
    pub fn revive(&mut self) -> Result<bool, EmbeddedError> {
        if !self.postmaster.has_ended() {
            return Ok(false);
        }
        let data = self.base.join("data");
        leftover::clear(&data, &self.socket_folder);
        let Self { binaries, base, socket_folder, owner, fsync, .. } = self;
        self.postmaster = Postmaster::start(binaries, base, data, socket_folder, *owner, *fsync)?;
        Ok(true)
    }

    /// Where the pool connects to. Database `postgres` of the cluster is ours alone.
    pub fn address(&self) -> Address {
        Address::of_socket(&self.socket_folder, USER, "postgres")
    }

    /// Where the cluster of a data directory is found that another adit runs, for a command beside it.
    pub fn address_of_running(data_dir: &Path, settings: &Database) -> Result<Address, EmbeddedError> {
        let owner = find_owner(settings.postgres_user.as_deref())?;
        let data_dir = fs::canonicalize(data_dir).map_err(error::at(data_dir))?;
        let socket_folder = choose_socket_folder(&choose_base(&data_dir, owner)?);
        Ok(Address::of_socket(&socket_folder, USER, "postgres"))
    }

    /// The postmaster's process, for tests that plant faults.
    pub fn pid(&self) -> i32 {
        self.postmaster.pid()
    }

    pub fn was_adopted(&self) -> bool {
        self.postmaster.was_adopted()
    }

    /// Fast shutdown; after 30 s an immediate one. Blocks until the cluster has ended.
    pub fn stop(&mut self) {
        self.postmaster.stop();
    }
}

fn find_owner(wanted: Option<&str>) -> Result<Option<Owner>, EmbeddedError> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let candidates: Vec<&str> = wanted.map_or_else(|| vec!["postgres", "nobody"], |name| vec![name]);
    for name in &candidates {
        if let Ok(Some(user)) = User::from_name(name) {
            return Ok(Some(Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw() }));
        }
    }
    Err(EmbeddedError::NoUser { tried: candidates.join(", ") })
}

/// `<data_dir>/postgres`; for root whose data directory lies where the cluster's user may not go (a home
/// of mode 0700), a folder under /var/lib that is named after the data directory.
fn choose_base(data_dir: &Path, owner: Option<Owner>) -> Result<PathBuf, EmbeddedError> {
    let Some(owner) = owner else { return Ok(data_dir.join("postgres")) };
    let Some(closed) = data_dir.ancestors().find(|folder| !may_pass(folder, owner)) else {
        return Ok(data_dir.join("postgres"));
    };
    let base = Path::new("/var/lib/adit").join(name_of(data_dir));
    tracing::info!(
        closed = %closed.display(), base = %base.display(),
        "the user that PostgreSQL runs as cannot enter the data directory; the cluster lies elsewhere"
    );
    fs::create_dir_all("/var/lib/adit").map_err(error::at(Path::new("/var/lib/adit")))?;
    Ok(base)
}

fn may_pass(folder: &Path, owner: Owner) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(folder).is_ok_and(|meta| {
        let mode = meta.mode();
        mode & 0o001 != 0
            || (meta.uid() == owner.uid && mode & 0o100 != 0)
            || (meta.gid() == owner.gid && mode & 0o010 != 0)
    })
}

/// A short name that two data directories do not share.
fn name_of(folder: &Path) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(folder.as_os_str().as_encoded_bytes());
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// `<base>/run`, or a short folder in /tmp when the socket's path would not fit into its address.
fn choose_socket_folder(base: &Path) -> PathBuf {
    let folder = base.join("run");
    if folder.as_os_str().len() <= MAX_SOCKET_FOLDER_BYTES {
        folder
    } else {
        Path::new("/tmp").join(format!("adit-{}-{}", Uid::effective(), name_of(base)))
    }
}

/// A folder of mode 0700 that belongs to the cluster's user.
fn make_folder(folder: &Path, owner: Option<Owner>) -> Result<(), EmbeddedError> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(cause) if cause.kind() != ErrorKind::AlreadyExists => return Err(error::at(folder)(cause)),
        _ => {}
    }
    // in a shared place somebody else could have made it, or a link to somewhere
    let meta = fs::symlink_metadata(folder).map_err(error::at(folder))?;
    if !meta.is_dir() {
        return Err(error::at(folder)(std::io::Error::from(ErrorKind::NotADirectory)));
    }
    if let Some(owner) = owner {
        std::os::unix::fs::chown(folder, Some(owner.uid), Some(owner.gid)).map_err(error::at(folder))?;
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(error::at(folder))
}

fn lock(path: &Path) -> Result<Flock<fs::File>, EmbeddedError> {
    let began = Instant::now();
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(error::at(path))?;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, _)) if began.elapsed() < LOCK_WAIT => file,
            Err(_) => return Err(EmbeddedError::InUse { folder: path.parent().unwrap_or(path).into() }),
        };
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Makes the cluster beside its place and moves it there, so that an interrupted start leaves no half.
fn init(binaries: &Binaries, base: &Path, data: &Path, owner: Option<Owner>) -> Result<(), EmbeddedError> {
    let beside = base.join("data.init");
    if beside.exists() {
        fs::remove_dir_all(&beside).map_err(error::at(&beside))?;
    }
    tracing::info!(data = %data.display(), "making a private PostgreSQL cluster");
    let began = Instant::now();
    let mut command = process::command(&binaries.initdb(), owner);
    command.arg("-D").arg(&beside).args(["-U", USER, "-E", "UTF8", "--locale=C", "--data-checksums"]);
    command.args(["--auth-local=trust", "--auth-host=reject"]);
    let output = command.output().map_err(error::at(&binaries.initdb()))?;
    if !output.status.success() {
        return Err(EmbeddedError::Init { cause: String::from_utf8_lossy(&output.stderr).trim().to_owned() });
    }
    fs::rename(&beside, data).map_err(error::at(data))?;
    tracing::info!(seconds = began.elapsed().as_secs_f64(), "private PostgreSQL cluster made");
    Ok(())
}
