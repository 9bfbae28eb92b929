//! Prompt-lookup speculation: answers often copy from their prompts, so tokens that followed the same few
//! tokens before are appended as a draft, read in the same step, and kept as far as they are what would have
//! been chosen anyway (Saxena 2023; verification as in Leviathan et al. 2023). Answers are the same without.
//!
//! A draft costs rows. [`Gain`] measures what rows cost and how often drafts come true, and says how long a
//! draft may be; while none pays, drafts are only watched, which costs nothing.

mod draft;
mod gain;

pub use draft::{Watched, propose};
pub use gain::Gain;

/// Tokens of the longest draft.
pub const MAX_DRAFT: usize = 8;
/// Drafts never make a step ask for more rows of logits than this: they pay only where rows are few.
pub const MAX_LOGIT_ROWS: usize = 64;
