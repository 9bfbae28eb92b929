//! The sum behind a softmax over some of a row's logits.

use std::sync::OnceLock;

use super::LANES;
use super::isa::{Isa, dispatch};
use super::simd::Simd;

/// Logits that one word of a mask stands for.
const WORD: usize = 32;

/// Σ e^(logit − best) over the logits that are allowed. `allowed` has a bit for each logit, 32 to a word, lowest
/// first; what it does not reach is not allowed, and `None` allows all. `best` is at least as large as any that is
/// allowed, and finite.
pub fn exp_sum(logits: &[f32], allowed: Option<&[u32]>, best: f32) -> f32 {
    static ISA: OnceLock<Isa> = OnceLock::new();
    let mut sum = 0.0;
    // SAFETY: the set is one of this machine's, and the kernel reads slices only.
    unsafe { sum_of(*ISA.get_or_init(Isa::detect), logits, allowed, best, &mut sum) };
    sum
}

dispatch! {
    fn sum_of(logits: &[f32], allowed: Option<&[u32]>, best: f32, out: &mut f32) = kernel;
}

/// # Safety
/// The machine has `S`.
#[inline(always)]
unsafe fn kernel<S: Simd>(logits: &[f32], allowed: Option<&[u32]>, best: f32, out: &mut f32) {
    // SAFETY: vectors lie inside the padded word or a whole chunk of the slice.
    unsafe {
        let mut sums = [S::splat(0.0); WORD / LANES];
        for (index, chunk) in logits.chunks(WORD).enumerate() {
            let word = match allowed {
                Some(words) => words.get(index).copied().unwrap_or(0),
                None => u32::MAX,
            };
            if word == 0 {
                continue;
            }
            // e^-∞ is 0: what is not allowed, or not there, adds nothing
            let mut padded = [f32::NEG_INFINITY; WORD];
            let whole = if word == u32::MAX && chunk.len() == WORD {
                chunk.as_ptr()
            } else {
                for lane in 0..chunk.len() {
                    padded[lane] = if word >> lane & 1 == 1 { chunk[lane] } else { f32::NEG_INFINITY };
                }
                padded.as_ptr()
            };
            for half in 0..WORD / LANES {
                let x = S::sub(S::load(whole.add(half * LANES)), S::splat(best));
                sums[half] = S::add(sums[half], S::exp(x));
            }
        }
        *out = S::sum(S::add(sums[0], sums[1]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every instruction set agrees with f64 on ragged rows under dense, sparse, short and absent masks.
    #[test]
    fn sums_agree_with_the_plain_one() {
        let mut state = 7_u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        for n in [1_usize, 15, 31, 32, 33, 100, 4_097] {
            let logits: Vec<f32> = (0..n).map(|_| next() as f32 / (1 << 31) as f32 * 40.0 - 25.0).collect();
            let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let words = n.div_ceil(WORD);
            let dense: Vec<u32> = (0..words).map(|_| next() << 1 | next() | 1).collect();
            let sparse: Vec<u32> =
                (0..words).map(|at| if at % 3 == 0 { 1 << (next() % 32) } else { 0 }).collect();
            let short = dense[..words / 2].to_vec();
            let all = vec![u32::MAX; words];
            for allowed in [None, Some(&dense), Some(&sparse), Some(&short), Some(&all)] {
                let is_allowed = |at: usize| {
                    allowed.is_none_or(|words| {
                        words.get(at / WORD).is_some_and(|word| word >> (at % WORD) & 1 == 1)
                    })
                };
                let expected: f64 =
                    (0..n).filter(|at| is_allowed(*at)).map(|at| f64::from(logits[at] - best).exp()).sum();
                for isa in Isa::available() {
                    let mut sum = f32::NAN;
                    // SAFETY: the set is one of this machine's.
                    unsafe { sum_of(isa, &logits, allowed.map(Vec::as_slice), best, &mut sum) };
                    let error = (f64::from(sum) - expected).abs();
                    assert!(error <= 1e-5 * expected + 1e-9, "{isa:?} {n}: {sum} for {expected}");
                }
            }
        }
    }
}
