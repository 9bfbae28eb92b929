//! Sources of a database schema or of texts, each read into the neutral form, errors with their place.
//!
//! What is wrong with a source goes through a [`Sieve`]: it ends the reading, or is listed with its place while the
//! rest is kept. Nothing is left out silently.

pub mod catalog_json;
pub mod csv;
pub mod dbt_manifest;
pub mod ddl;
pub mod information_schema;
mod json;
pub mod jsonl;
mod place;
mod settle;
pub mod table_list;

pub use json::{JsonKind, json_kind};
pub use settle::{Part, checked, settle};

use crate::domain::catalog::Catalog;
use crate::domain::code::Code;
use crate::domain::omission::{Omission, Omissions};

/// Where and why a source cannot be read. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct SourceError {
    pub line: u64,
    pub column: u64,
    pub message: String,
}

/// Of an error's message; it may cite the source, which may be one long word.
const MAX_MESSAGE_CHARS: usize = 400;

impl SourceError {
    pub fn new(line: u64, column: u64, message: impl Into<String>) -> Self {
        let message: String = message.into();
        // it will be shown on terminals
        let mut message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE_CHARS) {
            message.truncate(end);
            message.push('…');
        }
        Self { line, column, message }
    }

    pub fn code(&self) -> Code {
        Code::InvalidInput
    }

    fn of_json(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        // the place stands in fields of its own
        let message = text.split(" at line ").next().unwrap_or_default();
        Self::new(error.line().max(1) as u64, error.column().max(1) as u64, message)
    }
}

impl From<SourceError> for Omission {
    fn from(error: SourceError) -> Self {
        let SourceError { line, column, message } = error;
        Self { line, column, message }
    }
}

/// A catalog, and what was left out of it (only with the client's leave).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Read {
    pub catalog: Catalog,
    pub left_out: Omissions,
}

/// Decides what an error does: it ends the reading, or with leave it is listed.
#[derive(Debug, Default)]
pub struct Sieve {
    lenient: bool,
    left_out: Omissions,
}

impl Sieve {
    pub fn new(lenient: bool) -> Self {
        Self { lenient, left_out: Omissions::default() }
    }

    /// The caller goes on without the part that `error` speaks of.
    pub fn leave_out(&mut self, error: SourceError) -> Result<(), SourceError> {
        if !self.lenient {
            return Err(error);
        }
        self.left_out.push(error.into());
        Ok(())
    }

    pub fn into_left_out(self) -> Omissions {
        self.left_out
    }
}

/// Longest name of a table or column, in bytes. Databases allow 64 to 300 characters; an item has to hold
/// a name twice within a model's context.
pub const MAX_IDENTIFIER_BYTES: usize = 512;
