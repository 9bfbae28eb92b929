//! Links that names suggest and the schema does not declare, for the model to judge.
//!
//! A column `customer_id`, `billing_customer_no` or `CUSTNO` may refer to a table of that name, or to one
//! whose primary key has that very name. Columns of a declared key are left alone, types must agree.

use std::collections::{HashMap, HashSet};

use super::item::Link;
use super::name;
use crate::domain::catalog::{Catalog, Table};

/// Links of one column, and of one table.
const PER_COLUMN: usize = 2;
const PER_TABLE: usize = 6;

/// Candidates by table, in catalog order. Linear in the size of the catalog.
pub fn links(catalog: &Catalog) -> Vec<Vec<Link>> {
    let index = Index::new(catalog);
    (0..catalog.tables.len())
        .map(|at| {
            let mut links = index.of_table(at);
            let mut seen = HashSet::new();
            links.retain(|link| seen.insert(link.text(catalog)));
            links.truncate(PER_TABLE);
            links
        })
        .collect()
}

struct Index<'a> {
    catalog: &'a Catalog,
    by_name: HashMap<String, Vec<usize>>,
    /// Tables by the words of their single primary key column, unless that says nothing (`id`).
    by_key: HashMap<String, Vec<usize>>,
}

impl<'a> Index<'a> {
    fn new(catalog: &'a Catalog) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        let mut by_key: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, table) in catalog.tables.iter().enumerate() {
            by_name.entry(name::table_words(&table.name).join(" ")).or_default().push(at);
            if let Some(key) = target_column(table) {
                let words = name::words(&table.columns[key].name);
                if words.len() > 1 || words.first().is_some_and(|w| w.len() > 4 && !name::is_key_word(w)) {
                    by_key.entry(words.join(" ")).or_default().push(at);
                }
            }
        }
        Self { catalog, by_name, by_key }
    }

    fn of_table(&self, at: usize) -> Vec<Link> {
        let table = &self.catalog.tables[at];
        if table.columns.is_empty() {
            return self.of_name(at);
        }
        let declared: HashSet<&str> =
            table.foreign_keys.iter().flat_map(|k| k.columns.iter().map(String::as_str)).collect();
        let mut links = Vec::new();
        for (c, column) in table.columns.iter().enumerate() {
            let alone_key = table.primary_key.len() == 1 && table.primary_key[0] == column.name;
            if declared.contains(column.name.as_str()) || alone_key {
                continue;
            }
            let targets = self.targets(at, &column.name);
            let fits = targets.into_iter().filter_map(|to| {
                let key = target_column(&self.catalog.tables[to])?;
                let itself = to == at && key == c;
                let agree =
                    family(&column.data_type) == family(&self.catalog.tables[to].columns[key].data_type);
                (!itself && agree).then_some(Link { from: (at, Some(c)), to: (to, Some(key)) })
            });
            links.extend(fits.take(PER_COLUMN));
        }
        links
    }

    fn targets(&self, at: usize, column: &str) -> Vec<usize> {
        let words = name::words(column);
        let mut targets: Vec<usize> = self.by_key.get(&words.join(" ")).cloned().unwrap_or_default();
        if let Some((last, stem)) = words.split_last()
            && name::is_key_word(last)
            && !stem.is_empty()
        {
            if ["parent", "manager", "supervisor", "previous"].contains(&stem[stem.len() - 1].as_str()) {
                targets.push(at);
            }
            // `billing customer` is tried before `customer`
            for from in 0..stem.len() {
                let mut stem = stem[from..].to_vec();
                if let Some(last) = stem.last_mut() {
                    *last = name::singular(last);
                }
                if let Some(found) = self.by_name.get(&stem.join(" ")) {
                    targets.extend(found);
                    break;
                }
            }
        }
        let mut seen = HashSet::new();
        targets.retain(|to| seen.insert(*to));
        targets
    }

    /// Of a table known by name only: tables, known as little, whose name begins or ends its own.
    fn of_name(&self, at: usize) -> Vec<Link> {
        let words: Vec<String> =
            name::table_words(&self.catalog.tables[at].name).iter().map(|w| name::singular(w)).collect();
        let mut links = Vec::new();
        for n in (1..words.len()).rev() {
            for part in [&words[..n], &words[words.len() - n..]] {
                for to in self.by_name.get(&part.join(" ")).into_iter().flatten() {
                    if *to != at && self.catalog.tables[*to].columns.is_empty() {
                        links.push(Link { from: (at, None), to: (*to, None) });
                    }
                }
            }
        }
        links
    }
}

/// The column by which others would refer to a table: its only key column, or, without keys, its first one.
fn target_column(table: &Table) -> Option<usize> {
    let position = |name: &str| table.columns.iter().position(|c| c.name == name);
    match table.primary_key.as_slice() {
        [one] => position(one),
        [] => match table.unique.iter().find(|key| key.len() == 1) {
            Some(key) => position(&key[0]),
            None => (!table.columns.is_empty()).then_some(0),
        },
        _ => None,
    }
}

/// Types between which a reference makes sense; an unknown type agrees only with an unknown one.
fn family(data_type: &str) -> &'static str {
    let base = data_type.trim().to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| base.contains(w));
    if base.is_empty() {
        "unknown"
    } else if has(&["uuid", "uniqueidentifier"]) {
        "uuid"
    } else if has(&["date", "time", "interval"]) {
        "time"
    } else if has(&["int", "serial", "num", "dec"]) {
        "number"
    } else if has(&["char", "text", "clob", "string"]) {
        "text"
    } else {
        "other"
    }
}
