//! `adit doctor`: what would keep adit from working here, and what to do about it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::args::{Global, ServeArguments};
use super::exit::Exit;
use super::output::{print, print_json};
use super::report::bytes;
use super::settings as overlay;
use crate::app::{Database, plans};
use crate::config::settings::{Device, Settings};
use crate::domain::model::MemoryPlan;
use crate::models::device;
use crate::store::embedded::EmbeddedError;

/// Less than this free is a warning: write-ahead log and results need room.
const MIN_FREE_DISK_BYTES: u64 = 1 << 30;

/// One thing looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    ok: bool,
    detail: String,
}

#[derive(Debug, Serialize)]
struct Findings {
    findings: Vec<Finding>,
    /// Every limit, with the value that is in force; absent if the settings cannot be used.
    settings: Option<Settings>,
}

pub async fn run(global: &Global, args: &ServeArguments) -> Result<Exit> {
    let settings = match overlay::resolve(global, args) {
        Ok(settings) => settings,
        Err(error) => {
            let finding = Finding { what: "settings".into(), ok: false, detail: error.to_string() };
            show(global, vec![finding], None)?;
            return Ok(Exit::Usage);
        }
    };
    let mut findings = vec![data_dir(&settings.data_dir), disk(&settings.data_dir)];
    findings.extend(database(&settings).await);
    findings.extend([memory(), gpu(settings.engine.device)]);
    findings.extend(plans(&settings)?.into_iter().map(|(name, plan)| of_plan(&name, plan)));
    if settings.models.is_empty() {
        let detail = "none is configured; jobs would wait. Set CONCEPT_MODEL_PATH or use --model NAME=PATH";
        findings.push(Finding { what: "models".into(), ok: false, detail: detail.into() });
    }
    let all_ok = findings.iter().all(|finding| finding.ok);
    show(global, findings, Some(settings))?;
    Ok(if all_ok { Exit::Done } else { Exit::Failed })
}

fn show(global: &Global, findings: Vec<Finding>, settings: Option<Settings>) -> Result<()> {
    if !global.is_json() {
        let line = |finding: &Finding| {
            format!("{} {:<18} {}\n", if finding.ok { "ok  " } else { "FAIL" }, finding.what, finding.detail)
        };
        return Ok(print(findings.iter().map(line).collect::<String>())?);
    }
    let settings = settings.map(|mut settings| {
        // an address may hold a password
        settings.database.url = settings.database.url.map(|_| "set".into());
        settings.hub.token = settings.hub.token.map(|_| "set".into());
        settings
    });
    print_json(&Findings { findings, settings })
}

fn of_plan(name: &str, plan: Result<MemoryPlan>) -> Finding {
    let what = format!("model {name}");
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => return Finding { what, ok: false, detail: format!("{error:#}") },
    };
    let detail = format!(
        "needs {} of {} (weights {}, KV {} for {} tokens)",
        bytes(plan.needed_bytes()),
        bytes(plan.budget_bytes),
        bytes(plan.weights_bytes),
        bytes(plan.kv_bytes),
        plan.kv_tokens
    );
    Finding { what, ok: plan.fits(), detail }
}

fn data_dir(dir: &Path) -> Finding {
    let what = "data directory".to_string();
    let probe = dir.join(".probe");
    let tried = std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(&probe, b"x"))
        .and_then(|()| std::fs::remove_file(&probe));
    match tried {
        Ok(()) => Finding { what, ok: true, detail: format!("{} can be written", dir.display()) },
        Err(error) => Finding { what, ok: false, detail: format!("{}: {error}", dir.display()) },
    }
}

/// Free space where the private database and downloaded models live. A full disk stops the database.
fn disk(dir: &Path) -> Finding {
    let what = "disk".to_string();
    let free = match nix::sys::statvfs::statvfs(dir) {
        Ok(stat) => stat.blocks_available() * stat.fragment_size(),
        Err(error) => return Finding { what, ok: false, detail: format!("{}: {error}", dir.display()) },
    };
    let ok = free >= MIN_FREE_DISK_BYTES;
    let advice = match ok {
        true => String::new(),
        false => {
            format!("; at least {} are wanted: free some, or move --data-dir", bytes(MIN_FREE_DISK_BYTES))
        }
    };
    Finding { what, ok, detail: format!("{} free in {}{advice}", bytes(free), dir.display()) }
}

/// What plans are made against; each model's plan says whether it fits.
fn memory() -> Finding {
    let memory = device::cpu_memory();
    let of = |n: u64| if n == u64::MAX { "unknown".into() } else { bytes(n) };
    let detail = format!("{} available of {}", of(memory.available_bytes), of(memory.total_bytes));
    Finding { what: "memory".into(), ok: true, detail }
}

/// A card that goes unused is worth knowing of, and no fault; one that the settings name and that is not there is.
fn gpu(wanted: Device) -> Finding {
    let what = "GPU".to_string();
    match device::Place::find(wanted) {
        Ok(_) if wanted == Device::Cpu => {
            Finding { what, ok: true, detail: "engine.device is cpu: models run there".into() }
        }
        Ok(_) => Finding { what, ok: true, detail: device::card_line() },
        Err(error) => Finding { what, ok: false, detail: format!("{error}: {}", error.hint()) },
    }
}

/// Whether the database can be used, and has a key where one is needed. Its schema is looked at and left alone.
async fn database(settings: &Settings) -> Vec<Finding> {
    let mut keys = None;
    let (ok, detail) = match Database::connect_within(settings, Duration::ZERO).await {
        Ok(database) => {
            let pending = database.store.pending_migrations().await;
            if settings.http.needs_keys() {
                // before the first migration there is no table of keys, and no key
                keys = Some(of_keys(settings, database.store.has_valid_key().await.unwrap_or(false)));
            }
            database.close().await;
            match pending {
                Ok(0) => (true, "answers, schema is up to date".into()),
                Ok(n) => (true, format!("answers; {n} migrations will run at the next start")),
                Err(error) => (false, error.to_string()),
            }
        }
        // a server that runs here is no fault
        Err(error) if matches!(error.downcast_ref(), Some(EmbeddedError::InUse { .. })) => {
            (true, "the private one is in use by an adit that runs in this data directory".into())
        }
        Err(error) => (false, format!("{error:#}")),
    };
    let database = Finding { what: "database".into(), ok, detail };
    [Some(database), keys].into_iter().flatten().collect()
}

fn of_keys(settings: &Settings, found: bool) -> Finding {
    let listen = settings.http.listen;
    let detail = match found {
        true => format!("asked for on {listen}"),
        false => format!(
            "asked for on {listen}, and there is no valid one: `adit keys create`, or listen on 127.0.0.1"
        ),
    };
    Finding { what: "API keys".into(), ok: found, detail }
}
