//! How far off the times are that the service tells: a mix of jobs comes in, what was told of each is compared with
//! when it ended.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::arrivals::{self, Arrival};
use super::figures::{median, percentile};
use crate::cli::args::{BenchArguments, Global};
use crate::cli::exit::{Exit, Stop};
use crate::cli::output::print_json;
use crate::client::Client;
use crate::clock::Clock;
use crate::domain::job::JobState;
use crate::wire::job::{Eta, Job, JobsQuery};

/// How often jobs are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Newest jobs of a look: all of the run.
const PAGE: u32 = 1_000;
/// Points of a job's life, from its submission to its end, at which what was told is judged.
const POINTS: [(&str, f64); 4] =
    [("first told", 0.0), ("at 25 %", 0.25), ("at 50 %", 0.5), ("at 75 %", 0.75)];

/// What was told of a job at a moment.
struct Told {
    /// Since its submission.
    at_s: f64,
    eta: Option<Eta>,
}

struct Followed {
    kind: &'static str,
    items: usize,
    submitted: Instant,
    told: Vec<Told>,
    /// From its submission to its end.
    took_s: Option<f64>,
}

/// What was told at one point of every job, against what came.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Errors {
    point: &'static str,
    /// Jobs of which an end was told, and those of which none could be.
    told: usize,
    unknown: usize,
    /// |told − true| / true.
    relative_median: f64,
    relative_p90: f64,
    seconds_median: f64,
    seconds_p90: f64,
    /// Median of (told − true) / true: below 0, ends were told too soon.
    bias: f64,
    /// Share of the jobs whose end lay within the bounds told.
    within: f64,
}

pub async fn run(global: &Global, client: &Client, args: &BenchArguments, seed: u64) -> Result<Exit> {
    if args.jobs == 0 || !(args.over > 0.0 && args.over < 1e6) {
        return Err(Stop::new(Exit::Usage, "--jobs and --over must be above 0").into());
    }
    eprintln!(" warm-up: a job of each kind");
    for arrival in arrivals::one_of_each(seed) {
        let job = client.submit(&arrival.request, None).await?;
        until_ended(client, job.id).await?;
    }
    let began = Instant::now();
    let jobs = follow(client, arrivals::mix(args.jobs, args.over, seed)).await?;
    let wall_s = began.elapsed().as_secs_f64();
    let errors: Vec<Errors> = POINTS.iter().map(|(name, at)| judge(name, *at, &jobs)).collect();
    let took: Vec<f64> = jobs.iter().filter_map(|job| job.took_s).collect();
    let longest = took.iter().copied().fold(0.0, f64::max);
    if global.is_json() {
        print_json(&json!({"workload": "eta", "seed": seed, "jobs": jobs.len(), "over_s": args.over,
            "wall_s": wall_s, "job_s_median": median(took), "job_s_max": longest, "errors": errors}))?;
    } else {
        print!("{}", text(&errors, seed, wall_s, median(took), longest));
    }
    Ok(Exit::Done)
}

async fn until_ended(client: &Client, id: Uuid) -> Result<()> {
    while !client.job(id).await?.state.is_final() {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

async fn follow(client: &Client, arrivals: Vec<Arrival>) -> Result<Vec<Followed>> {
    let began = Instant::now();
    let mut arrivals = arrivals.into_iter().peekable();
    let mut jobs: HashMap<Uuid, Followed> = HashMap::new();
    loop {
        while let Some(next) = arrivals.next_if(|next| began.elapsed().as_secs_f64() >= next.at_s) {
            let submitted = Instant::now();
            let job = client.submit(&next.request, None).await?;
            let mut followed =
                Followed { kind: next.kind, items: next.items, submitted, told: Vec::new(), took_s: None };
            note(&mut followed, &job);
            jobs.insert(job.id, followed);
        }
        let page = client.jobs(&JobsQuery { limit: Some(PAGE), ..JobsQuery::default() }).await?;
        for job in &page.jobs {
            let Some(followed) = jobs.get_mut(&job.id) else { continue };
            if followed.took_s.is_some() {
                continue;
            }
            match job.state {
                JobState::Queued | JobState::Running => note(followed, job),
                JobState::Completed => {
                    let ago =
                        job.finished_at.map_or(0.0, |at| (Clock::default().now() - at).as_seconds_f64());
                    let took_s = followed.submitted.elapsed().as_secs_f64() - ago.max(0.0);
                    followed.took_s = Some(took_s);
                    say(followed, took_s);
                }
                state => bail!("job {} ended {}", job.id, state.as_str()),
            }
        }
        if arrivals.peek().is_none() && jobs.values().all(|job| job.took_s.is_some()) {
            return Ok(jobs.into_values().collect());
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn note(followed: &mut Followed, job: &Job) {
    if !job.state.is_final() {
        followed.told.push(Told { at_s: followed.submitted.elapsed().as_secs_f64(), eta: job.eta.clone() });
    }
}

fn say(followed: &Followed, took_s: f64) {
    let first = followed.told.iter().find_map(|told| Some((told.at_s, told.eta.as_ref()?.seconds?)));
    let first = first.map_or("nothing was told".into(), |(at, s)| format!("told {:.1} s at first", at + s));
    eprintln!("{:>12} of {:>3}: {took_s:.1} s, {first}", followed.kind, followed.items);
}

/// What was told last before a point, or first at all if the point is the submission.
fn told_at(job: &Followed, share: f64) -> Option<(&Told, f64)> {
    let took_s = job.took_s?;
    let told = if share > 0.0 {
        job.told.iter().rev().find(|told| told.at_s <= share * took_s)
    } else {
        // the answer to the submission may be older than the service's view of its queue
        job.told.iter().find(|told| told.eta.is_some())
    };
    told.map(|told| (told, (took_s - told.at_s).max(0.001)))
}

fn judge(point: &'static str, share: f64, jobs: &[Followed]) -> Errors {
    let (mut relative, mut seconds, mut signed) = (Vec::new(), Vec::new(), Vec::new());
    let mut errors = Errors { point, ..Errors::default() };
    let mut within = 0;
    for (told, left_s) in jobs.iter().filter_map(|job| told_at(job, share)) {
        let Some(eta) = &told.eta else { continue };
        let Some(said) = eta.seconds else {
            errors.unknown += 1;
            continue;
        };
        errors.told += 1;
        relative.push((said - left_s).abs() / left_s);
        signed.push((said - left_s) / left_s);
        seconds.push((said - left_s).abs());
        within += usize::from(
            eta.low_s.is_some_and(|low| low <= left_s) && eta.high_s.is_some_and(|high| left_s <= high),
        );
    }
    errors.relative_p90 = percentile(&mut relative, 0.9);
    errors.seconds_p90 = percentile(&mut seconds, 0.9);
    errors.relative_median = median(relative);
    errors.seconds_median = median(seconds);
    errors.bias = median(signed);
    errors.within = within as f64 / errors.told.max(1) as f64;
    errors
}

fn text(errors: &[Errors], seed: u64, wall_s: f64, median_s: f64, longest_s: f64) -> String {
    let mut out = format!(
        "eta, seed {seed}: {wall_s:.0} s in all; jobs took {median_s:.1} s in the middle and {longest_s:.1} s at most\n\n\
         | | jobs told | unknown | error, median | p90 | seconds, median | p90 | bias | within bounds |\n\
         |---|---|---|---|---|---|---|---|---|\n"
    );
    for row in errors {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {:.0} % | {:.0} % | {:.1} | {:.1} | {:+.0} % | {:.0} % |",
            row.point,
            row.told,
            row.unknown,
            100.0 * row.relative_median,
            100.0 * row.relative_p90,
            row.seconds_median,
            row.seconds_p90,
            100.0 * row.bias,
            100.0 * row.within
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(took_s: f64, told: &[(f64, Option<f64>)]) -> Followed {
        let eta = |seconds: Option<f64>| Eta {
            seconds,
            low_s: seconds.map(|s| s * 0.8),
            high_s: seconds.map(|s| s * 1.2),
            ..Eta::default()
        };
        let told = told.iter().map(|(at_s, seconds)| Told { at_s: *at_s, eta: Some(eta(*seconds)) });
        Followed {
            kind: "lines",
            items: 1,
            submitted: Instant::now(),
            told: told.collect(),
            took_s: Some(took_s),
        }
    }

    #[test]
    fn what_was_told_is_held_against_what_came() {
        let jobs = [
            job(10.0, &[(0.0, Some(12.0)), (2.0, Some(8.0)), (6.0, Some(2.0))]),
            job(10.0, &[(0.0, Some(5.0)), (5.0, Some(5.0))]),
            job(10.0, &[(0.0, None)]),
        ];
        let first = judge("first", 0.0, &jobs);
        assert_eq!((first.told, first.unknown), (2, 1));
        assert!((first.relative_median - 0.35).abs() < 1e-9 && (first.bias + 0.15).abs() < 1e-9, "{first:?}");
        assert_eq!((first.within, first.seconds_p90), (0.5, 5.0));
        // at 75 %, of the first what it was told after 6 s, when 4 s were left
        let late = judge("late", 0.75, &jobs);
        assert!((late.relative_p90 - 0.5).abs() < 1e-9, "{late:?}");
    }
}
