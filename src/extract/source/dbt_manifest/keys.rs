//! dbt's tests and constraints as keys: `unique`, `not_null`, `relationships`, `accepted_values`, and the constraints of
//! a contract.

use std::collections::{HashMap, HashSet};

use super::Relation;
use super::node::Test;
use crate::domain::catalog::{Column, ForeignKey, Table};

/// Values of a column that its comment lists.
const MAX_VALUES: usize = 20;

pub(super) struct Relations<'a> {
    list: Vec<Relation<'a>>,
    by_id: HashMap<String, usize>,
    /// By how `ref`, `source` and the database name them.
    by_name: HashMap<String, usize>,
    /// Columns that a test finds without gaps.
    filled: HashSet<(usize, String)>,
}

impl<'a> Relations<'a> {
    pub fn new(list: Vec<Relation<'a>>) -> Self {
        let by_id = list.iter().enumerate().map(|(at, r)| (r.id.clone(), at)).collect();
        let mut by_name = HashMap::new();
        for (at, relation) in list.iter().enumerate() {
            let names = relation.names.iter().chain([&relation.name]).chain(&relation.relation_name);
            for name in names {
                by_name.entry(plain(name)).or_insert(at);
            }
        }
        Self { list, by_id, by_name, filled: HashSet::new() }
    }

    /// Takes in the constraints of contracts.
    pub fn declare(&mut self) {
        for at in 0..self.list.len() {
            for constraint in std::mem::take(&mut self.list[at].constraints) {
                let columns = constraint.columns;
                if columns.is_empty() {
                    continue;
                }
                columns.iter().for_each(|name| self.column(at, name));
                match constraint.kind.as_str() {
                    "primary_key" => self.list[at].table.primary_key = columns,
                    "unique" => unique(&mut self.list[at].table, columns),
                    "not_null" => self.filled.extend(columns.into_iter().map(|name| (at, name))),
                    "foreign_key" => {
                        if let Some(to) = &constraint.to {
                            let target = self.named(to);
                            self.link(at, columns, target, to, constraint.to_columns);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Takes in a test of one relation; other tests state nothing that the catalog keeps.
    pub fn test(&mut self, test: &Test) {
        let (Some(name), Some(at)) = (test.name(), self.tested(test)) else { return };
        let column = test.text("column_name").or(test.column_name.as_deref());
        let column = column.map(|name| name.trim_matches(['"', '`']).to_string());
        let column = column.filter(|name| self.is_column(at, name));
        match (name, column) {
            ("unique", Some(column)) => {
                self.column(at, &column);
                unique(&mut self.list[at].table, vec![column]);
            }
            ("not_null", Some(column)) => {
                self.column(at, &column);
                self.filled.insert((at, column));
            }
            ("relationships", Some(column)) => {
                let Some(to) = test.text("to") else { return };
                let target = self.target(test, at, to);
                let fields = test.text("field").map(|field| vec![field.to_string()]).unwrap_or_default();
                self.column(at, &column);
                self.link(at, vec![column], target, to, fields);
            }
            ("accepted_values", Some(column)) => {
                self.column(at, &column);
                self.accept(at, &column, &test.texts("values"));
            }
            ("unique_combination_of_columns", _) => {
                self.combination(at, test.texts("combination_of_columns"))
            }
            ("expect_compound_columns_to_be_unique", _) => self.combination(at, test.texts("column_list")),
            _ => {}
        }
    }

    /// Keys are complete: a column that is unique and never empty is the primary key where nobody declared another.
    pub fn finish(mut self) -> Vec<(Table, &'a str)> {
        for (at, relation) in self.list.iter_mut().enumerate() {
            let table = &mut relation.table;
            for column in &mut table.columns {
                column.nullable &= !self.filled.contains(&(at, column.name.clone()));
            }
            let full =
                |key: &&Vec<String>| key.iter().all(|name| table.column(name).is_some_and(|c| !c.nullable));
            if table.primary_key.is_empty() {
                let declared = Some(&relation.primary_key).filter(|key| table.unique.contains(key));
                let key = declared.or_else(|| table.unique.iter().find(full)).cloned();
                table.primary_key = key.unwrap_or_default();
            }
            let primary = table.primary_key.clone();
            table.unique.retain(|key| *key != primary);
            for column in &mut table.columns {
                column.nullable &= !primary.contains(&column.name);
            }
        }
        self.list.into_iter().map(|relation| (relation.table, relation.raw)).collect()
    }

    /// The relation that a test is of.
    fn tested(&self, test: &Test) -> Option<usize> {
        if let Some(id) = &test.attached_node {
            return self.by_id.get(id).copied();
        }
        // manifests before v9 say it only in words
        let named = test.text("model").and_then(|expression| self.named(expression));
        named.or_else(|| test.nodes().iter().rev().find_map(|id| self.by_id.get(id).copied()))
    }

    /// Of what the test depends on, the relation that `to` names; else the one that is not tested itself.
    fn target(&self, test: &Test, tested: usize, to: &str) -> Option<usize> {
        let nodes: Vec<usize> = test.nodes().iter().filter_map(|id| self.by_id.get(id).copied()).collect();
        let name = arguments(to).pop();
        let named = nodes.iter().find(|at| name.as_deref() == Some(self.list[**at].name.as_str()));
        named.or_else(|| nodes.iter().find(|at| **at != tested)).copied().or_else(|| self.named(to))
    }

    /// By `ref('…')`, `source('…', '…')` or a relation's name.
    fn named(&self, expression: &str) -> Option<usize> {
        let name = arguments(expression).pop().unwrap_or_else(|| expression.to_string());
        self.by_name.get(&plain(&name)).copied()
    }

    fn link(
        &mut self,
        at: usize,
        columns: Vec<String>,
        target: Option<usize>,
        to: &str,
        fields: Vec<String>,
    ) {
        let ref_table = match target {
            Some(target) => {
                fields.iter().for_each(|name| self.column(target, name));
                self.list[target].table.name.clone()
            }
            // a model that is disabled, or of another project
            None => arguments(to).pop().unwrap_or_else(|| plain(to)),
        };
        let key = ForeignKey { name: None, columns, ref_table, ref_columns: fields };
        let keys = &mut self.list[at].table.foreign_keys;
        if !keys.contains(&key) {
            keys.push(key);
        }
    }

    fn combination(&mut self, at: usize, columns: Vec<String>) {
        if columns.iter().all(|name| self.is_column(at, name)) {
            columns.iter().for_each(|name| self.column(at, name));
            unique(&mut self.list[at].table, columns);
        }
    }

    fn accept(&mut self, at: usize, column: &str, values: &[String]) {
        let Some(column) = self.list[at].table.columns.iter_mut().find(|c| c.name == column) else { return };
        let shown: Vec<&str> = values.iter().take(MAX_VALUES).map(String::as_str).collect();
        let more = if values.len() > MAX_VALUES { ", …" } else { "" };
        let list = format!("One of: {}{more}", shown.join(", "));
        column.comment = Some(match column.comment.take() {
            Some(comment) => format!("{comment} {list}"),
            None => list,
        });
    }

    /// A test may be over an expression, which is no column.
    fn is_column(&self, at: usize, name: &str) -> bool {
        let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
        self.list[at].table.column(name).is_some() || (!name.is_empty() && name.chars().all(plain))
    }

    /// Sees to it that the table has a column of this name.
    fn column(&mut self, at: usize, name: &str) {
        let table = &mut self.list[at].table;
        if table.column(name).is_none() {
            table.columns.push(Column { name: name.into(), nullable: true, ..Column::default() });
        }
    }
}

fn unique(table: &mut Table, columns: Vec<String>) {
    if !columns.is_empty() && !table.unique.contains(&columns) {
        table.unique.push(columns);
    }
}

/// The string arguments of `ref('…')` or `source('…', "…")`.
fn arguments(expression: &str) -> Vec<String> {
    let mut found = Vec::new();
    let at =
        ["ref(", "source("].iter().filter_map(|call| expression.find(call).map(|at| at + call.len())).min();
    let mut rest = at.map_or("", |at| &expression[at..]);
    while let Some(at) = rest.find(['\'', '"', ')']) {
        let quote = rest.as_bytes()[at] as char;
        let Some((inside, behind)) = rest[at + 1..].split_once(quote).filter(|_| quote != ')') else { break };
        found.push(inside.to_string());
        rest = behind;
    }
    found
}

/// A relation's name without the database's quotes.
fn plain(name: &str) -> String {
    name.replace(['"', '`', '[', ']'], "")
}
