//! `adit bench --engine-only`: the engine by itself, with random weights of a published model's shape: the real
//! scheduler, KV pool, prefix cache, grammar and choice of tokens, without queue, database and HTTP.

mod limit;
mod shape;
mod vocabulary;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;

use crate::cli::args::{BenchArguments, Global};
use crate::cli::exit::{Exit, Stop};
use crate::cli::output::{print, print_json};
use crate::config::settings;
use crate::engine::grammar::{self, Grammar};
use crate::engine::handle::{self, Handle};
use crate::engine::request::{AdapterId, Request, Sampling};
use crate::engine::stats::Stats;
use crate::models::device::{Ceilings, Place};
use crate::nn::model::LoadOptions;
use crate::nn::weights::adapter::Adapter;
use crate::nn::weights::random;
use limit::Limit;
use shape::Load;

/// Bytes of a string at which the grammar's keeper closes it: random weights would go on for ever.
const STRING_BYTES: u32 = 120;
const RANK: usize = 16;

#[derive(Debug, Serialize)]
struct Report {
    shape: &'static str,
    workload: String,
    device: String,
    weights: &'static str,
    tokenizer: &'static str,
    max_sequences: usize,
    max_step_tokens: usize,
    kv_tokens: usize,
    requests: usize,
    run: Figures,
    /// Of runs of the same load, in their order.
    runs_s: Vec<f64>,
    card: Option<Ceilings>,
    limit: Option<Limit>,
    /// Share of the limit, overlapped and apart, that was reached.
    of_overlapped: Option<f64>,
    of_apart: Option<f64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    wall_s: f64,
    items_per_s: f64,
    output_tokens_per_s: f64,
    prompt_tokens_per_s: f64,
    output_tokens: u64,
    forced_tokens: u64,
    prefix_hit_tokens: u64,
    steps: u64,
    rows: u64,
    step_ms: f64,
    /// The device's part of a step.
    device_ms: f64,
    /// Share of the wall time in which the device had nothing to do.
    host_share: f64,
    /// Sums of what the device waited for: masks and reading back, taking tokens in, and the rest (plans, batches).
    mask_s: f64,
    advance_s: f64,
    first_token_ms: Option<f64>,
    preemptions: u64,
}

pub async fn run(global: &Global, args: &BenchArguments) -> Result<Exit> {
    let usage = |text: &str| Stop::new(Exit::Usage, text);
    let mut load =
        Load::of(args.workload).ok_or_else(|| usage("--engine-only takes the workloads w1 to w6"))?;
    load.requests = args.items.unwrap_or(load.requests).max(1);
    let wanted = args.device.unwrap_or_default();
    let place = Place::find(wanted).map_err(|error| usage(&format!("{error}: {}", error.hint())))?;
    let card = place.ceilings().context("measuring the card")?;
    let mut engine = settings::Engine::default().resolved(place.is_card());
    engine.max_sequences = args.max_sequences.unwrap_or(engine.max_sequences.min(load.requests));
    engine.max_step_tokens = args.max_step_tokens.unwrap_or(engine.max_step_tokens);
    engine.prompt_lookup = settings::PromptLookup::Off;
    engine.max_queued = engine.max_queued.max(2 * load.requests);
    let longest = load.prompt_tokens + load.output_tokens;
    let options = LoadOptions {
        threads: engine.threads,
        block_tokens: engine.block_tokens,
        kv_tokens: (load.shared_tokens + (engine.max_sequences + 8) * (longest + engine.block_tokens))
            .max(4096),
        max_rows: engine.max_step_tokens,
        context_tokens: longest.next_multiple_of(engine.block_tokens),
        ..LoadOptions::default()
    };
    let begun = Instant::now();
    let config_json = args.shape.config();
    let loaded = place.random(&config_json, &options).context("the model")?;
    let config = loaded.config.clone();
    let kv_tokens = loaded.executor.n_blocks() * loaded.executor.block_tokens();
    eprintln!("{} on {place} in {:.1} s", args.shape.as_str(), begun.elapsed().as_secs_f64());
    let options = handle::Options { mask_threads: place.mask_threads(), ..handle::Options::new(&engine) };
    let handle = handle::spawn(loaded.executor, options);
    let mut adapters = Vec::new();
    for seed in 0..load.adapters {
        let config = config.clone();
        let made = tokio::task::spawn_blocking(move || Adapter::random(&config, RANK, 7 + seed as u64));
        adapters.push(handle.add_adapter(Arc::new(made.await??)).await?);
    }
    let grammar = load.schema.then(|| grammar(config.vocab, &engine)).transpose()?;
    let asked = Asked { load, vocab: config.vocab, adapters, grammar };
    // kernels are loaded, buffers grow, launches are recorded
    let warm = Load {
        requests: load.requests.min(engine.max_sequences),
        output_tokens: load.output_tokens.min(24),
        ..load
    };
    measure(&handle, &Asked { load: warm, ..asked.clone() }, 1).await?;
    let mut all = Vec::new();
    for number in 0..args.runs.max(1) {
        let figures = measure(&handle, &asked, 2 + number as u64).await?;
        eprintln!(
            "run {}: {:.2} s, {:.1} items/s, {:.0} output tokens/s, device idle {:.1} %",
            number + 1,
            figures.wall_s,
            figures.items_per_s,
            figures.output_tokens_per_s,
            100.0 * figures.host_share
        );
        all.push(figures);
    }
    handle.close().await;
    let runs_s = all.iter().map(|figures| figures.wall_s).collect();
    all.sort_by(|a, b| a.wall_s.total_cmp(&b.wall_s));
    let run = all[all.len() / 2];
    let sampled = run.output_tokens - run.forced_tokens;
    let limit = card.map(|card| limit::limit(&config, &load, sampled, engine.max_sequences, &card));
    let report = Report {
        shape: args.shape.as_str(),
        workload: format!("{:?}", args.workload).to_lowercase(),
        device: place.name(),
        weights: "random",
        tokenizer: if load.schema { "synthetic" } else { "none" },
        max_sequences: engine.max_sequences,
        max_step_tokens: engine.max_step_tokens,
        kv_tokens,
        requests: load.requests,
        run,
        runs_s,
        card,
        limit,
        of_overlapped: limit.map(|limit| limit.overlapped_s / run.wall_s),
        of_apart: limit.map(|limit| limit.apart_s / run.wall_s),
    };
    if global.is_json() {
        print_json(&report)?;
    } else {
        print(text(&report))?;
    }
    Ok(Exit::Done)
}

#[derive(Clone)]
struct Asked {
    load: Load,
    vocab: usize,
    adapters: Vec<AdapterId>,
    grammar: Option<Grammar>,
}

/// A schema of the service's own kind: enums, a flag and two texts.
fn grammar(vocab: usize, engine: &settings::Engine) -> Result<Grammar> {
    let schema = json!({
        "type": "object",
        "properties": {
            "category": {"enum": ["delivery_delay", "damaged_goods", "wrong_item", "billing_question", "praise"]},
            "severity": {"enum": ["low", "normal", "high", "critical"]},
            "product": {"enum": ["desk_lamp", "oak_shelf", "bread_maker", "rain_jacket", "garden_hose"]},
            "refund_asked_for": {"type": "boolean"},
            "summary": {"type": "string"},
            "suggested_reply": {"type": "string"},
        },
        "required": ["category", "severity", "product", "refund_asked_for", "summary", "suggested_reply"],
        "additionalProperties": false,
    });
    let text = schema.to_string();
    let words: Vec<&str> =
        text.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| word.len() > 1).collect();
    let env = vocabulary::vocabulary(vocab, &words);
    let compiler = grammar::Compiler::new(env, grammar::Options::new(engine));
    Ok(compiler.compile(&schema, Some(STRING_BYTES))?)
}

/// One run of a load; prompts depend on the run's number.
async fn measure(handle: &Handle, asked: &Asked, number: u64) -> Result<Figures> {
    let Load { requests, prompt_tokens, shared_tokens, output_tokens, .. } = asked.load;
    let mut values = random::Values::new(number);
    // ordinary tokens: neither bytes nor what ends an answer
    let mut tokens = |n: usize| -> Vec<u32> {
        let span = (asked.vocab - 512) as f32 / 2.0;
        values.take(n, span).map(|value| (value + span) as u32 + 256).collect()
    };
    let shared = tokens(shared_tokens);
    let request = |at: usize, own: Vec<u32>| Request {
        prompt: shared.iter().copied().chain(own).collect(),
        adapter: asked.adapters.get(at % asked.adapters.len().max(1)).copied(),
        grammar: asked.grammar.clone(),
        sampling: Sampling::default(),
        max_tokens: output_tokens as u32,
        stop: Arc::from([]),
        priority: 0,
        group: 1,
        logprobs: None,
        branches: false,
    };
    let all: Vec<Request> =
        (0..requests).map(|at| request(at, tokens(prompt_tokens - shared_tokens))).collect();
    let first_token_ms = match requests {
        1 => {
            let one = Request { max_tokens: 1, ..request(0, tokens(prompt_tokens - shared_tokens)) };
            let begun = Instant::now();
            handle.generate(one).await?;
            Some(begun.elapsed().as_secs_f64() * 1e3)
        }
        _ => None,
    };
    let (before, begun) = (handle.stats(), Instant::now());
    let answers = futures::future::join_all(all.into_iter().map(|request| handle.generate(request))).await;
    let wall_s = begun.elapsed().as_secs_f64();
    for answer in answers {
        answer?;
    }
    Ok(figures(&before, &settled(handle).await, requests, wall_s, first_token_ms))
}

/// The engine publishes its counters before it sleeps, a moment after the last answer.
async fn settled(handle: &Handle) -> Stats {
    let mut seen = handle.stats();
    for _ in 0..100 {
        if seen.running == 0 && seen.queued == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        seen = handle.stats();
    }
    seen
}

fn figures(
    before: &Stats,
    after: &Stats,
    requests: usize,
    wall_s: f64,
    first_token_ms: Option<f64>,
) -> Figures {
    let steps = after.steps - before.steps;
    let per_step = |sum: f64| sum / steps.max(1) as f64;
    let device_ms = after.forward_ms_sum - before.forward_ms_sum;
    let output_tokens = after.output_tokens - before.output_tokens;
    Figures {
        wall_s,
        items_per_s: requests as f64 / wall_s,
        output_tokens_per_s: output_tokens as f64 / wall_s,
        prompt_tokens_per_s: (after.prompt_tokens - before.prompt_tokens) as f64 / wall_s,
        output_tokens,
        forced_tokens: after.forced_tokens - before.forced_tokens,
        prefix_hit_tokens: after.prefix_hit_tokens - before.prefix_hit_tokens,
        steps,
        rows: after.rows - before.rows,
        step_ms: per_step(after.step_ms_sum - before.step_ms_sum),
        device_ms: per_step(device_ms),
        host_share: (1.0 - device_ms / 1e3 / wall_s).max(0.0),
        mask_s: (after.mask_ms_sum - before.mask_ms_sum) / 1e3,
        advance_s: (after.advance_ms_sum - before.advance_ms_sum) / 1e3,
        first_token_ms,
        preemptions: after.preemptions - before.preemptions,
    }
}

fn text(report: &Report) -> String {
    let run = &report.run;
    let mut lines = vec![
        format!(
            "{} {} on {}: {} requests, {} at once, {} tokens a step, KV for {} tokens; random weights, {} tokenizer",
            report.shape,
            report.workload,
            report.device,
            report.requests,
            report.max_sequences,
            report.max_step_tokens,
            report.kv_tokens,
            report.tokenizer
        ),
        format!(
            "{:>10.2} s     {:>9.1} items/s {:>9.0} output tokens/s {:>9.0} prompt tokens/s",
            run.wall_s, run.items_per_s, run.output_tokens_per_s, run.prompt_tokens_per_s
        ),
        format!(
            "{:>10} steps {:>9.2} ms a step, {:.2} ms on the device; device idle {:.1} % (masks {:.2} s, tokens taken in {:.2} s)",
            run.steps,
            run.step_ms,
            run.device_ms,
            100.0 * run.host_share,
            run.mask_s,
            run.advance_s
        ),
        format!(
            "{:>10} rows; of {} output tokens {} forced; {} prompt tokens from the cache; {} preemptions",
            run.rows, run.output_tokens, run.forced_tokens, run.prefix_hit_tokens, run.preemptions
        ),
    ];
    if let Some(ms) = run.first_token_ms {
        lines.push(format!("{ms:>10.1} ms to the first token"));
    }
    if let (Some(card), Some(limit)) = (&report.card, &report.limit) {
        lines.push(format!(
            "{:>10.0} GB/s and {:.0} TFLOP/s measured; {:.2} TB and {:.1} TFLOP must be: {:.2} s overlapped, {:.2} s apart: {:.0} % and {:.0} % of the limit",
            card.gb_s,
            card.product_tflop_s,
            limit.tb,
            limit.tflop,
            limit.overlapped_s,
            limit.apart_s,
            100.0 * report.of_overlapped.unwrap_or_default(),
            100.0 * report.of_apart.unwrap_or_default()
        ));
    }
    lines.join("\n") + "\n"
}
