//! Why the private cluster cannot run, and what a person can do.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    #[error(
        "no PostgreSQL server binaries (postgres, initdb) found in {searched}; install the package `postgresql` \
         (Debian, Ubuntu, Alpine), `postgresql-server` (Fedora, RHEL) or `postgresql@17` (Homebrew), or set \
         DATABASE_URL to a server of your own"
    )]
    NoBinaries { searched: String },
    #[error(
        "adit runs as root, and none of these users exists to run PostgreSQL as: {tried}; set database.postgres_user"
    )]
    NoUser { tried: String },
    #[error("another adit is using {folder}")]
    InUse { folder: PathBuf },
    #[error(
        "{data} was made by PostgreSQL {data_major}, the binaries in {bin_dir} are {bin_major}; set database.postgres_bin_dir"
    )]
    Version { data: PathBuf, data_major: String, bin_dir: PathBuf, bin_major: String },
    #[error("initdb failed: {cause}")]
    Init { cause: String },
    #[error("PostgreSQL ended while it was starting: {tail}; see {log}")]
    Ended { log: PathBuf, tail: String },
    #[error("PostgreSQL was not ready within {seconds} s; see {log}")]
    NotReady { log: PathBuf, seconds: u64 },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// Names the path of an I/O error.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> EmbeddedError + '_ {
    move |source| EmbeddedError::Io { path: path.into(), source }
}
