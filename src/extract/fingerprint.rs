//! The fingerprint of a table: equal as long as nothing has changed that a question about it shows or a fact states.
//!
//! SHA-256 over one JSON text: name; comment; columns in order, each with name, type, whether it may be null and
//! comment; primary key in order; unique keys as a set of sets; foreign keys as a set, each with its columns,
//! the table it names and the columns it names there.
//!
//! Left out is what neither prompt nor fact depends on: estimates of rows, defaults, names of constraints, the
//! order in which unique and foreign keys are declared, a unique key that is the primary key said again, whether
//! a column of the primary key is said to be nullable, and blanks around a comment.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::domain::catalog::Table;

/// Of one table's own definition; what others declare about it is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The canonical form, in the order in which it is written.
#[derive(Serialize)]
struct Canonical<'a> {
    name: &'a str,
    comment: &'a str,
    columns: Vec<CanonicalColumn<'a>>,
    primary_key: &'a [String],
    unique: BTreeSet<BTreeSet<&'a str>>,
    foreign_keys: BTreeSet<(&'a [String], &'a str, &'a [String])>,
}

#[derive(Serialize)]
struct CanonicalColumn<'a> {
    name: &'a str,
    data_type: &'a str,
    nullable: bool,
    comment: &'a str,
}

pub fn fingerprint(table: &Table) -> Fingerprint {
    let primary: BTreeSet<&str> = set(&table.primary_key);
    let canonical = Canonical {
        name: &table.name,
        comment: trimmed(table.comment.as_deref()),
        columns: table
            .columns
            .iter()
            .map(|column| CanonicalColumn {
                name: &column.name,
                data_type: &column.data_type,
                nullable: column.nullable && !primary.contains(column.name.as_str()),
                comment: trimmed(column.comment.as_deref()),
            })
            .collect(),
        primary_key: &table.primary_key,
        unique: table.unique.iter().map(|key| set(key)).filter(|key| *key != primary).collect(),
        foreign_keys: table
            .foreign_keys
            .iter()
            .map(|key| (key.columns.as_slice(), key.ref_table.as_str(), key.ref_columns.as_slice()))
            .collect(),
    };
    let bytes = serde_json::to_vec(&canonical).expect("names and flags are JSON");
    Fingerprint(Sha256::digest(bytes).into())
}

fn set(names: &[String]) -> BTreeSet<&str> {
    names.iter().map(String::as_str).collect()
}

fn trimmed(comment: Option<&str>) -> &str {
    comment.unwrap_or_default().trim()
}
