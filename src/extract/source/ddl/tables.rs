//! The tables that a script has made so far, by name.

use std::collections::HashMap;

use super::draft::{Draft, same};
use crate::domain::catalog::{Catalog, ForeignKey};
use crate::extract::source::settle::{Part, settle};
use crate::extract::source::{Sieve, SourceError};

#[derive(Default)]
pub(super) struct Tables {
    /// Dropped ones stay as `None`, so that places stand.
    drafts: Vec<Option<Draft>>,
    exact: HashMap<String, usize>,
    /// In lower case, for names that are spelled otherwise where they are used.
    folded: HashMap<String, usize>,
    /// How many have been handed out by [`Tables::fresh`].
    seen: usize,
}

impl Tables {
    /// Exactly as written.
    pub(super) fn has(&self, name: &str) -> bool {
        self.exact.contains_key(name)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Draft> {
        self.position(name).and_then(|at| self.drafts[at].as_ref())
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Draft> {
        self.position(name).and_then(|at| self.drafts[at].as_mut())
    }

    /// The table that was made since the last call.
    pub(super) fn fresh(&mut self) -> Option<&mut Draft> {
        let from = std::mem::replace(&mut self.seen, self.drafts.len());
        self.drafts[from..].iter_mut().flatten().next()
    }

    pub(super) fn insert(&mut self, draft: Draft) {
        self.index(&draft.table.name, self.drafts.len());
        self.drafts.push(Some(draft));
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(at) = self.position(name)
            && let Some(draft) = self.drafts[at].take()
        {
            self.forget(&draft.table.name, at);
        }
    }

    /// Keys that point to the table follow it.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        let Some(at) = self.position(from) else { return };
        // the schema stays where the new name has none
        let to = match from.rsplit_once('.') {
            Some((schema, _)) if !to.contains('.') => format!("{schema}.{to}"),
            _ => to.to_string(),
        };
        self.foreign_keys(from).for_each(|key| key.ref_table.clone_from(&to));
        if let Some(mut draft) = self.drafts[at].take() {
            self.forget(&draft.table.name, at);
            draft.table.name = to;
            self.index(&draft.table.name, at);
            self.drafts[at] = Some(draft);
        }
    }

    /// Keys that point to the column follow it; the table itself has it under its new name already.
    pub(super) fn rename_column(&mut self, table: &str, from: &str, to: &str) {
        let names = self.foreign_keys(table).flat_map(|key| &mut key.ref_columns);
        names.filter(|column| same(column, from)).for_each(|column| *column = to.into());
    }

    fn foreign_keys<'a>(&'a mut self, table: &'a str) -> impl Iterator<Item = &'a mut ForeignKey> {
        let keys = self.drafts.iter_mut().flatten().flat_map(|draft| &mut draft.table.foreign_keys);
        keys.filter(move |key| same(&key.ref_table, table))
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.exact.get(name).or_else(|| self.folded.get(&name.to_lowercase())).copied()
    }

    fn index(&mut self, name: &str, at: usize) {
        self.exact.insert(name.to_string(), at);
        self.folded.entry(name.to_lowercase()).or_insert(at);
    }

    fn forget(&mut self, name: &str, at: usize) {
        self.exact.remove(name);
        if self.folded.get(&name.to_lowercase()) == Some(&at) {
            self.folded.remove(&name.to_lowercase());
        }
    }

    /// Names in keys take the spelling of what they refer to.
    pub(super) fn finish(self, sieve: &mut Sieve) -> Result<Catalog, SourceError> {
        let mut drafts: Vec<Draft> = self.drafts.into_iter().flatten().filter(|d| !d.is_part).collect();
        let names: HashMap<String, String> =
            drafts.iter().map(|d| (d.table.name.to_lowercase(), d.table.name.clone())).collect();
        let columns: HashMap<String, Vec<String>> = drafts
            .iter()
            .map(|d| (d.table.name.clone(), d.table.columns.iter().map(|c| c.name.clone()).collect()))
            .collect();
        for table in drafts.iter_mut().map(|draft| &mut draft.table) {
            let own = &columns[&table.name];
            spell(&mut table.primary_key, own);
            table.unique.iter_mut().for_each(|key| spell(key, own));
            for column in &mut table.columns {
                column.nullable &= !table.primary_key.contains(&column.name);
            }
            let mut keys: Vec<ForeignKey> = Vec::new();
            for mut key in std::mem::take(&mut table.foreign_keys) {
                spell(&mut key.columns, own);
                if !columns.contains_key(&key.ref_table)
                    && let Some(name) = names.get(&key.ref_table.to_lowercase())
                {
                    key.ref_table = name.clone();
                }
                if let Some(theirs) = columns.get(&key.ref_table) {
                    spell(&mut key.ref_columns, theirs);
                }
                let same = |k: &ForeignKey| {
                    (&k.columns, &k.ref_table, &k.ref_columns)
                        == (&key.columns, &key.ref_table, &key.ref_columns)
                };
                if !keys.iter().any(same) {
                    keys.push(key);
                }
            }
            table.foreign_keys = keys;
        }
        let tables = drafts.iter_mut().map(|draft| std::mem::take(&mut draft.table)).collect();
        settle(Catalog { tables }, sieve, |at, part| match part {
            Part::Key(columns) => drafts[at].place_of_key(columns).line_and_column(),
            Part::Table | Part::Column(_) => drafts[at].place.line_and_column(),
        })
    }
}

fn spell(names: &mut [String], known: &[String]) {
    for name in names {
        if !known.contains(name)
            && let Some(spelling) = known.iter().find(|k| same(k, name))
        {
            *name = spelling.clone();
        }
    }
}
