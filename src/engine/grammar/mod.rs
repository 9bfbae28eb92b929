//! JSON Schema to token masks and forced tokens, through llguidance.
//!
//! A [`Compiler`] belongs to one tokenizer and turns schemas into [`Grammar`]s; a sequence takes its own
//! [`Walk`] through one. Answers are compact JSON in the schema's key order, and what cannot be enforced is
//! refused before anything runs. Knows bytes and token ids. Never knows logits or sequences.

mod cache;
mod check;
mod compiler;
mod text;
mod walk;

pub use check::check_schema;
pub use compiler::{Compiler, Grammar, Options};
pub use walk::{Choice, Walk};

use crate::domain::code::Code;

/// Why a schema is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// `path` is a JSON pointer to the keyword.
    #[error("{path}: '{keyword}' cannot be enforced")]
    Unsupported { path: String, keyword: String },
    #[error("{path}: {reason}")]
    Invalid { path: String, reason: String },
    #[error("{path}: {what} is over the limit of {limit}")]
    TooLarge { path: String, what: &'static str, limit: usize },
    /// The grammar compiler's own words; it names no path.
    #[error("the schema was refused: {reason}")]
    Refused { reason: String },
}

impl GrammarError {
    pub fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } => Code::TooLarge,
            Self::Unsupported { .. } | Self::Invalid { .. } | Self::Refused { .. } => Code::InvalidSchema,
        }
    }
}
