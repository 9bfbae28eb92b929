//! dbt's `manifest.json`: models, seeds, snapshots and sources are tables, tests and constraints are their keys.
//!
//! [`node`] is the part of the format that is read; [`keys`] turns what dbt tests into what the catalog states. The
//! manifest lists only columns that someone has described or tested, so a column that a test names is one as well.

mod keys;
mod node;

use std::collections::HashMap;

use serde::Deserialize;

use self::keys::Relations;
use self::node::{ColumnNode, Node, Source, Test, text_of};
use super::information_schema::lowered;
use super::json::{Entries, entry};
use super::place::position_of;
use super::settle::settle;
use super::{Read, Sieve, SourceError};
use crate::domain::catalog::{Catalog, Column, Table};

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow, default)]
    nodes: Entries<'a>,
    #[serde(borrow, default)]
    sources: Entries<'a>,
}

/// A table on its way, with what names it.
struct Relation<'a> {
    id: String,
    /// From the shortest name to the one that no other relation has.
    names: Vec<String>,
    /// As `ref` or `source` name it: a model by its name, a source's table by its own.
    name: String,
    relation_name: Option<String>,
    table: Table,
    constraints: Vec<node::Constraint>,
    primary_key: Vec<String>,
    /// Where it stands.
    raw: &'a str,
}

/// Reads a manifest; versions differ in fields that are not read here.
pub fn read(text: &str, lenient: bool) -> Result<Read, SourceError> {
    let text = text.trim_start_matches('\u{feff}');
    let document: Document<'_> = serde_json::from_str(text).map_err(|e| SourceError::of_json(&e))?;
    let mut sieve = Sieve::new(lenient);
    let (mut relations, mut tests) = (Vec::new(), Vec::new());
    for (id, raw) in document.nodes.0 {
        let found = entry::<Node<'_>>(text, raw).and_then(|node| match node.resource_type.as_str() {
            "test" => entry::<Test>(text, raw).map(|test| tests.push(test)),
            "model" | "seed" | "snapshot" if node.is_table() => {
                of_node(text, id, node, raw.get()).map(|relation| relations.push(relation))
            }
            // analyses, operations, ephemeral models: nothing that is in the database
            _ => Ok(()),
        });
        if let Err(error) = found {
            sieve.leave_out(error)?;
        }
    }
    for (id, raw) in document.sources.0 {
        match entry::<Source<'_>>(text, raw).and_then(|source| of_source(text, id, source, raw.get())) {
            Ok(relation) => relations.push(relation),
            Err(error) => sieve.leave_out(error)?,
        }
    }
    if relations.is_empty() {
        sieve.leave_out(SourceError::new(1, 1, "the manifest has no model, seed, snapshot or source"))?;
    }
    name_tables(&mut relations);
    let mut known = Relations::new(relations);
    known.declare();
    tests.iter().for_each(|test| known.test(test));
    let (tables, raws): (Vec<Table>, Vec<&str>) = known.finish().into_iter().unzip();
    let catalog = settle(Catalog { tables }, &mut sieve, |at, _| position_of(text, raws[at]))?;
    Ok(Read { catalog, left_out: sieve.into_left_out() })
}

fn of_node<'a>(text: &str, id: String, node: Node<'a>, raw: &'a str) -> Result<Relation<'a>, SourceError> {
    let table = node.alias.clone().filter(|alias| !alias.is_empty()).unwrap_or_else(|| node.name.clone());
    Ok(Relation {
        names: names(&[node.database, node.schema], &table, &id),
        id,
        name: node.name,
        relation_name: node.relation_name,
        table: table_of(text, node.description, node.columns)?,
        constraints: node.constraints,
        primary_key: node.primary_key,
        raw,
    })
}

fn of_source<'a>(
    text: &str,
    id: String,
    source: Source<'a>,
    raw: &'a str,
) -> Result<Relation<'a>, SourceError> {
    let table =
        source.identifier.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| source.name.clone());
    Ok(Relation {
        names: names(&[source.database, source.schema], &table, &id),
        id,
        name: source.name,
        relation_name: source.relation_name,
        table: table_of(text, source.description, source.columns)?,
        constraints: Vec::new(),
        primary_key: Vec::new(),
        raw,
    })
}

fn table_of(text: &str, description: String, columns: Entries<'_>) -> Result<Table, SourceError> {
    let mut table = Table { comment: text_of(description), ..Table::default() };
    for (name, raw) in columns.0 {
        let column: ColumnNode = entry(text, raw)?;
        let is = |word: &str| column.constraints.iter().any(|c| c.kind == word);
        let name = if column.name.is_empty() { name } else { column.name.clone() };
        if is("primary_key") {
            table.primary_key.push(name.clone());
        }
        if is("unique") {
            table.unique.push(vec![name.clone()]);
        }
        table.columns.push(Column {
            data_type: lowered(column.data_type.as_deref().unwrap_or_default()),
            nullable: !is("not_null") && !is("primary_key"),
            default: None,
            comment: text_of(column.description),
            name,
        });
    }
    Ok(table)
}

/// `table`, `schema.table`, `database.schema.table`, and dbt's own id.
fn names(qualifiers: &[Option<String>; 2], table: &str, id: &str) -> Vec<String> {
    let mut names = vec![table.to_string()];
    for qualifier in qualifiers.iter().rev().flatten().filter(|q| !q.is_empty()) {
        names.push(format!("{qualifier}.{}", names[names.len() - 1]));
    }
    names.push(id.to_string());
    names
}

/// Each table gets the shortest of its names that no other table has at the same length.
fn name_tables(relations: &mut [Relation<'_>]) {
    let mut uses: HashMap<String, usize> = HashMap::new();
    for name in relations.iter().flat_map(|relation| &relation.names) {
        *uses.entry(name.clone()).or_default() += 1;
    }
    for relation in relations {
        let free = relation.names.iter().find(|name| uses[*name] == 1);
        relation.table.name = free.unwrap_or(&relation.id).clone();
    }
}
