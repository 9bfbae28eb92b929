//! DDL text → catalog: `CREATE TABLE`, `ALTER TABLE … ADD`, `COMMENT ON`, `CREATE UNIQUE INDEX`, `DROP TABLE`.
//!
//! [`split`] finds statements (and steps over functions, data and client commands as `pg_dump` and `mysqldump`
//! write them); [`read`] takes the relevant ones apart. Column definitions are parsed by sqlparser, one at a
//! time, so that an error has a place and the rest of a table survives it.

mod read;
mod split;
mod walk;

use sqlparser::dialect::{
    Dialect as SqlDialect, GenericDialect, MsSqlDialect, MySqlDialect, PostgreSqlDialect, SQLiteDialect,
};

use super::SourceError;
use crate::domain::catalog::Catalog;

/// Whose SQL it is; decides quoting, the case of unquoted names, and the default schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Guessed from the text.
    #[default]
    Auto,
    Postgres,
    MySql,
    Sqlite,
    MsSql,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub dialect: Dialect,
    /// Keep what could be read, and list what could not, instead of ending at the first error.
    pub lenient: bool,
}

/// A catalog, and what was left out of it (only with [`Options::lenient`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Read {
    pub catalog: Catalog,
    pub left_out: Vec<SourceError>,
}

/// Reads a script. Foreign keys to tables that it lacks are kept; [`Catalog::keys`] shows which they are.
pub fn read(text: &str, options: Options) -> Result<Read, SourceError> {
    let dialect = match options.dialect {
        Dialect::Auto => guess(text),
        dialect => dialect,
    };
    let mut reader = read::Reader::new(dialect);
    let mut left_out = Vec::new();
    for statement in split::statements(text, dialect)? {
        for error in reader.statement(&statement) {
            if !options.lenient {
                return Err(error);
            }
            left_out.push(error);
        }
    }
    let catalog = reader.finish();
    if catalog.tables.is_empty() && left_out.is_empty() {
        return Err(SourceError::new(1, 1, "no CREATE TABLE statement was found"));
    }
    if !options.lenient {
        return Ok(Read { catalog: super::checked(catalog)?, left_out });
    }
    Ok(Read { catalog: without_broken_keys(catalog, &mut left_out), left_out })
}

/// Keys over columns that were left out go with them.
fn without_broken_keys(mut catalog: Catalog, left_out: &mut Vec<SourceError>) -> Catalog {
    for table in &mut catalog.tables {
        let columns: Vec<String> = table.columns.iter().map(|c| c.name.clone()).collect();
        let known = |key: &[String]| columns.is_empty() || key.iter().all(|c| columns.contains(c));
        let before = table.unique.len() + table.foreign_keys.len() + table.primary_key.len();
        table.unique.retain(|key| known(key));
        table.foreign_keys.retain(|key| known(&key.columns));
        if !known(&table.primary_key) {
            table.primary_key.clear();
        }
        if before != table.unique.len() + table.foreign_keys.len() + table.primary_key.len() {
            let message = format!("keys of table '{}' over columns that were left out", table.name);
            left_out.push(SourceError::new(1, 1, message));
        }
    }
    catalog
}

impl Dialect {
    fn parser(self) -> &'static dyn SqlDialect {
        match self {
            Dialect::Auto => &GenericDialect {},
            Dialect::Postgres => &PostgreSqlDialect {},
            Dialect::MySql => &MySqlDialect {},
            Dialect::Sqlite => &SQLiteDialect {},
            Dialect::MsSql => &MsSqlDialect {},
        }
    }

    fn default_schema(self) -> Option<&'static str> {
        match self {
            Dialect::Postgres | Dialect::Auto => Some("public"),
            Dialect::MsSql => Some("dbo"),
            Dialect::Sqlite => Some("main"),
            Dialect::MySql => None,
        }
    }
}

/// By what only one of them writes; Postgres, the most common of dumps, where nothing tells.
fn guess(text: &str) -> Dialect {
    let lower = text.to_ascii_lowercase();
    let count = |words: &[&str]| words.iter().filter(|word| lower.contains(**word)).count();
    let scores = [
        (Dialect::MySql, count(&["`", "engine=", "auto_increment", "unsigned", "/*!40", "tinyint("])),
        (
            Dialect::MsSql,
            count(&["[dbo]", "\ngo\n", "\ngo\r", "nvarchar", "identity(", "] [", "uniqueidentifier"]),
        ),
        (Dialect::Sqlite, count(&["autoincrement", "without rowid", "pragma ", "sqlite_"])),
        (
            Dialect::Postgres,
            count(&[
                "serial",
                "comment on",
                "timestamptz",
                "jsonb",
                "alter table only",
                "::",
                "pg_catalog",
                "bytea",
            ]),
        ),
    ];
    let best = scores.iter().map(|(_, n)| *n).max().unwrap_or(0);
    let found = scores.into_iter().find(|(_, n)| *n == best && best > 0);
    found.map_or(Dialect::Postgres, |(dialect, _)| dialect)
}
