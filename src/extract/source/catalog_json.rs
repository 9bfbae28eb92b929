//! A catalog as JSON, in the form in which adit itself writes it.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::entry;
use super::place::position_of;
use super::settle::settle;
use super::{Read, Sieve, SourceError};
use crate::domain::catalog::{Catalog, Table};

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    tables: Vec<&'a RawValue>,
}

pub fn read(text: &str, lenient: bool) -> Result<Read, SourceError> {
    let document: Document<'_> = serde_json::from_str(text).map_err(|e| SourceError::of_json(&e))?;
    of_entries(text, &document.tables, lenient, |raw| entry(text, raw))
}

/// A table of each entry of a list, with its place.
pub(super) fn of_entries<'a>(
    text: &str,
    entries: &[&'a RawValue],
    lenient: bool,
    read: impl Fn(&'a RawValue) -> Result<Table, SourceError>,
) -> Result<Read, SourceError> {
    let mut sieve = Sieve::new(lenient);
    let (mut tables, mut raws) = (Vec::new(), Vec::new());
    for raw in entries {
        match read(raw) {
            Ok(table) => {
                tables.push(table);
                raws.push(raw.get());
            }
            Err(error) => sieve.leave_out(error)?,
        }
    }
    let catalog = settle(Catalog { tables }, &mut sieve, |at, _| position_of(text, raws[at]))?;
    Ok(Read { catalog, left_out: sieve.into_left_out() })
}
