//! What is asked of rows of logits where the device chooses tokens itself, and what it answers.

/// What one row of logits is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// The row itself.
    Logits,
    /// The first of the largest that are allowed.
    Best {
        /// A bit a token, 32 to a word, lowest first; tokens beyond it are not allowed. `None` allows all.
        allowed: Option<&'a [u32]>,
        /// Whether its share among the allowed is wanted too.
        weighs: bool,
    },
}

/// What a row says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer<'a> {
    Logits(&'a [f32]),
    Best {
        token: u32,
        /// Natural logarithm of its share among the allowed; 0 where it was not asked for.
        log_share: f32,
    },
    /// An allowed logit is not a number, or the largest is infinite, or nothing is allowed.
    NotFinite,
}
