//! Tokens chosen where the logits are: masks go up while the step runs, and only tokens come back.

use super::Model;
use crate::nn::Error;
use crate::nn::choice::{Answer, Ask};
use crate::nn::cuda::Element;
use crate::nn::cuda::card::{Buffer, Card, Pinned};
use crate::nn::cuda::sample::{Best, Masks, NONE, argmax, log_share, weigh};

/// What goes up and what comes back. All of it grows to the largest request.
pub(super) struct Choices {
    /// Mask of each row, rows that are weighed, masks.
    up: Pinned<u32>,
    on_card: Buffer<u32>,
    best: Buffer<u64>,
    sums: Buffer<u64>,
    best_down: Pinned<u64>,
    sums_down: Pinned<u64>,
}

impl Choices {
    pub fn new(card: &Card) -> Result<Self, Error> {
        Ok(Self {
            up: card.pinned(0)?,
            on_card: card.zeroed(0, "masks")?,
            best: card.zeroed(0, "masks")?,
            sums: card.zeroed(0, "masks")?,
            best_down: card.pinned(0)?,
            sums_down: card.pinned(0)?,
        })
    }

    pub fn bytes(&self) -> u64 {
        self.on_card.bytes() + self.best.bytes() + self.sums.bytes()
    }

    fn reserve(&mut self, card: &Card, rows: usize, words: usize) -> Result<(), Error> {
        if self.up.len() < words {
            let n = words.next_power_of_two();
            (self.up, self.on_card) = (card.pinned(n)?, card.zeroed(n, "masks")?);
            // what goes up beside the stream does not wait for its allocations and zeros
            card.wait()?;
        }
        if self.best.len() < rows || self.best_down.len() < rows {
            let n = rows.next_power_of_two();
            (self.best, self.best_down) = (card.zeroed(n, "masks")?, card.pinned(n)?);
            (self.sums, self.sums_down) = (card.zeroed(n, "masks")?, card.pinned(n)?);
        }
        Ok(())
    }
}

impl<T: Element> Model<T> {
    /// Answers to the rows of logits of the step that was begun, one for each, and the milliseconds that the card
    /// spent on the step. Waits for it.
    pub fn choose(&mut self, asks: &[Ask]) -> Result<(Vec<Answer<'_>>, f32), Error> {
        assert_eq!(asks.len(), self.n_logits, "every row of logits is asked");
        let vocab = self.config.vocab;
        let (n, words) = (asks.len(), vocab.div_ceil(32));
        let mut masks: Vec<&[u32]> = Vec::new();
        let (mut of_row, mut weighed) = (Vec::with_capacity(n), Vec::new());
        for (row, ask) in asks.iter().enumerate() {
            let mask = match ask {
                Ask::Best { allowed: Some(allowed), .. } => {
                    masks.push(&allowed[..allowed.len().min(words)]);
                    masks.len() as u32 - 1
                }
                Ask::Best { allowed: None, .. } | Ask::Logits => NONE,
            };
            of_row.push(mask);
            if matches!(ask, Ask::Best { weighs: true, .. }) {
                weighed.push(row as u32);
            }
        }
        let Self { card, choices, scratch, .. } = self;
        if asks.iter().any(|ask| *ask != Ask::Logits) {
            let n_weighed = weighed.len();
            let first_mask = (n + n_weighed).next_multiple_of(4);
            let n_words = first_mask + masks.len() * words;
            choices.reserve(card, n.max(1), n_words)?;
            choices.up[..n].copy_from_slice(&of_row);
            choices.up[n..n + n_weighed].copy_from_slice(&weighed);
            for (mask, to) in masks.iter().zip(choices.up[first_mask..n_words].chunks_exact_mut(words)) {
                to[..mask.len()].copy_from_slice(mask);
                to[mask.len()..].fill(0);
            }
            card.send(&choices.up, n_words, &mut choices.on_card)?;
            let all = Masks {
                masks: choices.on_card.part(first_mask..n_words),
                words,
                of_row: choices.on_card.part(0..n),
            };
            let logits = scratch.logits.part(0..n * vocab);
            card.clear(&mut choices.best)?;
            argmax(card, logits, vocab, &all, &choices.best.part_mut(0..n))?;
            if n_weighed > 0 {
                card.clear(&mut choices.sums)?;
                let rows = choices.on_card.part(n..n + n_weighed);
                let sums = choices.sums.part_mut(0..n_weighed);
                weigh(card, logits, vocab, &all, rows, choices.best.part(0..n), &sums)?;
                card.read_pinned(&choices.sums, n_weighed, &mut choices.sums_down)?;
            }
            card.read_pinned(&choices.best, n, &mut choices.best_down)?;
        } else {
            card.wait()?;
        }
        let whole: Vec<usize> = (0..n).filter(|row| asks[*row] == Ask::Logits).collect();
        self.logits.resize(whole.len() * vocab, 0.0);
        for (row, to) in whole.iter().zip(self.logits.chunks_exact_mut(vocab)) {
            card.read_part(scratch.logits.part(row * vocab..(row + 1) * vocab), to)?;
        }
        let spent_ms = self.card.between_ms(&self.begun, &self.ended)?;
        let (mut rows, mut sums) = (self.logits.chunks_exact(vocab), self.choices.sums_down.iter());
        let answers = asks.iter().enumerate().map(|(row, ask)| match ask {
            Ask::Logits => Answer::Logits(rows.next().expect("read above")),
            Ask::Best { weighs, .. } => {
                let sum = weighs.then(|| *sums.next().expect("read above"));
                match Best::decode(self.choices.best_down[row]) {
                    Best::Token { token, .. } => {
                        Answer::Best { token, log_share: sum.map_or(0.0, log_share) }
                    }
                    Best::NotFinite => Answer::NotFinite,
                }
            }
        });
        Ok((answers.collect(), spent_ms))
    }
}
