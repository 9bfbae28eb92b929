//! What came back from one side of a benchmark, as figures: shares, rates, percentiles, medians, ratios.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use super::workload::Workload;

/// What became of one item.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The answer's text, or a short word for why there is none.
    pub answer: Result<String, String>,
    pub prompt_tokens: u64,
    /// Of those, what the prefix cache had.
    pub cached_tokens: u64,
    pub output_tokens: u64,
    /// Of those, tokens that the schema forced; 0 where the server does not say.
    pub forced_tokens: u64,
    pub latency_ms: f64,
}

/// One run of one side.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Run {
    pub wall_s: f64,
    pub items: usize,
    /// Items with an answer, whatever it says.
    pub answered: usize,
    /// Items whose answer is JSON that satisfies the item's schema.
    pub valid: usize,
    /// Items without an answer, by why.
    pub errors: BTreeMap<String, usize>,
    /// Answered items per second; an error is no item served.
    pub items_per_s: f64,
    pub valid_items_per_s: f64,
    pub prompt_tokens: u64,
    pub output_tokens: u64,
    pub prompt_tokens_per_s: f64,
    pub output_tokens_per_s: f64,
    /// Prompt tokens that came from the prefix cache, of all prompt tokens.
    pub prefix_hit_share: f64,
    /// Output tokens that were forced, of all output tokens.
    pub forced_share: f64,
    pub p50_latency_ms: f64,
    pub p99_latency_ms: f64,
}

/// A figure's name, and where it stands.
type Named = (&'static str, fn(&Run) -> f64);

/// The figures that sides are compared by.
pub const COMPARED: [Named; 6] = [
    ("items/s", |run| run.items_per_s),
    ("valid items/s", |run| run.valid_items_per_s),
    ("prompt tokens/s", |run| run.prompt_tokens_per_s),
    ("output tokens/s", |run| run.output_tokens_per_s),
    ("latency p50 ms", |run| run.p50_latency_ms),
    ("latency p99 ms", |run| run.p99_latency_ms),
];

/// Judges and sums one run of a workload. `ended` has one entry per item, in the workload's order.
pub fn judge(workload: &Workload, ended: &[Ended], wall_s: f64) -> Result<Run> {
    let validators = workload
        .schemas
        .iter()
        .map(|schema| jsonschema::validator_for(schema).context("the workload's own schema"))
        .collect::<Result<Vec<_>>>()?;
    let is_valid = |at: usize, text: &str| {
        let validator = workload.items.get(at).map(|item| &validators[item.schema]);
        let value: Option<Value> = serde_json::from_str(text).ok();
        validator.zip(value).is_some_and(|(validator, value)| validator.is_valid(&value))
    };
    Ok(sum(ended, wall_s, is_valid))
}

/// Sums one run, of which `is_valid` judges each answer by its item's place.
pub fn sum(ended: &[Ended], wall_s: f64, is_valid: impl Fn(usize, &str) -> bool) -> Run {
    let mut run = Run { wall_s, items: ended.len(), ..Run::default() };
    let (mut cached, mut forced) = (0, 0);
    let mut latencies = Vec::with_capacity(ended.len());
    for (at, one) in ended.iter().enumerate() {
        match &one.answer {
            Ok(text) => {
                run.answered += 1;
                run.valid += usize::from(is_valid(at, text));
                latencies.push(one.latency_ms);
            }
            Err(word) => *run.errors.entry(word.clone()).or_insert(0) += 1,
        }
        run.prompt_tokens += one.prompt_tokens;
        run.output_tokens += one.output_tokens;
        cached += one.cached_tokens;
        forced += one.forced_tokens;
    }
    run.items_per_s = run.answered as f64 / wall_s;
    run.valid_items_per_s = run.valid as f64 / wall_s;
    run.prompt_tokens_per_s = run.prompt_tokens as f64 / wall_s;
    run.output_tokens_per_s = run.output_tokens as f64 / wall_s;
    run.prefix_hit_share = share(cached, run.prompt_tokens);
    run.forced_share = share(forced, run.output_tokens);
    run.p50_latency_ms = percentile(&mut latencies, 0.50);
    run.p99_latency_ms = percentile(&mut latencies, 0.99);
    run
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The value that `at` of all values do not exceed (nearest rank); 0 of none.
pub fn percentile(values: &mut [f64], at: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (at * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Of an even number, the mean of the middle two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// Each compared figure's median over the runs.
pub fn medians(runs: &[Run]) -> BTreeMap<&'static str, f64> {
    COMPARED.iter().map(|(name, figure)| (*name, median(runs.iter().map(figure).collect()))).collect()
}

/// Ours over theirs, figure by figure; of latencies, less is better. `None`: theirs is 0.
pub fn ratios(
    ours: &BTreeMap<&'static str, f64>,
    theirs: &BTreeMap<&'static str, f64>,
) -> BTreeMap<&'static str, Option<f64>> {
    let ratio = |name: &&'static str| {
        let (ours, theirs) = (ours.get(name)?, theirs.get(name)?);
        (*theirs > 0.0).then(|| ours / theirs)
    };
    ours.keys().map(|name| (*name, ratio(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::workload::{Shape, workload};

    fn ended(answer: Result<&str, &str>, latency_ms: f64) -> Ended {
        Ended {
            answer: answer.map(Into::into).map_err(Into::into),
            prompt_tokens: 100,
            cached_tokens: 25,
            output_tokens: 10,
            forced_tokens: 4,
            latency_ms,
        }
    }

    #[test]
    fn answers_are_judged_and_errors_named() {
        let workload = workload(Shape::Tiny, 5, 1);
        let good = r#"{"intent":"order","product":"oak_shelf","urgent":false,"topic":"a crack"}"#;
        let ended = [
            ended(Ok(good), 10.0),
            ended(Ok(r#"{"intent":"steal","product":"oak_shelf","urgent":false,"topic":"a crack"}"#), 20.0),
            ended(Ok(r#"{"intent":"order","#), 30.0),
            ended(Err("status_500"), 99.0),
            ended(Ok(good), 40.0),
        ];
        let run = judge(&workload, &ended, 2.0).unwrap();
        assert_eq!((run.items, run.answered, run.valid), (5, 4, 2));
        assert_eq!(run.errors, BTreeMap::from([("status_500".to_string(), 1)]));
        assert_eq!((run.items_per_s, run.valid_items_per_s), (2.0, 1.0));
        assert_eq!((run.prompt_tokens_per_s, run.output_tokens_per_s), (250.0, 25.0));
        assert_eq!((run.prefix_hit_share, run.forced_share), (0.25, 0.4));
        assert_eq!((run.p50_latency_ms, run.p99_latency_ms), (20.0, 40.0), "errors have no latency");
    }

    #[test]
    fn medians_and_ratios() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        let with = |items_per_s| Run { items_per_s, ..Run::default() };
        let ours = medians(&[with(30.0), with(90.0), with(60.0)]);
        let theirs = medians(&[with(20.0), with(10.0), with(30.0)]);
        let ratios = ratios(&ours, &theirs);
        assert_eq!(ratios["items/s"], Some(3.0));
        assert_eq!(ratios["latency p50 ms"], None, "nothing is divided by 0");
    }
}
