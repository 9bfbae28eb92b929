//! `adit doctor`: what would keep adit from working here, and what to do about it.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::args::{Global, ServeArguments};
use super::exit::Exit;
use super::output::print_json;
use super::report::bytes;
use super::settings as overlay;
use crate::app::{Database, plans};
use crate::config::settings::Settings;
use crate::domain::model::MemoryPlan;

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
    /// Every limit, with the value that is in force.
    settings: Settings,
}

pub async fn run(global: &Global, args: &ServeArguments) -> Result<Exit> {
    let mut settings = overlay::resolve(global, args)?;
    let mut findings = vec![data_dir(&settings.data_dir), database(&settings).await];
    findings.extend(plans(&settings)?.into_iter().map(|(name, plan)| of_plan(&name, plan)));
    if settings.models.is_empty() {
        let detail = "none is configured; jobs would wait. Set CONCEPT_MODEL_PATH or use --model NAME=PATH";
        findings.push(Finding { what: "models".into(), ok: false, detail: detail.into() });
    }
    let all_ok = findings.iter().all(|finding| finding.ok);
    if global.json {
        // an address may hold a password
        settings.database.url = settings.database.url.map(|_| "set".into());
        settings.hub.token = settings.hub.token.map(|_| "set".into());
        print_json(&Findings { findings, settings })?;
    } else {
        for finding in &findings {
            println!("{} {:<18} {}", if finding.ok { "ok  " } else { "FAIL" }, finding.what, finding.detail);
        }
    }
    Ok(if all_ok { Exit::Done } else { Exit::Failed })
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

async fn database(settings: &Settings) -> Finding {
    let what = "database".to_string();
    let opened = Database::open(settings).await;
    match opened {
        Ok(database) => {
            let answer = database.store.ping().await;
            database.close().await;
            match answer {
                Ok(()) => Finding { what, ok: true, detail: "answers, schema is up to date".into() },
                Err(error) => Finding { what, ok: false, detail: error.to_string() },
            }
        }
        Err(error) => Finding { what, ok: false, detail: format!("{error:#}") },
    }
}
