//! DDL text → catalog: `CREATE TABLE`, `ALTER TABLE`, `COMMENT ON`, `CREATE UNIQUE INDEX`, `DROP TABLE`, and SQL
//! Server's extended properties, in the order in which a script runs them.
//!
//! [`split`] finds statements (and steps over functions, data and client commands as `pg_dump`, `mysqldump` and
//! others write them); [`read`] takes the relevant ones apart, [`alter`] changes what is there. Column definitions
//! are parsed by sqlparser, one at a time, so that an error has a place and the rest of a table survives it.

mod alter;
mod column;
mod comments;
mod draft;
mod element;
mod property;
mod read;
mod split;
mod tables;
mod walk;

use sqlparser::dialect::{
    Dialect as SqlDialect, GenericDialect, MsSqlDialect, MySqlDialect, PostgreSqlDialect, SQLiteDialect,
};

pub use comments::{Comments, comments};

use super::{Read, Sieve, SourceError};

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

/// Reads a script. Foreign keys to tables that it lacks are kept; [`Catalog::keys`] shows which they are.
///
/// [`Catalog::keys`]: crate::domain::catalog::Catalog::keys
pub fn read(text: &str, options: Options) -> Result<Read, SourceError> {
    let dialect = match options.dialect {
        Dialect::Auto => guess(text),
        dialect => dialect,
    };
    let mut sieve = Sieve::new(options.lenient);
    let mut reader = read::Reader::new(dialect);
    let (statements, open_end) = split::statements(text, dialect);
    for statement in statements {
        for error in reader.statement(&statement) {
            sieve.leave_out(error)?;
        }
    }
    if let Some(error) = open_end {
        sieve.leave_out(error)?;
    }
    let catalog = reader.finish(&mut sieve)?;
    let left_out = sieve.into_left_out();
    if catalog.tables.is_empty() && left_out.is_empty() {
        return Err(SourceError::new(1, 1, "no CREATE TABLE statement was found"));
    }
    Ok(Read { catalog, left_out })
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
        (
            Dialect::Sqlite,
            count(&["autoincrement", "without rowid", "pragma ", "sqlite_", "create virtual table"]),
        ),
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
