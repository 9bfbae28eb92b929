//! `adit ablation`: what each of the engine's levers gives, as a table.
//!
//! A server of its own for every setting, one after the other; a round goes over all settings before the
//! next begins, so that a machine that slows down slows all of them.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde::Serialize;

use super::super::args::{AblationArguments, Global, Workload};
use super::super::exit::{Exit, Stop};
use super::super::output::print_json;
use super::super::settings as overlay;
use super::figures::{Run, median};
use super::{Task, number_from_the_clock, report};
use crate::app::Server;
use crate::client::Client;
use crate::config::settings::{self, Auth, KvType, PromptLookup, Settings};
use crate::wire::model::Engine;

/// Items of the run that warms a fresh server up.
const WARM_UP_ITEMS: usize = 16;
/// A model that is not ready by then is not going to be.
const LOAD_TIMEOUT_S: f64 = 600.0;

/// A name, and what it changes in the engine's settings.
type Setting = (&'static str, fn(&mut settings::Engine));

/// The first is what the others are compared with.
const SETTINGS: [Setting; 12] = [
    ("all as configured", |_| {}),
    ("no jump_forward", |engine| engine.jump_forward = false),
    ("no prefix_cache", |engine| engine.prefix_cache = false),
    ("neither", |engine| (engine.jump_forward, engine.prefix_cache) = (false, false)),
    ("prompt_lookup off", |engine| engine.prompt_lookup = PromptLookup::Off),
    ("prompt_lookup on", |engine| engine.prompt_lookup = PromptLookup::On),
    ("neither, no lookup", |engine| {
        (engine.jump_forward, engine.prefix_cache) = (false, false);
        engine.prompt_lookup = PromptLookup::Off;
    }),
    ("kv_type f32", |engine| engine.kv_type = KvType::F32),
    ("max_sequences 1", |engine| engine.max_sequences = 1),
    ("max_sequences 8", |engine| engine.max_sequences = 8),
    ("max_sequences 16", |engine| engine.max_sequences = 16),
    ("max_sequences 32", |engine| engine.max_sequences = 32),
];

/// One line of the table.
#[derive(Debug, Serialize)]
struct Line {
    setting: &'static str,
    levers: String,
    items_per_s: f64,
    /// Of the first line's.
    share: f64,
    prompt_tokens_per_s: f64,
    output_tokens_per_s: f64,
    /// Of the last run: steps, and what they took.
    steps: u64,
    step_ms: f64,
    prefix_hit_share: f64,
    forced_share: f64,
    drafted_tokens: u64,
    accepted_tokens: u64,
    mask_share: f64,
}

pub async fn run(global: &Global, args: &AblationArguments) -> Result<Exit> {
    let settings = overlay::resolve(global, &args.serve)?;
    if args.items == 0 || args.runs == 0 || settings.models.is_empty() {
        let text = "--items and --runs must be at least 1, and a model is needed: --model concept=PATH";
        return Err(Stop::new(Exit::Usage, text).into());
    }
    if args.workload == Workload::Eta {
        return Err(Stop::new(Exit::Usage, "eta measures what is told of jobs, not how fast they are").into());
    }
    let wanted: Vec<Setting> = SETTINGS
        .into_iter()
        .enumerate()
        .filter(|(at, (name, _))| *at == 0 || args.only.as_ref().is_none_or(|only| name.contains(only)))
        .map(|(_, setting)| setting)
        .collect();
    let mut runs: Vec<Vec<(Run, Engine)>> = wanted.iter().map(|_| Vec::new()).collect();
    let mut number = number_from_the_clock();
    for round in 1..=args.runs {
        for (setting, found) in wanted.iter().zip(&mut runs) {
            let one = measure(&settings, args, setting, number).await.context(setting.0)?;
            eprintln!("round {round}, {}: {:.2} items/s", setting.0, one.0.items_per_s);
            found.push(one);
            number += 2;
        }
    }
    let all_answered = runs.iter().flatten().all(|(run, _)| run.answered == run.items);
    let lines = lines(&wanted, &runs);
    if global.is_json() {
        print_json(&lines)?;
    } else {
        print!("{}", text(&lines));
    }
    Ok(if all_answered { Exit::Done } else { Exit::NotAllSucceeded })
}

/// A server with the setting, a warm-up and a run.
async fn measure(
    settings: &Settings,
    args: &AblationArguments,
    (_, change): &Setting,
    number: u64,
) -> Result<(Run, Engine)> {
    let mut settings = settings.clone();
    change(&mut settings.engine);
    settings.http.listen = ([127, 0, 0, 1], 0).into();
    settings.http.auth = Auth::Off;
    let model = settings.models[0].name.clone();
    let server = Server::start(settings).await?;
    let client = Client::new(&format!("http://{}", server.address()))?;
    let measured = async {
        client.wait(&model, LOAD_TIMEOUT_S).await?;
        let task = |n_items, number| Task::of(args.workload, n_items, Some(&model), number);
        task(WARM_UP_ITEMS, number).ours(&client).await?;
        let before = client.model(&model).await?.engine.unwrap_or_default();
        let run = task(args.items, number + 1).ours(&client).await?;
        let after = client.model(&model).await?.engine.unwrap_or_default();
        Ok((run, report::worked(&before, after)))
    };
    let outcome = tokio::select! {
        outcome = measured => outcome,
        () = server.interrupted() => Err(Stop::new(Exit::Failed, "interrupted").into()),
    };
    server.stop().await;
    outcome
}

fn lines(settings: &[Setting], runs: &[Vec<(Run, Engine)>]) -> Vec<Line> {
    let figure =
        |runs: &[(Run, Engine)], of: fn(&Run) -> f64| median(runs.iter().map(|(run, _)| of(run)).collect());
    let first = runs.first().map_or(0.0, |runs| figure(runs, |run| run.items_per_s));
    let line = |(name, _): &Setting, runs: &Vec<(Run, Engine)>| {
        let engine = runs.last().map(|(_, engine)| engine.clone()).unwrap_or_default();
        let items_per_s = figure(runs, |run| run.items_per_s);
        Line {
            setting: name,
            levers: report::levers(&engine),
            items_per_s,
            share: if first > 0.0 { items_per_s / first } else { 0.0 },
            prompt_tokens_per_s: figure(runs, |run| run.prompt_tokens_per_s),
            output_tokens_per_s: figure(runs, |run| run.output_tokens_per_s),
            steps: engine.steps,
            step_ms: 1e3 * engine.step_s / engine.steps.max(1) as f64,
            prefix_hit_share: figure(runs, |run| run.prefix_hit_share),
            forced_share: figure(runs, |run| run.forced_share),
            drafted_tokens: engine.drafted_tokens,
            accepted_tokens: engine.accepted_tokens,
            mask_share: if engine.step_s > 0.0 { engine.mask_s / engine.step_s } else { 0.0 },
        }
    };
    settings.iter().zip(runs).map(|(setting, runs)| line(setting, runs)).collect()
}

fn text(lines: &[Line]) -> String {
    let heads = [
        "items/s",
        "of all",
        "in tok/s",
        "out tok/s",
        "steps",
        "ms/step",
        "hits %",
        "forced %",
        "kept/draft",
        "masks %",
    ];
    let mut out = format!("{:<20}", "setting");
    heads.iter().for_each(|head| {
        let _ = write!(out, "{head:>12}");
    });
    out.push('\n');
    for line in lines {
        let _ = writeln!(
            out,
            "{:<20}{:>12.2}{:>12.2}{:>12.0}{:>12.0}{:>12}{:>12.1}{:>12.1}{:>12.1}{:>12}{:>12.2}",
            line.setting,
            line.items_per_s,
            line.share,
            line.prompt_tokens_per_s,
            line.output_tokens_per_s,
            line.steps,
            line.step_ms,
            100.0 * line.prefix_hit_share,
            100.0 * line.forced_share,
            format!("{}/{}", line.accepted_tokens, line.drafted_tokens),
            100.0 * line.mask_share,
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_changes_what_it_says() {
        let default = settings::Engine::default();
        let mut seen = Vec::new();
        for (name, change) in SETTINGS {
            let mut engine = default.clone();
            change(&mut engine);
            assert!(!seen.contains(&engine), "{name} is another one's twin");
            seen.push(engine);
        }
        assert_eq!(seen[0], default);
        assert!(!seen[3].jump_forward && !seen[3].prefix_cache);
    }

    #[test]
    fn lines_are_medians_and_shares_of_the_first() {
        let run = |items_per_s| (Run { items_per_s, ..Run::default() }, Engine::default());
        let runs = [vec![run(10.0), run(30.0), run(20.0)], vec![run(5.0), run(6.0), run(4.0)]];
        let lines = lines(&SETTINGS[..2], &runs);
        assert_eq!((lines[0].items_per_s, lines[1].items_per_s), (20.0, 5.0));
        assert_eq!((lines[0].share, lines[1].share), (1.0, 0.25));
        assert!(text(&lines).contains("no jump_forward"));
    }
}
