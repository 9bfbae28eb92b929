//! `GET /v1/jobs/{id}/throughput`: how fast a job went, from its beginning on.

use axum::Json;
use axum::extract::State as Shared;
use chrono::{DateTime, TimeDelta, Utc};

use crate::api::body::{JobPath, Params};
use crate::api::problem::ApiError;
use crate::api::state::State;
use crate::domain::code::Code;
use crate::store::history::Stretch;
use crate::wire::job::{Rates, ThroughputHistory, ThroughputQuery};

const DEFAULT_INTERVALS: u32 = 60;
const MAX_INTERVALS: u32 = 1_000;

/// Read how fast a job went, interval by interval.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/throughput", tag = "jobs",
    params(("id" = uuid::Uuid, Path, description = "The job."), ThroughputQuery),
    responses((status = 200, description = "Rates, from the first claim to the end or to now.", body = ThroughputHistory)),
)]
pub async fn job_throughput(
    Shared(state): Shared<State>,
    JobPath(id): JobPath,
    Params(query): Params<ThroughputQuery>,
) -> Result<Json<ThroughputHistory>, ApiError> {
    let intervals = query.intervals.unwrap_or(DEFAULT_INTERVALS);
    if !(1..=MAX_INTERVALS).contains(&intervals) {
        let detail = format!("intervals {intervals} is not from 1 to {MAX_INTERVALS}");
        return Err(ApiError::new(Code::InvalidRequest, detail));
    }
    let job = state.store.job(id).await?.ok_or_else(|| ApiError::job_not_found(id))?;
    let Some(from) = job.started_at else { return Ok(Json(unbegun())) };
    let until = job.finished_at.unwrap_or_else(|| state.clock.now());
    Ok(Json(history(from, until, intervals, &state.store.stretches(id).await?)))
}

fn unbegun() -> ThroughputHistory {
    ThroughputHistory { from: None, until: None, interval_s: 0.0, intervals: Vec::new() }
}

/// Cuts `from` to `until` into intervals and gives each its part of every stretch. What lies outside, because the
/// clocks of the database and of this process differ, goes to the nearest interval.
fn history(
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    intervals: u32,
    stretches: &[Stretch],
) -> ThroughputHistory {
    let until = until.max(from + TimeDelta::milliseconds(1));
    let interval_s = (until - from).as_seconds_f64() / f64::from(intervals);
    let mut rates = vec![Rates::default(); intervals as usize];
    let last = f64::from(intervals - 1);
    for stretch in stretches {
        // in intervals since the beginning
        let place =
            |at: DateTime<Utc>| ((at - from).as_seconds_f64() / interval_s).clamp(0.0, f64::from(intervals));
        let (lo, hi) = (place(stretch.from), place(stretch.until));
        let (first, end) = (lo.floor().min(last) as usize, hi.ceil().min(last + 1.0) as usize);
        for (at, rate) in rates.iter_mut().enumerate().take(end.max(first + 1)).skip(first) {
            let within = hi.min(at as f64 + 1.0) - lo.max(at as f64);
            let share = if hi > lo { within / (hi - lo) } else { 1.0 } / interval_s;
            rate.items_per_s += stretch.items * share;
            rate.prompt_tokens_per_s += stretch.prompt_tokens * share;
            rate.output_tokens_per_s += stretch.output_tokens * share;
        }
    }
    ThroughputHistory { from: Some(from), until: Some(until), interval_s, intervals: rates }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(s, 0).unwrap()
    }

    fn stretch(from: i64, until: i64, items: f64) -> Stretch {
        Stretch {
            from: at(from),
            until: at(until),
            items,
            prompt_tokens: 10.0 * items,
            output_tokens: 2.0 * items,
        }
    }

    #[test]
    fn stretches_are_spread_over_the_intervals_they_touch() {
        let seen = history(at(100), at(140), 4, &[stretch(105, 125, 20.0), stretch(130, 140, 5.0)]);
        let rates: Vec<f64> = seen.intervals.iter().map(|rate| rate.items_per_s).collect();
        assert_eq!((seen.interval_s, rates), (10.0, vec![0.5, 1.0, 0.5, 0.5]));
        assert_eq!(seen.intervals[1].prompt_tokens_per_s, 10.0);
    }

    #[test]
    fn nothing_is_lost_whatever_the_clocks_say() {
        for stretches in [
            vec![stretch(90, 95, 3.0)],
            vec![stretch(139, 200, 7.0), stretch(200, 300, 1.0)],
            vec![stretch(100, 140, 4.0), stretch(120, 120, 2.0)],
        ] {
            let seen = history(at(100), at(140), 7, &stretches);
            let items: f64 = seen.intervals.iter().map(|rate| rate.items_per_s * seen.interval_s).sum();
            let wanted: f64 = stretches.iter().map(|stretch| stretch.items).sum();
            assert!((items - wanted).abs() < 1e-9, "{items} of {wanted}");
        }
        // a job that has just begun
        assert!(history(at(100), at(100), 60, &[stretch(100, 101, 1.0)]).interval_s > 0.0);
    }
}
