//! From a row of logits to a token, and the small searches beside it: `cargo bench --bench sampling` prints medians.
#![allow(clippy::unwrap_used)]

use std::time::Instant;

use adit::engine::grammar::Choice;
use adit::engine::kv::PrefixHasher;
use adit::engine::lookup;
use adit::engine::request::Sampling;
use adit::engine::sampling::{branch, sample};
use toktrie::SimpleVob;

const CALLS: usize = 301;

/// Which tokens a mask lets through.
type Allowed = fn(usize) -> bool;

fn main() {
    println!("a token from a row of logits, us");
    println!(
        "{:>10} {:>24} {:>10} {:>10} {:>10}",
        "vocabulary", "allowed", "greedy", "top-p 0.9", "its share"
    );
    for vocab in [49_152, 151_936, 262_144] {
        let logits = numbers(vocab);
        let masks: [(&str, Allowed); 3] = [
            ("all but controls", |token| token > 17),
            ("one in 64", |token| token % 64 == 5),
            ("12 in a row", |token| (4_000..4_012).contains(&token)),
        ];
        for (name, is_allowed) in masks {
            let mut mask = SimpleVob::alloc(vocab);
            (0..vocab).filter(|token| is_allowed(*token)).for_each(|token| mask.allow_token(token as u32));
            let choice = Choice::Mask(mask);
            let nucleus = Sampling { temperature: 0.8, top_p: 0.9, ..Sampling::default() };
            let us = |sampling: &Sampling| {
                median_us(|at| {
                    std::hint::black_box(sample(&logits, Some(&choice), sampling, at as u64).unwrap());
                })
            };
            // how sure the model was, for the confidence
            let token = sample(&logits, Some(&choice), &Sampling::default(), 0).unwrap();
            let share = median_us(|at| {
                std::hint::black_box(branch(&logits, &choice, token, at as u32));
            });
            let (greedy, nucleus) = (us(&Sampling::default()), us(&nucleus));
            println!("{vocab:>10} {name:>24} {greedy:>10.1} {nucleus:>10.1} {share:>10.1}");
        }
    }
    println!("\nper sequence, us");
    println!("{:>10} {:>16} {:>24}", "tokens", "prefix hashes", "draft looked up");
    for n in [512, 2_048, 8_192] {
        // words that come again, as in a prompt that an answer copies from
        let tokens: Vec<u32> = numbers(n).iter().map(|x| (x.abs() * 300.0) as u32).collect();
        let hasher = PrefixHasher::default();
        let hashes = median_us(|_| {
            let mut hashes = Vec::new();
            hasher.extend(&mut hashes, None, &tokens, 16);
            std::hint::black_box(hashes);
        });
        let draft = median_us(|_| {
            std::hint::black_box(lookup::propose(&tokens, 8));
        });
        println!("{n:>10} {hashes:>16.1} {draft:>24.1}");
    }
}

/// Values in -10..10 from a counter.
fn numbers(n: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9u32;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state as f32 / u32::MAX as f32 - 0.5) * 20.0
    };
    (0..n).map(next).collect()
}

fn median_us(mut call: impl FnMut(usize)) -> f64 {
    let time = |at| {
        let started = Instant::now();
        call(at);
        started.elapsed().as_secs_f64() * 1e6
    };
    let mut times: Vec<f64> = (0..CALLS).map(time).collect();
    times.sort_by(f64::total_cmp);
    times[CALLS / 2]
}
