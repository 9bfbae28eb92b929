//! Sources of a database schema or of texts, each read into the neutral form, errors with their place.

pub mod catalog_json;
pub mod csv;
pub mod ddl;
pub mod information_schema;
pub mod jsonl;
pub mod table_list;

use std::collections::HashSet;

use crate::domain::catalog::Catalog;
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

    fn of_json(error: &serde_json::Error) -> Self {
        Self::new(error.line() as u64, error.column() as u64, error.to_string())
    }
}

/// Longest name of a table or column, in bytes. Databases allow 64 to 300 characters; an item has to hold
/// a name twice within a model's context.
pub const MAX_IDENTIFIER_BYTES: usize = 512;

/// Refuses names that are empty or stand twice, and keys over columns that their own table lacks.
pub fn checked(catalog: Catalog) -> Result<Catalog, SourceError> {
    let mut names = HashSet::new();
    for (at, table) in catalog.tables.iter().enumerate() {
        let wrong =
            |message: String| SourceError::new(1, 1, format!("table {} ({}): {message}", at + 1, table.name));
        if table.name.trim().is_empty() {
            return Err(wrong("the name is empty".into()));
        }
        let too_long = |name: &str| name.len() > MAX_IDENTIFIER_BYTES;
        if too_long(&table.name) || table.columns.iter().any(|column| too_long(&column.name)) {
            return Err(SourceError::new(
                1,
                1,
                format!("table {}: a name is longer than {MAX_IDENTIFIER_BYTES} bytes", at + 1),
            ));
        }
        if !names.insert(&table.name) {
            return Err(wrong("the name is defined twice".into()));
        }
        let mut columns = HashSet::new();
        for column in &table.columns {
            if column.name.is_empty() {
                return Err(wrong("a column's name is empty".into()));
            }
            if !columns.insert(&column.name) {
                return Err(wrong(format!("column '{}' is defined twice", column.name)));
            }
        }
        let keys = table.foreign_keys.iter().map(|key| &key.columns);
        let keys = keys.chain([&table.primary_key]).chain(&table.unique);
        if let Some(name) = keys.flatten().find(|name| !columns.is_empty() && !columns.contains(name)) {
            return Err(wrong(format!("a key is over column '{name}', which the table does not have")));
        }
    }
    Ok(catalog)
}
