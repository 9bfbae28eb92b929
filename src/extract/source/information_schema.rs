//! Rows of a live database's catalog → our catalog. The rows are read by `store`; here they are joined.

use std::collections::HashMap;

use super::{SourceError, checked};
use crate::domain::catalog::{Catalog, Column, ForeignKey, Table};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableRow {
    pub schema: String,
    pub table: String,
    pub comment: Option<String>,
    pub row_estimate: Option<i64>,
}

/// In ordinal order within their table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ColumnRow {
    pub schema: String,
    pub table: String,
    pub column: String,
    pub data_type: String,
    pub nullable: bool,
    pub default: Option<String>,
    pub comment: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    PrimaryKey,
    Unique,
    ForeignKey { ref_schema: String, ref_table: String, ref_columns: Vec<String> },
}

#[derive(Clone, Debug, PartialEq)]
pub struct ConstraintRow {
    pub schema: String,
    pub table: String,
    pub name: String,
    pub columns: Vec<String>,
    pub constraint: Constraint,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    pub tables: Vec<TableRow>,
    pub columns: Vec<ColumnRow>,
    pub constraints: Vec<ConstraintRow>,
}

/// Builds the catalog; rows of tables that are not listed are passed over.
pub fn build(rows: Rows, default_schema: &str) -> Result<Catalog, SourceError> {
    let name = |schema: &str, table: &str| {
        if schema == default_schema { table.to_string() } else { format!("{schema}.{table}") }
    };
    let mut catalog = Catalog::default();
    let mut by_name: HashMap<String, usize> = HashMap::new();
    for row in rows.tables {
        let name = name(&row.schema, &row.table);
        by_name.insert(name.clone(), catalog.tables.len());
        let table = Table { name, comment: row.comment, row_estimate: row.row_estimate, ..Table::default() };
        catalog.tables.push(table);
    }
    for row in rows.columns {
        let Some(at) = by_name.get(&name(&row.schema, &row.table)) else { continue };
        catalog.tables[*at].columns.push(Column {
            name: row.column,
            data_type: lowered(&row.data_type),
            nullable: row.nullable,
            default: row.default,
            comment: row.comment,
        });
    }
    for row in rows.constraints {
        let Some(at) = by_name.get(&name(&row.schema, &row.table)) else { continue };
        let table = &mut catalog.tables[*at];
        match row.constraint {
            Constraint::PrimaryKey => table.primary_key = row.columns,
            Constraint::Unique => table.unique.push(row.columns),
            Constraint::ForeignKey { ref_schema, ref_table, ref_columns } => {
                table.foreign_keys.push(ForeignKey {
                    name: Some(row.name),
                    columns: row.columns,
                    ref_table: name(&ref_schema, &ref_table),
                    ref_columns,
                });
            }
        }
    }
    checked(catalog)
}

/// A type's spelling in lower case, but for what is quoted: the values of an enumeration keep theirs.
pub(super) fn lowered(text: &str) -> String {
    let mut quoted = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        quoted ^= c == '\'';
        if quoted { out.push(c) } else { out.extend(c.to_lowercase()) }
    }
    out
}
