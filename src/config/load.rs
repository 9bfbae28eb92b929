//! Where settings come from, and how the layers are laid over each other.
//!
//! `adit.toml` is laid over the defaults, then `.env`, then the environment; flags are applied by the
//! command line on the result. [`Settings::check`] refuses what cannot work, by key.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::ConfigError;
use super::settings::{Model, Settings};

/// The three models that turn a database schema into a data model, and their prefix in the environment.
const NAMED_MODELS: [(&str, &str); 3] =
    [("concept", "CONCEPT"), ("relationship", "RELATIONSHIP"), ("attribute", "ATTRIBUTE")];

/// Name → value, of everything that may override a setting.
pub type Environment = HashMap<String, String>;

/// The process's environment, with `.env` of the working directory below it.
pub fn environment(dir: &Path) -> Result<Environment, ConfigError> {
    let mut merged = Environment::new();
    let file = dir.join(".env");
    if file.exists() {
        let entries = dotenvy::from_path_iter(&file)
            .map_err(|cause| ConfigError::File { file: file.clone(), cause: cause.to_string() })?;
        for entry in entries {
            let (name, value) =
                entry.map_err(|cause| ConfigError::File { file: file.clone(), cause: cause.to_string() })?;
            merged.insert(name, value);
        }
    }
    merged.extend(std::env::vars());
    Ok(merged)
}

/// Reads `file` (or `adit.toml` of the working directory, if there is one) and lays `env` over it.
pub fn load(file: Option<&Path>, env: &Environment) -> Result<Settings, ConfigError> {
    let (path, required) = match file {
        Some(path) => (path.to_path_buf(), true),
        None => (PathBuf::from("adit.toml"), false),
    };
    let mut settings = match std::fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text)
            .map_err(|cause| ConfigError::File { file: path.clone(), cause: cause.to_string() })?,
        Err(cause) if required || cause.kind() != std::io::ErrorKind::NotFound => {
            return Err(ConfigError::File { file: path, cause: cause.to_string() });
        }
        Err(_) => Settings::default(),
    };
    apply_environment(&mut settings, env)?;
    settings.check()?;
    Ok(settings)
}

fn apply_environment(settings: &mut Settings, env: &Environment) -> Result<(), ConfigError> {
    let get = |name: &str| env.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    if let Some(url) = get("DATABASE_URL") {
        settings.database.url = Some(url.into());
    }
    if let Some(dir) = get("ADIT_DATA_DIR") {
        settings.data_dir = dir.into();
    }
    if let Some(dir) = get("ADIT_POSTGRES_BIN_DIR") {
        settings.database.postgres_bin_dir = Some(dir.into());
    }
    if let Some(user) = get("ADIT_POSTGRES_USER") {
        settings.database.postgres_user = Some(user.into());
    }
    if let Some(listen) = get("ADIT_LISTEN") {
        settings.http.listen = parse("ADIT_LISTEN", listen)?;
    }
    if let Some(auth) = get("ADIT_AUTH") {
        settings.http.auth = parse("ADIT_AUTH", auth)?;
    }
    if let Some(device) = get("ADIT_DEVICE") {
        settings.engine.device = parse("ADIT_DEVICE", device)?;
    }
    if let Some(threads) = get("ADIT_THREADS") {
        settings.engine.threads = parse("ADIT_THREADS", threads)?;
    }
    if let Some(endpoint) = get("HF_ENDPOINT") {
        settings.hub.endpoint = Some(endpoint.into());
    }
    if let Some(token) = get("HF_TOKEN") {
        settings.hub.token = Some(token.into());
    }
    if let Some(dir) = get("HF_HUB_CACHE") {
        settings.hub.cache_dir = Some(dir.into());
    }
    if let Some(flag) = get("HF_HUB_OFFLINE") {
        settings.hub.offline = !matches!(flag.to_ascii_lowercase().as_str(), "0" | "false" | "no" | "off");
    }
    apply_named_models(settings, env)
}

/// `CONCEPT_MODEL_PATH`, `CONCEPT_ADAPTER_PATH` and their like; `GPU_MEMORY_UTILIZATION` and
/// `TENSOR_PARALLEL_SIZE` hold for every model.
fn apply_named_models(settings: &mut Settings, env: &Environment) -> Result<(), ConfigError> {
    let get = |name: &str| env.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    for (name, prefix) in NAMED_MODELS {
        let path = get(&format!("{prefix}_MODEL_PATH"));
        let adapter = get(&format!("{prefix}_ADAPTER_PATH"));
        let known = settings.models.iter().position(|model| model.name == name);
        let model = match (known, path) {
            (Some(at), path) => {
                if let Some(path) = path {
                    settings.models[at].path = path.into();
                }
                &mut settings.models[at]
            }
            (None, Some(path)) => {
                settings.models.push(Model::new(name, path));
                settings.models.last_mut().expect("just pushed")
            }
            (None, None) if adapter.is_some() => {
                return Err(ConfigError::Value {
                    key: format!("{prefix}_ADAPTER_PATH"),
                    cause: format!("needs {prefix}_MODEL_PATH: an adapter has no base of its own"),
                });
            }
            (None, None) => continue,
        };
        if let Some(adapter) = adapter {
            model.adapter = Some(adapter.into());
        }
    }
    if let Some(text) = get("GPU_MEMORY_UTILIZATION") {
        let share = parse("GPU_MEMORY_UTILIZATION", text)?;
        settings.models.iter_mut().for_each(|model| model.gpu_memory_utilization = share);
    }
    if let Some(text) = get("TENSOR_PARALLEL_SIZE") {
        let size = parse("TENSOR_PARALLEL_SIZE", text)?;
        settings.models.iter_mut().for_each(|model| model.tensor_parallel_size = size);
    }
    Ok(())
}

fn parse<T: std::str::FromStr>(key: &str, text: &str) -> Result<T, ConfigError>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|cause: T::Err| ConfigError::Value { key: key.into(), cause: format!("'{text}': {cause}") })
}

impl Settings {
    /// Refuses values that cannot work, naming the key.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key: &str, cause: String| Err(ConfigError::Value { key: key.into(), cause });
        let positive = [
            ("queue.chunk_items", u64::from(self.queue.chunk_items)),
            ("queue.min_bundle_items", u64::from(self.queue.min_bundle_items)),
            ("queue.max_bundle_items", u64::from(self.queue.max_bundle_items)),
            ("queue.bundles_in_hand", u64::from(self.queue.bundles_in_hand)),
            ("queue.lease_ms", self.queue.lease_ms),
            ("queue.renew_ms", self.queue.renew_ms),
            ("queue.rescue_ms", self.queue.rescue_ms),
            ("queue.poll_ms", self.queue.poll_ms),
            ("queue.flush_ms", self.queue.flush_ms),
            ("queue.max_buffered_results", u64::from(self.queue.max_buffered_results)),
            ("queue.max_worker_deaths", u64::from(self.queue.max_worker_deaths)),
            ("queue.max_attempts", u64::from(self.queue.max_attempts)),
            ("http.request_head_timeout_ms", self.http.request_head_timeout_ms),
            ("http.max_connections", self.http.max_connections as u64),
            ("database.max_connections", u64::from(self.database.max_connections)),
            ("database.idle_in_transaction_ms", self.database.idle_in_transaction_ms),
            ("database.acquire_timeout_ms", self.database.acquire_timeout_ms),
            ("engine.max_queued", self.engine.max_queued as u64),
            ("engine.block_tokens", self.engine.block_tokens as u64),
            ("limits.max_inputs", self.limits.max_inputs),
            ("limits.max_file_bytes", self.limits.max_file_bytes),
            ("limits.default_completion_tokens", u64::from(self.limits.default_completion_tokens)),
            ("limits.max_page", u64::from(self.limits.max_page)),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return refuse(key, "must be at least 1".into());
        }
        if self.queue.min_bundle_items > self.queue.max_bundle_items {
            return refuse("queue.min_bundle_items", "is above queue.max_bundle_items".into());
        }
        if self.queue.renew_ms * 2 > self.queue.lease_ms {
            return refuse(
                "queue.renew_ms",
                "must be at most half of queue.lease_ms, or one lost renewal costs the lease".into(),
            );
        }
        if self.limits.max_inputs > 1_000_000 {
            return refuse("limits.max_inputs", "is above 1000000, the most a job can hold".into());
        }
        for (at, model) in self.models.iter().enumerate() {
            let key = |field: &str| format!("models[{at}].{field}");
            if model.name.is_empty()
                || model.name.len() > 64
                || !model.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                || model.name.starts_with('.')
            {
                return refuse(
                    &key("name"),
                    format!("'{}': 1 to 64 letters, digits, '-', '_', '.' (not first)", model.name),
                );
            }
            if self.models[..at].iter().any(|other| other.name == model.name) {
                return refuse(&key("name"), format!("'{}' is configured twice", model.name));
            }
            if model.path.is_empty() {
                return refuse(&key("path"), "is empty".into());
            }
            if !(model.gpu_memory_utilization > 0.0 && model.gpu_memory_utilization <= 1.0) {
                return refuse(
                    &key("gpu_memory_utilization"),
                    format!("{} is not in (0, 1]", model.gpu_memory_utilization),
                );
            }
            if model.tensor_parallel_size != 1 {
                return refuse(
                    &key("tensor_parallel_size"),
                    format!("{}: this build runs a base on one device", model.tensor_parallel_size),
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(entries: &[(&str, &str)]) -> Environment {
        entries.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn from_env(entries: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let mut settings = Settings::default();
        apply_environment(&mut settings, &env(entries))?;
        settings.check()?;
        Ok(settings)
    }

    #[test]
    fn three_models_come_from_their_environment_names() {
        let settings = from_env(&[
            ("CONCEPT_MODEL_PATH", "/m/base"),
            ("CONCEPT_ADAPTER_PATH", "/m/concept"),
            ("RELATIONSHIP_MODEL_PATH", "/m/base"),
            ("ATTRIBUTE_MODEL_PATH", "owner/name@main"),
            ("GPU_MEMORY_UTILIZATION", "0.5"),
            ("TENSOR_PARALLEL_SIZE", "1"),
        ])
        .unwrap();
        let seen: Vec<_> = settings
            .models
            .iter()
            .map(|m| (m.name.as_str(), m.path.as_str(), m.adapter.as_deref(), m.gpu_memory_utilization))
            .collect();
        assert_eq!(
            seen,
            [
                ("concept", "/m/base", Some("/m/concept"), 0.5),
                ("relationship", "/m/base", None, 0.5),
                ("attribute", "owner/name@main", None, 0.5),
            ]
        );
    }

    #[test]
    fn keys_are_needed_where_others_come_in() {
        for (listen, auth, needs) in [
            ("127.0.0.1:8080", "auto", false),
            ("[::1]:8080", "auto", false),
            ("[::ffff:127.0.0.1]:8080", "auto", false),
            ("0.0.0.0:8080", "auto", true),
            ("[::]:8080", "auto", true),
            ("192.168.1.5:8080", "auto", true),
            ("127.0.0.1:8080", "required", true),
            ("0.0.0.0:8080", "off", false),
        ] {
            let settings = from_env(&[("ADIT_LISTEN", listen), ("ADIT_AUTH", auth)]).unwrap();
            assert_eq!(settings.http.needs_keys(), needs, "{listen} {auth}");
        }
    }

    #[test]
    fn refusals_name_the_key() {
        for (entries, key) in [
            (vec![("CONCEPT_ADAPTER_PATH", "/a")], "CONCEPT_ADAPTER_PATH"),
            (
                vec![("CONCEPT_MODEL_PATH", "/a"), ("GPU_MEMORY_UTILIZATION", "1.5")],
                "models[0].gpu_memory_utilization",
            ),
            (vec![("GPU_MEMORY_UTILIZATION", "much")], "GPU_MEMORY_UTILIZATION"),
            (
                vec![("CONCEPT_MODEL_PATH", "/a"), ("TENSOR_PARALLEL_SIZE", "4")],
                "models[0].tensor_parallel_size",
            ),
            (vec![("ADIT_LISTEN", "nowhere")], "ADIT_LISTEN"),
            (vec![("ADIT_AUTH", "perhaps")], "ADIT_AUTH"),
        ] {
            let error = from_env(&entries).unwrap_err().to_string();
            assert!(error.contains(key), "{error} does not name {key}");
        }
    }

    #[test]
    fn file_is_below_dot_env_is_below_environment() {
        let dir = std::env::temp_dir().join(format!("adit-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("adit.toml");
        std::fs::write(
            &file,
            "data_dir = '/from/file'\n[queue]\nlease_ms = 9000\n[[models]]\nname = 'concept'\npath = '/file'\n",
        )
        .unwrap();
        std::fs::write(dir.join(".env"), "CONCEPT_MODEL_PATH=/dotenv\nADIT_DATA_DIR=/from/dotenv\n").unwrap();
        let mut env = environment(&dir).unwrap();
        env.insert("ADIT_DATA_DIR".into(), "/from/env".into());
        let settings = load(Some(&file), &env).unwrap();
        assert_eq!(settings.queue.lease_ms, 9000);
        assert_eq!(settings.models[0].path, "/dotenv");
        assert_eq!(settings.data_dir, PathBuf::from("/from/env"));
        std::fs::write(&file, "[queue]\nleese_ms = 1\n").unwrap();
        let error = load(Some(&file), &Environment::new()).unwrap_err().to_string();
        assert!(error.contains("leese_ms") && error.contains("adit.toml"), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
