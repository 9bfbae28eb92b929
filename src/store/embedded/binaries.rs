//! Where PostgreSQL's server binaries lie.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::EmbeddedError;

/// Layouts of distributions: folder, prefix of the entry before the major version, path below it.
const LAYOUTS: [(&str, &str, &str); 5] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
];

#[derive(Clone, Debug)]
pub(super) struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// The folder of the settings, else the newest of the distributions' layouts, else `PATH`.
    pub fn find(wanted: Option<&Path>) -> Result<Self, EmbeddedError> {
        let folders = match wanted {
            Some(folder) => vec![folder.to_owned()],
            None => candidates(),
        };
        let has_both =
            |folder: &&PathBuf| folder.join("postgres").is_file() && folder.join("initdb").is_file();
        match folders.iter().find(has_both) {
            Some(folder) => Ok(Self { folder: folder.clone() }),
            None => {
                let searched: Vec<String> =
                    folders.iter().map(|folder| folder.display().to_string()).collect();
                let searched =
                    if searched.is_empty() { "the usual places".into() } else { searched.join(", ") };
                Err(EmbeddedError::NoBinaries { searched })
            }
        }
    }

    pub fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    pub fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    /// A data directory is read by its own major version only.
    pub fn check_version(&self, data: &Path) -> Result<(), EmbeddedError> {
        let file = data.join("PG_VERSION");
        let data_major = fs::read_to_string(&file).map_err(super::error::at(&file))?.trim().to_owned();
        let postgres = self.postgres();
        let answer = Command::new(&postgres).arg("-V").output().map_err(super::error::at(&postgres))?;
        // "postgres (PostgreSQL) 15.18 (Debian 15.18-0)"
        let bin_major = String::from_utf8_lossy(&answer.stdout)
            .split_whitespace()
            .filter_map(|word| word.split('.').next())
            .find(|word| word.parse::<u32>().is_ok())
            .unwrap_or_default()
            .to_owned();
        if data_major == bin_major {
            return Ok(());
        }
        Err(EmbeddedError::Version { data: data.into(), data_major, bin_dir: self.folder.clone(), bin_major })
    }
}

fn candidates() -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (base, prefix, below) in LAYOUTS {
        for entry in fs::read_dir(base).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(major) = name.strip_prefix(prefix).and_then(|rest| rest.parse().ok()) {
                found.push((major, entry.path().join(below)));
            }
        }
    }
    found.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    found.into_iter().map(|(_, folder)| folder).chain(crate::config::search_path()).collect()
}
