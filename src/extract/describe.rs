//! A table as a prompt shows it: compact, one line per column, abbreviated the same way every time.

use std::fmt::Write;

use super::name::tidy;
use crate::domain::catalog::{Column, Table};

/// Columns that a concept's prompt shows of one table.
pub const SHOWN_COLUMNS: usize = 24;
const COMMENT_BYTES: usize = 120;
const TYPE_BYTES: usize = 48;

/// The table with its first columns, and the number of those not shown.
pub fn table(table: &Table) -> String {
    let mut text = heading(table);
    for column in table.columns.iter().take(SHOWN_COLUMNS) {
        line(&mut text, table, column);
    }
    if table.columns.len() > SHOWN_COLUMNS {
        let _ = writeln!(text, "  ... and {} more columns", table.columns.len() - SHOWN_COLUMNS);
    }
    text
}

/// The table with the columns of a range only.
pub fn columns(table: &Table, from: usize, to: usize) -> String {
    let mut text = heading(table);
    for column in &table.columns[from..to] {
        line(&mut text, table, column);
    }
    text
}

/// A name as it can stand in a line of text: a control character shows as a blank.
pub fn shown(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn heading(table: &Table) -> String {
    let mut text = format!("table {}", shown(&table.name));
    if let Some(comment) = &table.comment {
        let _ = write!(text, ": {}", tidy(comment, COMMENT_BYTES));
    }
    text.push('\n');
    text
}

fn line(text: &mut String, table: &Table, column: &Column) {
    let _ = write!(text, "  {}", shown(&column.name));
    if !column.data_type.is_empty() {
        let _ = write!(text, " {}", tidy(&column.data_type, TYPE_BYTES));
    }
    if table.primary_key.contains(&column.name) {
        text.push_str(" key");
    }
    let key = table.foreign_keys.iter().find(|key| key.columns.contains(&column.name));
    if let Some(key) = key {
        let _ = write!(text, " -> {}", shown(&key.ref_table));
    }
    if let Some(comment) = &column.comment {
        let _ = write!(text, ": {}", tidy(comment, COMMENT_BYTES));
    }
    text.push('\n');
}
