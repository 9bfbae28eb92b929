//! `adit bench`: a whole workload against a running server, through the same door as any client, and
//! against any OpenAI-compatible server in turn.

pub mod ablation;
mod arrivals;
mod engine;
mod eta;
mod extraction;
mod figures;
mod ours;
mod peer;
mod report;
mod workload;

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::args::{BenchArguments, Global, Workload};
use super::exit::{Exit, Stop};
use super::output::{connect, print_json};
use crate::client::Client;
use crate::client::openai::OpenAi;
use crate::clock::Clock;
use crate::wire::submit::JobRequest;
use figures::Run;
use report::{Report, Side};
use workload::Shape;

/// Run numbers have five digits, so that every run's prompts are equally long.
const RUN_NUMBERS: std::ops::Range<u64> = 10_000..90_000;

pub async fn run(global: &Global, args: &BenchArguments) -> Result<Exit> {
    check(args)?;
    if args.engine_only {
        return engine::run(global, args).await;
    }
    let client = connect(global)?;
    let model = args.model.as_deref().unwrap_or("concept");
    let ready = client.wait(model, 600.0).await.context("adit's model")?;
    let peer = match &args.peer {
        Some(url) => {
            let timeout = Duration::from_secs_f64(args.peer_timeout);
            Some(OpenAi::connect(url, args.peer_model.as_deref(), timeout).await.context("the peer")?)
        }
        None => None,
    };
    let first_run = args.first_run.unwrap_or_else(number_from_the_clock);
    if args.workload == Workload::Eta {
        return eta::run(global, &client, args, first_run).await;
    }
    let before = ready.engine.unwrap_or_default();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for n in 0..=args.runs as u64 {
        let name = if n == 0 { "warm-up".to_string() } else { format!("run {n}") };
        let task = Task::of(args.workload, items(args), args.model.as_deref(), first_run + n);
        let one = task.ours(&client).await?;
        say(&name, "adit", &one);
        let other = match &peer {
            Some(peer) => {
                let run = task.theirs(peer, args.peer_concurrency).await?;
                say(&name, "peer", &run);
                Some(run)
            }
            None => None,
        };
        if n > 0 {
            ours.push(one);
            theirs.extend(other);
        }
    }
    let after = client.model(model).await?.engine.unwrap_or_default();
    let report = Report {
        workload: format!("{:?}", args.workload).to_lowercase(),
        items: items(args),
        first_run,
        adit: Side::new(client.base(), model, None, ours),
        peer: peer.map(|peer| Side::new(peer.base(), peer.model(), Some(args.peer_concurrency), theirs)),
        engine: report::worked(&before, after),
    };
    if global.is_json() {
        print_json(&report.to_json())?;
    } else {
        print!("{}", report.text());
    }
    Ok(if report.all_answered() { Exit::Done } else { Exit::NotAllSucceeded })
}

fn check(args: &BenchArguments) -> Result<()> {
    let wrong = |text: &str| Err(Stop::new(Exit::Usage, text).into());
    if args.items == Some(0) || args.runs == 0 || args.peer_concurrency == 0 {
        return wrong("--items, --runs and --peer-concurrency must be at least 1");
    }
    if !(args.peer_timeout > 0.0 && args.peer_timeout < 1e6) {
        return wrong("--peer-timeout must be above 0");
    }
    if !args.engine_only && args.workload.is_for_the_engine() {
        return wrong("w1 to w6 are for the engine by itself: --engine-only");
    }
    if args.peer.is_some() && args.workload.shape().is_none() {
        return wrong(
            "answers of attribute and custom are bounded in ways that only adit knows, and eta is about adit alone: compare head, long, tiny or mixed",
        );
    }
    Ok(())
}

fn number_from_the_clock() -> u64 {
    let seconds = Clock::default().now().timestamp().unsigned_abs();
    RUN_NUMBERS.start + seconds % (RUN_NUMBERS.end - RUN_NUMBERS.start)
}

fn items(args: &BenchArguments) -> usize {
    args.items.unwrap_or(args.workload.shape().map_or(256, Shape::default_items))
}

fn say(name: &str, side: &str, run: &Run) {
    let Run { wall_s, items, answered, valid, items_per_s, .. } = run;
    eprintln!(
        "{name:>8} {side}: {wall_s:.2} s, {items_per_s:.2} items/s, {valid} valid of {answered} answers to {items} items"
    );
}

impl Workload {
    fn shape(self) -> Option<Shape> {
        match self {
            Workload::Head => Some(Shape::Head),
            Workload::Long => Some(Shape::Long),
            Workload::Tiny => Some(Shape::Tiny),
            Workload::Mixed => Some(Shape::Mixed),
            _ => None,
        }
    }

    fn is_for_the_engine(self) -> bool {
        matches!(self, Self::W1 | Self::W2 | Self::W3 | Self::W4 | Self::W5 | Self::W6)
    }
}

/// One run's work, for whichever side.
enum Task {
    Messages(workload::Workload, Option<String>),
    Extraction(Box<JobRequest>),
}

impl Task {
    fn of(workload: Workload, n_items: usize, model: Option<&str>, run: u64) -> Self {
        match workload.shape() {
            Some(shape) => Task::Messages(workload::workload(shape, n_items, run), model.map(Into::into)),
            None if workload == Workload::Custom => {
                Task::Extraction(Box::new(extraction::custom(n_items, model)))
            }
            None => Task::Extraction(Box::new(extraction::attribute(n_items, model))),
        }
    }

    async fn ours(&self, client: &Client) -> Result<Run> {
        match self {
            Task::Messages(workload, model) => ours::measure(client, workload, model.as_deref()).await,
            Task::Extraction(request) => ours::measure_job(client, request).await,
        }
    }

    async fn theirs(&self, peer: &OpenAi, concurrency: usize) -> Result<Run> {
        match self {
            Task::Messages(workload, _) => peer::measure(peer, workload, concurrency).await,
            Task::Extraction(_) => bail!("a whole extraction task has no peer"),
        }
    }
}
