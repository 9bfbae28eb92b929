//! A table as a prompt shows it: compact, one line per column, abbreviated the same way every time.

use std::fmt::Write;

use super::name::tidy;
use crate::domain::catalog::{Column, Table};

/// Columns that a concept's prompt shows of one table.
pub const SHOWN_COLUMNS: usize = 24;
/// Bytes of one table's text after which no further column is shown.
const TABLE_BYTES: usize = 2_500;
const COMMENT_BYTES: usize = 120;
const TYPE_BYTES: usize = 48;
const NAME_BYTES: usize = 120;

/// The table with its first columns, and the number of those not shown.
pub fn table(table: &Table) -> String {
    let mut text = heading(table);
    let mut left = table.columns.len();
    for column in table.columns.iter().take(SHOWN_COLUMNS) {
        if text.len() > TABLE_BYTES {
            break;
        }
        line(&mut text, table, column);
        left -= 1;
    }
    if left > 0 {
        let _ = writeln!(text, "  ... and {left} more columns");
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

/// A name as it can stand in a line of text: a control character shows as a blank, and a long one is cut. The
/// answer holds it whole, by grammar.
pub fn shown(name: &str) -> String {
    cut(name, NAME_BYTES).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The text if it has at most `max_bytes`, else so much of its beginning, marked as cut.
pub fn cut(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_string();
    }
    format!("{}…", &text[..text.floor_char_boundary(max_bytes)])
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
