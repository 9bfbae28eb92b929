//! What a configured path means: files that are there, or a hub repository.

use std::path::{Path, PathBuf};

use super::error::ModelError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A directory or a file, with symbolic links and dots resolved: equal paths are equal bases.
    Local(PathBuf),
    Hub {
        repo: String,
        revision: String,
    },
}

impl Source {
    /// A path that exists wins over a hub id that is written alike.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let path = Path::new(text);
        if path.exists() {
            let resolved =
                path.canonicalize().map_err(|source| ModelError::Io { path: path.into(), source })?;
            return Ok(Self::Local(resolved));
        }
        let (repo, revision) = text.split_once('@').unwrap_or((text, "main"));
        if is_hub_id(repo) && is_revision(revision) {
            return Ok(Self::Hub { repo: repo.into(), revision: revision.into() });
        }
        Err(ModelError::PathMissing { path: path.into() })
    }
}

/// `owner/name` in the hub's alphabet, and nothing that looks like a file.
fn is_hub_id(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with(['.', '-'])
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let is_file = text.ends_with(".gguf") || text.ends_with(".safetensors");
    !is_file && text.split_once('/').is_some_and(|(owner, name)| is_part(owner) && is_part(name))
}

fn is_revision(text: &str) -> bool {
    !text.is_empty()
        && !text.contains("..")
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_ids_are_told_from_paths() {
        let hub = |repo: &str, revision: &str| Source::Hub { repo: repo.into(), revision: revision.into() };
        assert_eq!(
            Source::parse("Qwen/Qwen2.5-14B-Instruct").unwrap(),
            hub("Qwen/Qwen2.5-14B-Instruct", "main")
        );
        assert_eq!(Source::parse("a/b@v1.0").unwrap(), hub("a/b", "v1.0"));
        for text in ["/no/such/dir", "./a/b", "a", "a/b/c", "../b", "a/b.gguf", "a/b@../x", "a/ b"] {
            assert!(matches!(Source::parse(text), Err(ModelError::PathMissing { .. })), "{text}");
        }
    }

    #[test]
    fn equal_places_are_equal_sources() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("x")).unwrap();
        let direct = Source::parse(&dir.path().join("x").to_string_lossy()).unwrap();
        let winding = Source::parse(&dir.path().join("x/../x/.").to_string_lossy()).unwrap();
        assert_eq!(direct, winding);
    }
}
