//! Flags laid over the settings of file and environment.

use std::path::Path;

use super::args::{Global, ServeArguments, StorageArguments};
use crate::config::ConfigError;
use crate::config::load;
use crate::config::settings::{Auth, Model, Settings};

/// Settings of this process: file, `.env`, environment, then flags.
pub fn resolve(global: &Global, serve: &ServeArguments) -> Result<Settings, ConfigError> {
    let env = load::environment(Path::new("."))?;
    let mut settings = load::load(global.config.as_deref(), &env)?;
    apply_storage(&mut settings, &serve.storage);
    if let Some(listen) = serve.listen {
        settings.http.listen = listen;
    }
    if serve.insecure_no_auth {
        settings.http.auth = Auth::Off;
    }
    if let Some(device) = serve.device {
        settings.engine.device = device;
    }
    if let Some(threads) = serve.threads {
        settings.engine.threads = threads;
    }
    for flag in &serve.models {
        let mut model = Model::new(&flag.name, &flag.path);
        model.adapter = flag.adapter.clone();
        match settings.models.iter_mut().find(|model| model.name == flag.name) {
            Some(known) => *known = model,
            None => settings.models.push(model),
        }
    }
    settings.check()?;
    Ok(settings)
}

pub fn apply_storage(settings: &mut Settings, storage: &StorageArguments) {
    if let Some(dir) = &storage.data_dir {
        settings.data_dir = dir.clone();
    }
    if let Some(url) = &storage.database_url {
        settings.database.url = Some(url.clone());
    }
}
