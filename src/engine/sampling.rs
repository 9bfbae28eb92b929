//! From a row of logits to a token.
//!
//! Depends on the row, the request and the position in the answer, on nothing else: the batch a sequence runs
//! in, and whether forced tokens were skipped, change no draw.

use toktrie::SimpleVob;

use super::grammar::Choice;
use super::request::{EngineError, Sampling};

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

fn argmax(logits: &[f32], mask: Option<&SimpleVob>) -> Result<(u32, f32), EngineError> {
    let mut best = (u32::MAX, f32::NEG_INFINITY);
    let mut is_sound = true;
    for_each_allowed(logits, mask, |token, logit| {
        is_sound &= !logit.is_nan();
        if logit > best.1 {
            best = (token, logit);
        }
    });
    if !is_sound || !best.1.is_finite() {
        return Err(EngineError::Device("the logits are not finite".into()));
    }
    Ok(best)
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

/// SplitMix64 (Steele, Lea, Flood 2014) as a function of the position: no state to carry.
fn uniform(seed: u64, position: u64) -> f64 {
    let mut x = seed ^ position.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^= x >> 31;
    (x >> 11) as f64 / (1_u64 << 53) as f64
}
