//! From rows of logits to tokens, under masks of one bit a token.

use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, ValidAsZeroBits};

use super::card::{Card, Launch, View, ViewMut};
use crate::nn::Error;

/// No mask, or no token.
pub const NONE: u32 = u32::MAX;
/// Tokens that a block of the argmax looks at.
const SPAN: usize = 8192;

/// Masks of `words` 32-bit words each, and the mask of each row ([`NONE`]: all tokens).
#[derive(Clone, Copy)]
pub struct Masks<'a> {
    pub masks: View<'a, u32>,
    pub words: usize,
    /// Empty: no row has one.
    pub of_row: View<'a, u32>,
}

/// What the kernel found in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Best {
    Token {
        token: u32,
        logit: f32,
    },
    /// An allowed logit is not a number, or the largest is infinite, or nothing is allowed.
    NotFinite,
}

impl Best {
    /// From the kernel's word.
    pub fn decode(word: u64) -> Self {
        let key = (word >> 32) as u32;
        let logit = f32::from_bits(if key >> 31 == 1 { key & 0x7fff_ffff } else { !key });
        if word == 0 || key == NONE || !logit.is_finite() {
            return Self::NotFinite;
        }
        Self::Token { token: !(word as u32), logit }
    }
}

/// The first of the largest allowed logits of each row, as words for [`Best::decode`]. `best` is all 0 before.
pub fn argmax(
    card: &Card,
    logits: View<f32>,
    vocab: usize,
    masks: &Masks,
    best: &ViewMut<u64>,
) -> Result<(), Error> {
    let rows = best.len();
    assert!(logits.len() == rows * vocab && masks.words * 32 >= vocab);
    assert!(masks.of_row.is_empty() || masks.of_row.len() == rows);
    let grid = [rows, vocab.div_ceil(SPAN)];
    let launch = Launch { file: "sample", name: "sample_argmax", grid, threads: 256, shared_bytes: 0 };
    let args = [
        logits.into(),
        masks.masks.into(),
        masks.of_row.into(),
        best.into(),
        vocab.into(),
        masks.words.into(),
        SPAN.into(),
    ];
    // SAFETY: the sizes were checked; rows name masks that are there.
    unsafe { card.launch(&launch, &args) }
}

/// Units of [`weigh`]'s sums.
const ONE: f64 = (1u64 << 40) as f64;

/// Natural logarithm of the largest allowed logit's share among the allowed, from [`weigh`]'s word.
pub fn log_share(sum: u64) -> f32 {
    // rounding down may have lost the last bits of one
    (-(sum as f64 / ONE).ln()).min(0.0) as f32
}

/// `sums[i]`: what the softmax of row `rows[i]` over its allowed logits divides by, as a word for [`log_share`]. `best`
/// is [`argmax`]'s of all rows; `sums` is all 0 before.
pub fn weigh(
    card: &Card,
    logits: View<f32>,
    vocab: usize,
    masks: &Masks,
    rows: View<u32>,
    best: View<u64>,
    sums: &ViewMut<u64>,
) -> Result<(), Error> {
    assert!(logits.len() == best.len() * vocab && masks.words * 32 >= vocab && sums.len() == rows.len());
    assert!(masks.of_row.is_empty() || masks.of_row.len() == best.len());
    let grid = [rows.len(), vocab.div_ceil(SPAN)];
    let launch = Launch { file: "sample", name: "sample_weigh", grid, threads: 256, shared_bytes: 0 };
    let args = [
        logits.into(),
        masks.masks.into(),
        masks.of_row.into(),
        rows.into(),
        best.into(),
        sums.into(),
        vocab.into(),
        masks.words.into(),
        SPAN.into(),
    ];
    // SAFETY: the sizes were checked; rows are below those of the logits and name masks that are there.
    unsafe { card.launch(&launch, &args) }
}

/// One draw; the fields are those of a request's sampling.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Draw {
    /// Of the logits.
    pub row: u32,
    /// Or [`NONE`].
    pub mask: u32,
    pub temperature: f32,
    pub top_p: f32,
    pub min_p: f32,
    pub top_k: u32,
    /// From 0 to below 1.
    pub at: f64,
}

// SAFETY: plain numbers in the order of the kernel's struct; all zeros is a greedy draw.
unsafe impl DeviceRepr for Draw {}
// SAFETY: as above.
unsafe impl ValidAsZeroBits for Draw {}

/// Draws tokens; [`NONE`] where [`argmax`] found nothing finite.
pub fn draw(
    card: &Card,
    logits: View<f32>,
    vocab: usize,
    masks: &Masks,
    draws: View<Draw>,
    best: View<u64>,
    tokens: &ViewMut<u32>,
) -> Result<(), Error> {
    assert!(logits.len() == best.len() * vocab && tokens.len() == draws.len() && masks.words * 32 >= vocab);
    let grid = [draws.len(), 1];
    let launch = Launch { file: "sample", name: "sample_draw", grid, threads: 1024, shared_bytes: 0 };
    let args = [
        logits.into(),
        masks.masks.into(),
        draws.into(),
        best.into(),
        tokens.into(),
        vocab.into(),
        masks.words.into(),
    ];
    // SAFETY: the sizes were checked; draws name rows and masks that are there.
    unsafe { card.launch(&launch, &args) }
}
