//! A JSON list of table names: `["orders", …]` or `[{"table": "orders"}, …]`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::catalog_json::of_entries;
use super::json::entry;
use super::{Read, SourceError};
use crate::domain::catalog::Table;

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a table's name, or an object with a string \"table\"")]
enum Entry {
    Name(String),
    Object {
        #[serde(alias = "name", alias = "table_name")]
        table: String,
        #[serde(default, alias = "description")]
        comment: Option<String>,
    },
}

pub fn read(text: &str, lenient: bool) -> Result<Read, SourceError> {
    let entries: Vec<&RawValue> = serde_json::from_str(text).map_err(|e| SourceError::of_json(&e))?;
    of_entries(text, &entries, lenient, |raw| {
        Ok(match entry(text, raw)? {
            Entry::Name(name) => Table { name, ..Table::default() },
            Entry::Object { table, comment } => Table { name: table, comment, ..Table::default() },
        })
    })
}
