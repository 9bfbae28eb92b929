//! From a row of logits to a token.
//!
//! Depends on the row, the request and the position in the answer, on nothing else: the batch a sequence runs
//! in, and whether forced tokens were skipped, change no draw.

use toktrie::SimpleVob;

use super::grammar::Choice;
use super::request::{Branch, EngineError, Logprob, Sampling};
use crate::nn::cpu::exp_sum::exp_sum;

/// Logits this far below the best, in units of the temperature, are never drawn.
const NEGLIGIBLE: f32 = 30.0;

/// Chooses a token. `position` counts the answer's tokens, from 0. The first of equals wins.
pub fn sample(
    logits: &[f32],
    choice: Option<&Choice>,
    sampling: &Sampling,
    position: u64,
) -> Result<u32, EngineError> {
    let mask = match choice {
        Some(Choice::Only(token)) => return Ok(*token),
        Some(Choice::Mask(mask)) => Some(mask),
        None => None,
    };
    let (best, best_logit) = argmax(logits, mask)?;
    if sampling.temperature <= 0.0 {
        return Ok(best);
    }
    let floor = best_logit - NEGLIGIBLE * sampling.temperature;
    let mut candidates = Vec::new();
    for_each_allowed(logits, mask, |token, logit| {
        if logit >= floor {
            candidates.push((token, ((logit - best_logit) / sampling.temperature).exp()));
        }
    });
    candidates.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    Ok(draw(&cut(candidates, sampling), uniform(sampling.seed, position)))
}

/// Looks at 32 logits at a time, as wide as a word of the mask: a chunk whose best, allowed or not, does not
/// beat the best so far needs no closer look. Most chunks are such, and the fold over them is vector code.
fn argmax(logits: &[f32], mask: Option<&SimpleVob>) -> Result<(u32, f32), EngineError> {
    let mut best = (u32::MAX, f32::NEG_INFINITY);
    let mut is_sound = true;
    for (chunk_index, chunk) in logits.chunks(32).enumerate() {
        let allowed = match mask {
            Some(mask) => mask.as_slice().get(chunk_index).copied().unwrap_or(0),
            None => u32::MAX,
        };
        if allowed == 0 {
            continue;
        }
        let top = chunk.iter().fold(f32::NEG_INFINITY, |top, &logit| if logit > top { logit } else { top });
        let has_nan = chunk.iter().fold(false, |has_nan, logit| has_nan | logit.is_nan());
        if top <= best.1 && !has_nan {
            continue;
        }
        for (lane, &logit) in chunk.iter().enumerate().filter(|(lane, _)| allowed >> lane & 1 == 1) {
            is_sound &= !logit.is_nan();
            if logit > best.1 {
                best = ((chunk_index * 32 + lane) as u32, logit);
            }
        }
    }
    if !is_sound || !best.1.is_finite() {
        return Err(not_finite());
    }
    Ok(best)
}

pub fn not_finite() -> EngineError {
    EngineError::Device("the logits are not finite".into())
}

pub fn n_allowed(mask: &SimpleVob) -> u32 {
    mask.as_slice().iter().map(|word| word.count_ones()).sum()
}

/// Tokens in ascending order.
fn for_each_allowed(logits: &[f32], mask: Option<&SimpleVob>, mut take: impl FnMut(u32, f32)) {
    let Some(mask) = mask else {
        for (token, &logit) in logits.iter().enumerate() {
            take(token as u32, logit);
        }
        return;
    };
    for (word_index, &word) in mask.as_slice().iter().enumerate() {
        let mut word = word;
        while word != 0 {
            let token = word_index * 32 + word.trailing_zeros() as usize;
            word &= word - 1;
            if let Some(&logit) = logits.get(token) {
                take(token as u32, logit);
            }
        }
    }
}

/// What the row says of a token and of the `n_top` most probable ones. The first of equals goes first.
pub fn logprob(logits: &[f32], token: u32, n_top: usize) -> Logprob {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - best).exp()).sum();
    let log_sum = f64::from(best) + sum.ln();
    let of = |logit: f32| (f64::from(logit) - log_sum) as f32;
    let mut top: Vec<(u32, f32)> = Vec::with_capacity(n_top + 1);
    for (at, logit) in logits.iter().enumerate() {
        if n_top == 0 || (top.len() == n_top && *logit <= top[n_top - 1].1) {
            continue;
        }
        let place = top.partition_point(|(_, other)| other >= logit);
        top.insert(place, (at as u32, *logit));
        top.truncate(n_top);
    }
    Logprob {
        logprob: logits.get(token as usize).map_or(f32::NEG_INFINITY, |logit| of(*logit)),
        top: top.into_iter().map(|(token, logit)| (token, of(logit))).collect(),
    }
}

/// How sure the model was of `token`, the answer's `at`th, among those that `choice` allowed. `None`: it had no
/// choice.
pub fn branch(logits: &[f32], choice: &Choice, token: u32, at: u32) -> Option<Branch> {
    let Choice::Mask(mask) = choice else { return None };
    let n_allowed = n_allowed(mask);
    let own = *logits.get(token as usize)?;
    let (_, best) = argmax(logits, Some(mask)).ok()?;
    let logprob = own - best - exp_sum(logits, Some(mask.as_slice()), best).ln();
    // rounding may put a certain token a hair above certainty
    (n_allowed > 1).then_some(Branch { at, logprob: logprob.min(0.0), n_allowed })
}

/// top-k, then top-p of what is left, then min-p relative to the best. `candidates` descend; one stays.
fn cut(mut candidates: Vec<(u32, f32)>, sampling: &Sampling) -> Vec<(u32, f32)> {
    if sampling.top_k > 0 {
        candidates.truncate(sampling.top_k as usize);
    }
    if sampling.top_p < 1.0 {
        let total: f32 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut sum = 0.0;
        let kept = candidates.iter().take_while(|(_, weight)| {
            let is_within = sum < sampling.top_p * total;
            sum += weight;
            is_within
        });
        let n_kept = kept.count().max(1);
        candidates.truncate(n_kept);
    }
    // the best has weight 1
    candidates.retain(|(_, weight)| *weight >= sampling.min_p);
    candidates
}

/// `at` is from 0 to below 1.
fn draw(candidates: &[(u32, f32)], at: f64) -> u32 {
    let total: f64 = candidates.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let mut left = at * total;
    for (token, weight) in candidates {
        left -= f64::from(*weight);
        if left < 0.0 {
            return *token;
        }
    }
    candidates.last().map_or(0, |(token, _)| *token)
}

/// From 0 to below 1. SplitMix64 (Steele, Lea, Flood 2014) as a function of the position: no state to carry.
pub fn uniform(seed: u64, position: u64) -> f64 {
    let mut x = seed ^ position.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^= x >> 31;
    (x >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask_of(n: usize, tokens: &[u32]) -> Choice {
        let mut mask = SimpleVob::alloc(n);
        for &token in tokens {
            mask.allow_token(token);
        }
        Choice::Mask(mask)
    }

    #[test]
    fn greedy_takes_the_first_of_the_best_that_are_allowed() {
        let greedy = Sampling::default();
        let mut logits = vec![-1.0; 100];
        logits[40] = 2.0;
        logits[70] = 2.0;
        logits[5] = 1.0;
        assert_eq!(sample(&logits, None, &greedy, 0).unwrap(), 40);
        assert_eq!(sample(&logits, Some(&mask_of(100, &[5, 70, 71])), &greedy, 0).unwrap(), 70);
        assert_eq!(sample(&logits, Some(&mask_of(100, &[3, 2])), &greedy, 0).unwrap(), 2);
        assert_eq!(sample(&logits, Some(&Choice::Only(9)), &greedy, 0).unwrap(), 9);
        logits[41] = f32::NAN;
        assert!(sample(&logits, None, &greedy, 0).is_err());
        assert_eq!(sample(&logits, Some(&mask_of(100, &[40])), &greedy, 0).unwrap(), 40);
        assert!(sample(&logits, Some(&mask_of(100, &[])), &greedy, 0).is_err());
    }

    #[test]
    fn logprobs_are_the_models_own_and_sum_to_one() {
        let weights = [0.1_f32, 0.4, 0.2, 0.2, 0.1];
        let logits = weights.map(|weight| weight.ln() + 7.0);
        let all = logprob(&logits, 0, 5);
        assert!((all.logprob.exp() - 0.1).abs() < 1e-5);
        assert_eq!(all.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 2, 3, 0, 4]);
        let sum: f32 = all.top.iter().map(|(_, logprob)| logprob.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        assert_eq!(logprob(&logits, 4, 2).top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 2]);
        assert!(logprob(&logits, 4, 0).top.is_empty());
    }

    #[test]
    fn a_branch_is_weighed_against_what_was_allowed_beside_it() {
        let mut logits = vec![3.0_f32; 100];
        for (token, weight) in [(40, 0.6_f32), (70, 0.3), (5, 0.1)] {
            logits[token] = weight.ln() + 2.0;
        }
        let choice = mask_of(100, &[5, 40, 70]);
        for (token, share) in [(40, 0.6_f32), (70, 0.3), (5, 0.1)] {
            let branch = branch(&logits, &choice, token, 8).unwrap();
            assert_eq!((branch.at, branch.n_allowed), (8, 3));
            assert!((branch.logprob.exp() - share).abs() < 1e-5, "{branch:?} for {share}");
        }
        assert_eq!(branch(&logits, &mask_of(100, &[5]), 5, 0), None);
        assert_eq!(branch(&logits, &Choice::Only(5), 5, 0), None);
    }

    #[test]
    fn draws_follow_the_weights_and_the_cuts() {
        let logits = [0.5_f32.ln(), 0.3_f32.ln(), 0.15_f32.ln(), 0.05_f32.ln()];
        let share = |sampling: Sampling| {
            let mut counts = [0_u32; 4];
            for position in 0..20_000 {
                counts[sample(&logits, None, &sampling, position).unwrap() as usize] += 1;
            }
            counts.map(|count| f64::from(count) / 20_000.0)
        };
        let warm = Sampling { temperature: 1.0, seed: 4, ..Sampling::default() };
        for (found, expected) in share(warm.clone()).iter().zip([0.5, 0.3, 0.15, 0.05]) {
            assert!((found - expected).abs() < 0.02, "{found} for {expected}");
        }
        assert!((share(Sampling { top_k: 2, ..warm.clone() })[0] - 0.625).abs() < 0.02);
        assert_eq!(share(Sampling { top_p: 0.6, ..warm.clone() })[2], 0.0);
        assert_eq!(share(Sampling { min_p: 0.2, ..warm })[3], 0.0);
    }
}
