//! Sources of a database schema or of texts, each read into the neutral form, errors with their place.

use crate::domain::code::Code;

/// Where and why a source cannot be read. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct SourceError {
    pub line: u64,
    pub column: u64,
    pub message: String,
}

impl SourceError {
    pub fn new(line: u64, column: u64, message: impl Into<String>) -> Self {
        Self { line, column, message: message.into() }
    }

    pub fn code(&self) -> Code {
        Code::InvalidInput
    }
}
