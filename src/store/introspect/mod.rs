//! Live databases as sources: PostgreSQL, MySQL or MariaDB, and SQLite files, read-only.
//!
//! Nothing of the user's rows is read, and nothing is written. Needs no rights beyond seeing the tables. An address
//! with its password stays in the process that reads: no error and no log line holds it, and only the catalog goes on.

mod mysql;
mod postgres;
mod sqlite;

use std::time::Duration;

use crate::domain::catalog::Catalog;
use crate::extract::source::SourceError;

/// Which database, and how it is to be read.
#[derive(Clone, Copy)]
pub struct LiveSource<'a> {
    /// `postgres://…`, `mysql://…`, `mariadb://…`, or `sqlite:PATH`.
    pub url: &'a str,
    /// Instead of one in the address, where other processes could see it.
    pub password: Option<&'a str>,
    /// Only these schemas. MySQL: databases; without them the one that the address names.
    pub schemas: Option<&'a [String]>,
    pub patience: Patience,
}

/// How long the foreign database may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub connect: Duration,
    /// For each statement; the server ends it.
    pub statement: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), statement: Duration::from_secs(30) }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IntrospectError {
    #[error("the source database did not answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    #[error("the source database cannot be read")]
    Database(#[from] sqlx::Error),
    #[error("the source database's catalog is not usable: {0}")]
    Catalog(#[from] SourceError),
    #[error("the source's address has a parameter '{0}', which is none of {1}")]
    Parameter(String, String),
    #[error("the source is no address of a database: expected postgres://, mysql://, mariadb:// or sqlite:")]
    Scheme,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Postgres,
    MySql,
    Sqlite,
}

fn kind(url: &str) -> Option<Kind> {
    let (scheme, _) = url.split_once(':')?;
    match scheme {
        "postgres" | "postgresql" => Some(Kind::Postgres),
        "mysql" | "mariadb" => Some(Kind::MySql),
        "sqlite" => Some(Kind::Sqlite),
        _ => None,
    }
}

/// Whether this is the address of a live database.
pub fn is_live(url: &str) -> bool {
    kind(url).is_some()
}

/// Reads the structure behind an address: tables with columns, keys, comments and, where the database knows, an
/// estimate of their rows.
pub async fn read(source: &LiveSource<'_>) -> Result<Catalog, IntrospectError> {
    match kind(source.url).ok_or(IntrospectError::Scheme)? {
        Kind::Postgres => {
            check_parameters(source.url, &postgres::PARAMETERS)?;
            postgres::read(source).await
        }
        Kind::MySql => {
            check_parameters(source.url, &mysql::PARAMETERS)?;
            mysql::read(source).await
        }
        Kind::Sqlite => sqlite::read(source).await,
    }
}

/// An address to show: without user, password and parameters.
pub fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once(':').filter(|_| is_live(url)) else {
        return "the source".into();
    };
    if scheme == "sqlite" {
        return url.into();
    }
    // a parameter may hold a password as well, and a password a '?'
    match (rest.rfind('@'), rest.find('?')) {
        (Some(at), Some(query)) if query < at => format!("{scheme}://…"),
        (at, query) => {
            let from = at.map_or(rest.len() - rest.trim_start_matches('/').len(), |at| at + 1);
            format!("{scheme}://{}", &rest[from..query.unwrap_or(rest.len())])
        }
    }
}

/// A misspelt parameter would be passed over, and logged with its value: `?pasword=…`.
fn check_parameters(url: &str, known: &[&str]) -> Result<(), IntrospectError> {
    let query = url.rsplit_once('?').map_or("", |(_, query)| query);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split('=').next().unwrap_or_default();
        if !known.contains(&name) {
            // where no '=' follows, the name itself may be a secret
            let name = if pair.contains('=') { name } else { "…" };
            return Err(IntrospectError::Parameter(name.into(), known.join(", ")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_an_address_holds_no_secret() {
        for (url, shown) in [
            ("postgres://u:hush@host:1/shop", "postgres://host:1/shop"),
            ("postgres://u:hu/sh@host/shop?host=/run", "postgres://host/shop"),
            ("postgres://host/shop?password=hush", "postgres://host/shop"),
            ("postgres://host/shop?password=hu@sh", "postgres://…"),
            ("mysql://u:hu?sh@host/shop", "mysql://…"),
            ("mariadb://u:hu@sh@host/shop", "mariadb://host/shop"),
            ("sqlite:shop.db", "sqlite:shop.db"),
            ("ftp://u:hush@host", "the source"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }

    #[test]
    fn misspelt_parameters_are_refused_without_their_value() {
        let error = check_parameters("mysql://h/d?pasword=hush", &mysql::PARAMETERS).unwrap_err().to_string();
        assert!(error.contains("'pasword'") && !error.contains("hush"), "{error}");
        assert!(check_parameters("mysql://h/d?socket=/run/s&ssl-mode=DISABLED", &mysql::PARAMETERS).is_ok());
    }
}
