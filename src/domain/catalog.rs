//! The neutral form of a database schema that every source is read into. What the schema itself states
//! (keys, types, cardinalities) is computed from here, never asked of a model.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    /// In source order. A table's index here is its identity inside a job.
    pub tables: Vec<Table>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// As it must be written to name the table: `name`, or `schema.name` outside the default schema.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Empty when only the table's name is known.
    #[serde(default)]
    pub columns: Vec<Column>,
    #[serde(default)]
    pub primary_key: Vec<String>,
    #[serde(default)]
    pub unique: Vec<Vec<String>>,
    #[serde(default)]
    pub foreign_keys: Vec<ForeignKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_estimate: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    /// The source's own spelling, lower case; empty when unknown.
    #[serde(default)]
    pub data_type: String,
    pub nullable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ForeignKey {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub columns: Vec<String>,
    pub ref_table: String,
    /// Empty means the referenced table's primary key.
    #[serde(default)]
    pub ref_columns: Vec<String>,
}

impl Catalog {
    /// Position of the table of this name, exactly as written in the catalog.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.tables.iter().position(|t| t.name == name)
    }

    /// Where a foreign key points, or `None` if its table or columns are not in the catalog.
    ///
    /// Linear in the number of tables; callers that resolve many keys keep a [`Catalog::keys`] list.
    pub fn resolve(&self, key: &ForeignKey) -> Option<(usize, Vec<String>)> {
        let at = self.position(&key.ref_table)?;
        self.ref_columns(key, at).map(|columns| (at, columns))
    }

    fn ref_columns(&self, key: &ForeignKey, at: usize) -> Option<Vec<String>> {
        let target = &self.tables[at];
        if target.columns.is_empty() {
            // Only the name is known: nothing to check against.
            return Some(key.ref_columns.clone());
        }
        let columns = if key.ref_columns.is_empty() { &target.primary_key } else { &key.ref_columns };
        let known = columns.iter().all(|c| target.column(c).is_some());
        let fits = columns.len() == key.columns.len() || columns.is_empty();
        (known && fits).then(|| columns.clone())
    }

    /// Every declared foreign key, in catalog order, with where it points.
    pub fn keys(&self) -> Vec<Key> {
        let positions: HashMap<&str, usize> =
            self.tables.iter().enumerate().rev().map(|(i, t)| (t.name.as_str(), i)).collect();
        let mut keys = Vec::new();
        for (table, owner) in self.tables.iter().enumerate() {
            for (index, key) in owner.foreign_keys.iter().enumerate() {
                let target = positions.get(key.ref_table.as_str()).copied();
                let target = target.and_then(|at| self.ref_columns(key, at).map(|c| (at, c)));
                keys.push(Key { table, index, target });
            }
        }
        keys
    }

    /// Columns over all tables.
    pub fn column_count(&self) -> usize {
        self.tables.iter().map(|t| t.columns.len()).sum()
    }
}

/// A declared foreign key by its place, with its target if the catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Table that declares it.
    pub table: usize,
    /// Place among that table's foreign keys.
    pub index: usize,
    /// Target table and columns (empty if the target's own columns are unknown); `None`: not in the catalog.
    pub target: Option<(usize, Vec<String>)>,
}

impl Table {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// Whether at most one row can hold a given value of these columns.
    pub fn is_unique(&self, columns: &[String]) -> bool {
        let inside = |key: &[String]| !key.is_empty() && key.iter().all(|c| columns.contains(c));
        inside(&self.primary_key) || self.unique.iter().any(|key| inside(key))
    }

    /// Whether every row must have a value in each of these columns.
    pub fn is_required(&self, columns: &[String]) -> bool {
        columns
            .iter()
            .all(|name| self.primary_key.contains(name) || self.column(name).is_some_and(|c| !c.nullable))
    }
}
