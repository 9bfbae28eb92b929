//! Choosing tokens against the CPU's choice.

use adit::engine::grammar::Choice;
use adit::engine::request::Sampling;
use adit::engine::sampling;
use adit::nn::cuda::card::{Buffer, Card};
use adit::nn::cuda::sample::{Best, Draw, Masks, NONE, argmax, draw, log_share, weigh};
use toktrie::SimpleVob;

use super::{card, values};

struct Rows {
    logits: Vec<f32>,
    vocab: usize,
    masks: Vec<SimpleVob>,
    mask_of: Vec<u32>,
}

impl Rows {
    /// Rows with all kinds of masks: none, few tokens, most tokens, one at the very end.
    fn new(n: usize, vocab: usize, spread: f32) -> Self {
        let logits = values(7, n * vocab).into_iter().map(|v| v * spread).collect();
        let mask = |allow: &dyn Fn(usize) -> bool| {
            let mut mask = SimpleVob::alloc(vocab);
            (0..vocab).filter(|t| allow(*t)).for_each(|t| mask.allow_token(t as u32));
            mask
        };
        let masks = vec![
            mask(&|t| t % 1000 == 17),
            mask(&|t| t % 97 != 0),
            mask(&|t| t == vocab - 1),
            mask(&|t| (t / 32) % 5 == 2),
        ];
        let mask_of = (0..n as u32).map(|row| if row % 5 == 0 { NONE } else { row % 5 - 1 }).collect();
        Self { logits, vocab, masks, mask_of }
    }

    fn row(&self, row: usize) -> (&[f32], Option<Choice>) {
        let mask = self.mask_of[row];
        let choice = (mask != NONE).then(|| Choice::Mask(self.masks[mask as usize].clone()));
        (&self.logits[row * self.vocab..][..self.vocab], choice)
    }

    fn words(&self) -> usize {
        self.vocab.div_ceil(32)
    }
}

struct OnCard {
    logits: Buffer<f32>,
    masks: Buffer<u32>,
    mask_of: Buffer<u32>,
    best: Buffer<u64>,
}

fn run_argmax(card: &Card, rows: &Rows) -> OnCard {
    let words: Vec<u32> =
        rows.masks.iter().flat_map(|mask| mask.as_slice()[..rows.words()].to_vec()).collect();
    let mut on = OnCard {
        logits: card.upload(&rows.logits, "test").unwrap(),
        masks: card.upload(&words, "test").unwrap(),
        mask_of: card.upload(&rows.mask_of, "test").unwrap(),
        best: card.zeroed(rows.mask_of.len(), "test").unwrap(),
    };
    let masks = Masks { masks: on.masks.all(), words: rows.words(), of_row: on.mask_of.all() };
    argmax(card, on.logits.all(), rows.vocab, &masks, &on.best.all_mut()).unwrap();
    on
}

#[test]
fn argmax_takes_the_first_of_the_best_allowed() {
    let Some(card) = card() else { return };
    for vocab in [151_936, 152_064, 1003, 40] {
        let mut rows = Rows::new(11, vocab, 8.0);
        // equals, far apart and near each other; the better ones are forbidden in some rows
        for row in 0..11 {
            for token in [vocab - 1, vocab / 2, vocab / 2 + 1, 17, 3] {
                rows.logits[row * vocab + token] = 9.0;
            }
        }
        rows.logits[5 * vocab + 20] = f32::NAN;
        rows.logits[10 * vocab + 21] = f32::INFINITY;
        let on = run_argmax(&card, &rows);
        let found = card.read(&on.best, 11).unwrap();
        for (row, word) in found.into_iter().enumerate() {
            let (logits, choice) = rows.row(row);
            let want = sampling::sample(logits, choice.as_ref(), &Sampling::default(), 0).ok();
            let got = match Best::decode(word) {
                Best::Token { token, logit } => {
                    assert_eq!(logit, logits[token as usize]);
                    Some(token)
                }
                Best::NotFinite => None,
            };
            assert_eq!(got, want, "row {row} of {vocab}");
        }
    }
}

/// Of the rows that ask, in any order; rounding alone sets it apart from the CPU's.
#[test]
fn shares_agree_with_the_cpu() {
    let Some(card) = card() else { return };
    for vocab in [152_064, 1003, 40] {
        let rows = Rows::new(11, vocab, 8.0);
        let on = run_argmax(&card, &rows);
        let masks = Masks { masks: on.masks.all(), words: rows.words(), of_row: on.mask_of.all() };
        let asked = [9u32, 0, 4, 5, 10];
        let mut sums = card.zeroed::<u64>(asked.len(), "test").unwrap();
        let on_card = card.upload(&asked, "test").unwrap();
        weigh(&card, on.logits.all(), vocab, &masks, on_card.all(), on.best.all(), &sums.all_mut()).unwrap();
        let (sums, best) = (card.read(&sums, asked.len()).unwrap(), card.read(&on.best, 11).unwrap());
        for (row, sum) in asked.into_iter().zip(sums) {
            let (logits, choice) = rows.row(row as usize);
            let Best::Token { token, .. } = Best::decode(best[row as usize]) else { continue };
            let want = match &choice {
                Some(choice) => {
                    sampling::branch(logits, choice, token, 0).map_or(0.0, |branch| branch.logprob)
                }
                None => sampling::logprob(logits, token, 0).logprob,
            };
            let got = log_share(sum);
            assert!((got - want).abs() < 1e-4, "row {row} of {vocab}: {got} for {want}");
        }
    }
}

/// Draws agree with the CPU's but where `at` falls between two tokens' shares as f32 exponentials differ.
#[test]
fn draws_agree_with_the_cpu() {
    let Some(card) = card() else { return };
    let vocab = 5003;
    let rows = Rows::new(10, vocab, 6.0);
    let on = run_argmax(&card, &rows);
    let plain = Sampling { temperature: 1.0, seed: 3, ..Sampling::default() };
    let cases = [
        plain.clone(),
        Sampling { temperature: 0.3, ..plain.clone() },
        Sampling { top_k: 1, ..plain.clone() },
        Sampling { top_k: 40, ..plain.clone() },
        Sampling { top_p: 0.9, ..plain.clone() },
        Sampling { min_p: 0.1, ..plain.clone() },
        Sampling { top_k: 500, top_p: 0.7, min_p: 0.01, temperature: 2.0, ..plain.clone() },
        Sampling { temperature: 0.0, ..plain },
    ];
    for case in cases {
        const N: usize = 60;
        let positions = |row: usize| (0..N).map(move |n| (row, n as u64));
        let all: Vec<(usize, u64)> = (0..10).flat_map(positions).collect();
        let draws: Vec<Draw> = all
            .iter()
            .map(|(row, position)| Draw {
                row: *row as u32,
                mask: rows.mask_of[*row],
                temperature: case.temperature,
                top_p: case.top_p,
                min_p: case.min_p,
                top_k: case.top_k,
                at: sampling::uniform(case.seed, *position),
            })
            .collect();
        let on_draws = card.upload(&draws, "test").unwrap();
        let mut tokens = card.zeroed::<u32>(draws.len(), "test").unwrap();
        let masks = Masks { masks: on.masks.all(), words: rows.words(), of_row: on.mask_of.all() };
        draw(&card, on.logits.all(), vocab, &masks, on_draws.all(), on.best.all(), &tokens.all_mut())
            .unwrap();
        let got = card.read(&tokens, draws.len()).unwrap();
        let mut differ = 0;
        for ((row, position), got) in all.iter().zip(&got) {
            let (logits, choice) = rows.row(*row);
            let want = sampling::sample(logits, choice.as_ref(), &case, *position).unwrap();
            differ += usize::from(want != *got);
            if let Some(Choice::Mask(mask)) = &choice {
                assert!(mask.is_allowed(*got), "{case:?}: token {got} of row {row} is not allowed");
            }
        }
        assert!(differ <= 3, "{case:?}: {differ} of {} draws differ", all.len());
    }
}

/// Many equals: which of them is drawn goes by their order.
#[test]
fn draws_among_equals_go_by_token() {
    let Some(card) = card() else { return };
    let vocab = 2048;
    let logits = card.upload(&vec![1.5f32; vocab], "test").unwrap();
    let mut best = card.zeroed::<u64>(1, "test").unwrap();
    let masks_buffer = card.upload(&vec![u32::MAX; vocab / 32], "test").unwrap();
    let of_row = card.upload(&[NONE], "test").unwrap();
    let masks = Masks { masks: masks_buffer.all(), words: vocab / 32, of_row: of_row.all() };
    argmax(&card, logits.all(), vocab, &masks, &best.all_mut()).unwrap();
    let ats: Vec<f64> = (0..64).map(|i| (f64::from(i) + 0.5) / 64.0).collect();
    let draws: Vec<Draw> = ats
        .iter()
        .map(|at| Draw { mask: NONE, temperature: 0.7, top_p: 1.0, at: *at, ..Draw::default() })
        .collect();
    let on_draws = card.upload(&draws, "test").unwrap();
    let mut tokens = card.zeroed::<u32>(64, "test").unwrap();
    draw(&card, logits.all(), vocab, &masks, on_draws.all(), best.all(), &tokens.all_mut()).unwrap();
    let got = card.read(&tokens, 64).unwrap();
    let want: Vec<u32> = ats.iter().map(|at| (at * vocab as f64) as u32).collect();
    assert_eq!(got, want);
}
