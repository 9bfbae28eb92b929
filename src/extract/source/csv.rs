//! A CSV of columns, one per row: table, column, and what else is known. Header names are read flexibly.

use std::collections::HashMap;

use ::csv::{ReaderBuilder, Trim};

use super::settle::settle;
use super::{Read, Sieve, SourceError};
use crate::domain::catalog::{Catalog, Column, ForeignKey, Table};

const TABLE: &[&str] = &["table", "tablename"];
const SCHEMA: &[&str] = &["schema", "tableschema", "schemaname"];
const COLUMN: &[&str] = &["column", "columnname", "field", "fieldname"];
const TYPE: &[&str] = &["type", "datatype", "columntype"];
const NULLABLE: &[&str] = &["nullable", "isnullable", "null"];
const KEY: &[&str] = &["key", "columnkey", "primarykey", "pk", "ispk", "isprimarykey"];
const REFERENCES: &[&str] = &["references", "foreignkey", "fk", "ref"];
const DEFAULT: &[&str] = &["default", "columndefault"];
const COMMENT: &[&str] = &["comment", "columncomment", "description"];
const TABLE_COMMENT: &[&str] = &["tablecomment", "tabledescription"];

/// Reads a CSV with a header that names at least the table; comma, semicolon or tab separate.
///
/// `references` is `table` or `table.column`; `key` is `pri`, `pk`, `primary`, `uni`, `unique` or a yes. Rows that say
/// the same of a table or column twice are faults; with `lenient` they are listed and the first one counts.
pub fn read(text: &str, lenient: bool) -> Result<Read, SourceError> {
    let text = text.trim_start_matches('\u{feff}');
    let head = text.lines().next().unwrap_or("");
    let delimiter = [b',', b';', b'\t']
        .into_iter()
        .max_by_key(|d| head.bytes().filter(|b| b == d).count())
        .unwrap_or(b',');
    let mut reader = ReaderBuilder::new()
        .delimiter(if head.bytes().any(|b| b == delimiter) { delimiter } else { b',' })
        .trim(Trim::All)
        .flexible(true)
        .from_reader(text.as_bytes());
    let header = reader.headers().map_err(|e| of_csv(&e))?.clone();
    let place = |names: &[&str]| header.iter().position(|h| names.contains(&plain(h).as_str()));
    let table_at =
        place(TABLE).ok_or_else(|| SourceError::new(1, 1, "the header names no column 'table'"))?;
    let places: Vec<Option<usize>> =
        [SCHEMA, COLUMN, TYPE, NULLABLE, KEY, REFERENCES, DEFAULT, COMMENT, TABLE_COMMENT]
            .map(place)
            .to_vec();
    let mut catalog = Catalog::default();
    let mut by_name: HashMap<String, usize> = HashMap::new();
    let mut lines = Vec::new();
    let mut sieve = Sieve::new(lenient);
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                sieve.leave_out(of_csv(&error))?;
                continue;
            }
        };
        let line = record.position().map_or(1, ::csv::Position::line);
        let cell = |n: usize| places[n].and_then(|at| record.get(at)).filter(|c| !c.is_empty());
        let name = record.get(table_at).unwrap_or("");
        if name.is_empty() {
            sieve.leave_out(SourceError::new(line, table_at as u64 + 1, "the table's name is empty"))?;
            continue;
        }
        let name = match cell(0) {
            Some(schema) if !["public", "dbo", "main"].contains(&schema) => format!("{schema}.{name}"),
            _ => name.to_string(),
        };
        let at = *by_name.entry(name.clone()).or_insert(catalog.tables.len());
        if at == catalog.tables.len() {
            catalog.tables.push(Table { name, ..Table::default() });
            lines.push(line);
        }
        let table = &mut catalog.tables[at];
        if let Some(comment) = cell(8) {
            table.comment = Some(comment.into());
        }
        if let Some(column) = cell(1) {
            if let Err(error) = add_column(table, column, &cell, line) {
                sieve.leave_out(error)?;
            }
        } else if let Some(comment) = cell(7) {
            table.comment = Some(comment.into());
        }
    }
    let catalog = settle(catalog, &mut sieve, |at, _| (lines[at], 1))?;
    Ok(Read { catalog, left_out: sieve.into_left_out() })
}

fn add_column<'a>(
    table: &mut Table,
    column: &str,
    cell: &impl Fn(usize) -> Option<&'a str>,
    line: u64,
) -> Result<(), SourceError> {
    if table.column(column).is_some() {
        let message = format!("column '{column}' of table '{}' is listed twice", table.name);
        return Err(SourceError::new(line, 1, message));
    }
    let mut nullable = cell(3).is_none_or(|word| !is_no(word));
    let key = cell(4).map(plain).unwrap_or_default();
    if matches!(key.as_str(), "uni" | "unique" | "uk" | "u") {
        table.unique.push(vec![column.into()]);
    } else if matches!(key.as_str(), "pri" | "pk" | "primary" | "primarykey" | "p") || is_yes(&key) {
        table.primary_key.push(column.into());
        nullable = false;
    }
    if let Some(target) = cell(5) {
        let (ref_table, ref_columns) = match target.trim_end_matches(')').split_once('(') {
            Some((table, column)) => (table.trim(), vec![column.trim().to_string()]),
            None => match target.rsplit_once('.') {
                Some((table, column)) => (table, vec![column.to_string()]),
                None => (target, Vec::new()),
            },
        };
        let (ref_table, columns) = (ref_table.to_string(), vec![column.to_string()]);
        table.foreign_keys.push(ForeignKey { name: None, columns, ref_table, ref_columns });
    }
    table.columns.push(Column {
        name: column.into(),
        data_type: cell(2).unwrap_or("").to_lowercase(),
        nullable,
        default: cell(6).map(Into::into),
        comment: cell(7).map(Into::into),
    });
    Ok(())
}

/// Letters and digits only, lower case: `Column Name`, `column_name` and `COLUMNNAME` are one.
fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn is_yes(word: &str) -> bool {
    ["yes", "y", "true", "t", "1", "x"].contains(&plain(word).as_str())
}

fn is_no(word: &str) -> bool {
    ["no", "n", "false", "f", "0", "notnull"].contains(&plain(word).as_str())
}

fn of_csv(error: &::csv::Error) -> SourceError {
    let line = error.position().map_or(1, ::csv::Position::line);
    SourceError::new(line, 1, error.to_string())
}
