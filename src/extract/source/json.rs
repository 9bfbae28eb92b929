//! JSON sources: what kind a document is, and its entries with their places.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::SourceError;
use super::place::position_of;

/// What a JSON document holds, as far as its outline says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonKind {
    /// A list of table names, or of objects that name a table.
    Tables,
    /// adit's own catalog.
    Catalog,
    DbtManifest,
}

/// Looks at the outline only; of a text that is no JSON, the reader will say why.
pub fn json_kind(text: &str) -> JsonKind {
    let outline: Result<Entries<'_>, _> = serde_json::from_str(text);
    let has = |name: &str| outline.as_ref().is_ok_and(|o| o.0.iter().any(|(key, _)| key == name));
    if has("nodes") || has("sources") {
        JsonKind::DbtManifest
    } else if has("tables") {
        JsonKind::Catalog
    } else {
        JsonKind::Tables
    }
}

/// An object's entries in the document's order, unread.
#[derive(Default)]
pub(super) struct Entries<'a>(pub(super) Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<String, &'de RawValue>()? {
                    pairs.push(pair);
                }
                Ok(Entries(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Reads one entry of `text`; an error's place is the entry's own in the whole.
pub(super) fn entry<'a, T: Deserialize<'a>>(text: &str, raw: &'a RawValue) -> Result<T, SourceError> {
    serde_json::from_str(raw.get()).map_err(|error| {
        let inner = SourceError::of_json(&error);
        let (line, column) = position_of(text, raw.get());
        // on the entry's first line the columns go on from where it begins
        let column = if inner.line == 1 { column + inner.column - 1 } else { inner.column };
        SourceError { line: line + inner.line - 1, column, message: inner.message }
    })
}
