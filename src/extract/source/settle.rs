//! The last look at a catalog before it is used: names tell tables and columns apart, keys name columns that exist.

use std::collections::HashSet;

use super::{MAX_IDENTIFIER_BYTES, Sieve, SourceError};
use crate::domain::catalog::Catalog;

/// A part of a table, for saying where it stands in the source.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    Table,
    Column(&'a str),
    Key(&'a [String]),
}

/// For sources without places: refuses the catalog at its first fault.
pub fn checked(catalog: Catalog) -> Result<Catalog, SourceError> {
    settle(catalog, &mut Sieve::new(false), |_, _| (1, 1))
}

/// Takes out what cannot be used; `place` says where a part of the table of this position stands.
pub fn settle(
    catalog: Catalog,
    sieve: &mut Sieve,
    place: impl Fn(usize, Part<'_>) -> (u64, u64),
) -> Result<Catalog, SourceError> {
    let mut names = HashSet::new();
    let mut tables = Vec::with_capacity(catalog.tables.len());
    for (at, mut table) in catalog.tables.into_iter().enumerate() {
        let name = shortened(&table.name).to_string();
        let mut leave_out = |part: Part<'_>, message: String| {
            let (line, column) = place(at, part);
            sieve.leave_out(SourceError::new(line, column, format!("table {} ({name}): {message}", at + 1)))
        };
        if let Some(message) = wrong_name(&table.name) {
            leave_out(Part::Table, message.into())?;
            continue;
        }
        if names.contains(&table.name) {
            leave_out(Part::Table, "the name is defined twice".into())?;
            continue;
        }
        let mut columns = HashSet::new();
        let mut kept = Vec::with_capacity(table.columns.len());
        for column in std::mem::take(&mut table.columns) {
            if let Some(message) = wrong_column(&column.name) {
                leave_out(Part::Column(&column.name), message)?;
            } else if !columns.insert(column.name.clone()) {
                leave_out(Part::Column(&column.name), format!("column '{}' is defined twice", column.name))?;
            } else {
                kept.push(column);
            }
        }
        table.columns = kept;
        let unknown =
            |key: &[String]| key.iter().find(|name| !columns.is_empty() && !columns.contains(*name)).cloned();
        let mut broken = |key: &[String]| match unknown(key) {
            Some(name) => {
                let message = format!("a key is over column '{name}', which the table does not have");
                leave_out(Part::Key(key), message).map(|()| true)
            }
            None => Ok(false),
        };
        let mut foreign_keys = Vec::with_capacity(table.foreign_keys.len());
        for key in std::mem::take(&mut table.foreign_keys) {
            if !broken(&key.columns)? {
                foreign_keys.push(key);
            }
        }
        if broken(&table.primary_key)? {
            table.primary_key.clear();
        }
        let mut unique = Vec::with_capacity(table.unique.len());
        for key in std::mem::take(&mut table.unique) {
            if !broken(&key)? {
                unique.push(key);
            }
        }
        (table.foreign_keys, table.unique) = (foreign_keys, unique);
        names.insert(table.name.clone());
        tables.push(table);
    }
    Ok(Catalog { tables })
}

fn wrong_name(name: &str) -> Option<&'static str> {
    match name {
        name if name.trim().is_empty() => Some("the name is empty"),
        name if name.len() > MAX_IDENTIFIER_BYTES => Some(TOO_LONG),
        _ => None,
    }
}

fn wrong_column(name: &str) -> Option<String> {
    match name {
        "" => Some("a column's name is empty".into()),
        name if name.len() > MAX_IDENTIFIER_BYTES => Some(format!("of a column: {TOO_LONG}")),
        _ => None,
    }
}

const TOO_LONG: &str = "a name is longer than 512 bytes";

/// Enough of a name to find it.
fn shortened(name: &str) -> &str {
    name.char_indices().nth(80).map_or(name, |(end, _)| &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_the_limit() {
        assert!(TOO_LONG.contains(&MAX_IDENTIFIER_BYTES.to_string()));
    }
}
