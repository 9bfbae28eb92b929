//! A table while its script is read: what it has so far, and where that stands.

use super::comments::Comments;
use super::walk::Place;
use crate::domain::catalog::{Column, ForeignKey, Table};

pub(super) struct Draft {
    pub(super) table: Table,
    pub(super) place: Place,
    /// Columns of each key as written, with the key's place.
    key_places: Vec<(Vec<String>, Place)>,
    /// Names of constraints that are no foreign keys, with their columns; a primary key under its own name.
    constraints: Vec<(String, Vec<String>)>,
    /// It is a part of a partitioned table, not a table of the model.
    pub(super) is_part: bool,
}

impl Draft {
    pub(super) fn new(name: String, place: Place) -> Self {
        let table = Table { name, ..Table::default() };
        Self { table, place, key_places: Vec::new(), constraints: Vec::new(), is_part: false }
    }

    pub(super) fn column(&mut self, name: &str) -> Option<&mut Column> {
        self.table.columns.iter_mut().find(|c| same(&c.name, name))
    }

    pub(super) fn primary_key(&mut self, name: Option<String>, columns: Vec<String>, place: Place) {
        self.note(name, &columns, place);
        self.table.primary_key = columns;
    }

    pub(super) fn unique(&mut self, name: Option<String>, columns: Vec<String>, place: Place) {
        self.note(name, &columns, place);
        if !columns.is_empty() && !self.table.unique.contains(&columns) {
            self.table.unique.push(columns);
        }
    }

    pub(super) fn foreign_key(&mut self, key: ForeignKey, place: Place) {
        self.note(None, &key.columns, place);
        self.table.foreign_keys.push(key);
    }

    fn note(&mut self, name: Option<String>, columns: &[String], place: Place) {
        self.key_places.push((columns.to_vec(), place));
        if let Some(name) = name {
            self.constraints.push((name, columns.to_vec()));
        }
    }

    /// Where the key over these columns stands, however its names were spelled there.
    pub(super) fn place_of_key(&self, columns: &[String]) -> Place {
        let written = |key: &&(Vec<String>, Place)| {
            key.0.len() == columns.len() && key.0.iter().zip(columns).all(|(a, b)| same(a, b))
        };
        self.key_places.iter().find(written).map_or(self.place, |(_, place)| *place)
    }

    pub(super) fn drop_constraint(&mut self, name: &str) {
        let table = &mut self.table;
        table.foreign_keys.retain(|key| !key.name.as_deref().is_some_and(|own| same(own, name)));
        for (_, columns) in self.constraints.extract_if(.., |(own, _)| same(own, name)) {
            if table.primary_key == columns {
                table.primary_key.clear();
            }
            table.unique.retain(|key| *key != columns);
        }
    }

    /// A column goes, and every key over it.
    pub(super) fn drop_column(&mut self, name: &str) {
        let table = &mut self.table;
        let over = |key: &[String]| key.iter().any(|column| same(column, name));
        table.columns.retain(|column| !same(&column.name, name));
        table.unique.retain(|key| !over(key));
        table.foreign_keys.retain(|key| !over(&key.columns));
        if over(&table.primary_key) {
            table.primary_key.clear();
        }
    }

    pub(super) fn rename_column(&mut self, from: &str, to: &str) {
        let table = &mut self.table;
        table.columns.iter_mut().filter(|c| same(&c.name, from)).for_each(|c| c.name = to.into());
        let keys = table.foreign_keys.iter_mut().map(|key| &mut key.columns);
        for name in keys.chain([&mut table.primary_key]).chain(&mut table.unique).flatten() {
            if same(name, from) {
                *name = to.into();
            }
        }
    }

    /// Comments of the text stand where the statement itself declares none.
    pub(super) fn note_comments(&mut self, comments: Comments) {
        let Comments { table, mut columns } = comments;
        self.table.comment = self.table.comment.take().or(table);
        for column in self.table.columns.iter_mut().filter(|column| column.comment.is_none()) {
            column.comment = columns.remove(&column.name.to_lowercase());
        }
    }

    /// What `LIKE` and `INHERITS` take over: columns that are not there yet, in front or behind.
    pub(super) fn copy_columns(&mut self, of: &Table, in_front: bool) {
        let fresh: Vec<Column> =
            of.columns.iter().filter(|c| self.table.column(&c.name).is_none()).cloned().collect();
        let at = if in_front { 0 } else { self.table.columns.len() };
        self.table.columns.splice(at..at, fresh);
    }
}

/// Names are told apart exactly where that is possible, and found without regard to case otherwise.
pub(super) fn same(a: &str, b: &str) -> bool {
    a == b || a.to_lowercase() == b.to_lowercase()
}
