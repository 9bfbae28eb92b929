//! A JSON list of table names: `["orders", …]` or `[{"table": "orders"}, …]`.

use serde::Deserialize;

use super::{SourceError, checked};
use crate::domain::catalog::{Catalog, Table};

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Name(String),
    Object {
        #[serde(alias = "name", alias = "table_name")]
        table: String,
        #[serde(default, alias = "description")]
        comment: Option<String>,
    },
}

pub fn read(text: &str) -> Result<Catalog, SourceError> {
    let entries: Vec<Entry> = serde_json::from_str(text).map_err(|e| SourceError::of_json(&e))?;
    let tables = entries.into_iter().map(|entry| match entry {
        Entry::Name(name) => Table { name, ..Table::default() },
        Entry::Object { table, comment } => Table { name: table, comment, ..Table::default() },
    });
    checked(Catalog { tables: tables.collect() })
}
