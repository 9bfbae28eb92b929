//! One element of a table: a column or a constraint.

use sqlparser::ast::ColumnOption;

use super::Dialect;
use super::column::{Definition, data_type, definition};
use super::draft::Draft;
use super::walk::{Found, Walk, spelled, table_name};
use crate::domain::catalog::{Column, ForeignKey};

pub(super) fn element(draft: &mut Draft, mut walk: Walk<'_>) -> Found<()> {
    if walk.tokens.is_empty() {
        return Err(walk.expected("a column or a constraint"));
    }
    let place = walk.place();
    let mut constraint = None;
    let mut is_constraint = false;
    if walk.is_unquoted("CONSTRAINT") {
        walk.at += 1;
        is_constraint = true;
        let named = !["PRIMARY", "UNIQUE", "FOREIGN", "CHECK", "EXCLUDE"].iter().any(|w| walk.is_word(w));
        if named {
            constraint = Some(walk.identifier()?);
        }
    }
    if walk.is_unquoted("PRIMARY") && walk.is_word_at(1, "KEY") {
        walk.at += 2;
        let columns = walk.key_columns()?;
        draft.primary_key(constraint, columns, place);
    } else if walk.is_unquoted("UNIQUE") {
        walk.at += 1;
        let columns = walk.key_columns()?;
        draft.unique(constraint, columns, place);
    } else if walk.is_unquoted("FOREIGN") && walk.is_word_at(1, "KEY") {
        walk.at += 2;
        let columns = walk.key_columns()?;
        if !walk.word("REFERENCES") {
            return Err(walk.expected("REFERENCES"));
        }
        let ref_table = walk.name()?;
        let ref_columns = match walk.parens() {
            Some(body) => body.plain_columns().ok_or_else(|| body.expected("column names"))?,
            None => Vec::new(),
        };
        draft.foreign_key(ForeignKey { name: constraint, columns, ref_table, ref_columns }, place);
    } else if walk.dialect == Dialect::MsSql && walk.is_word("DEFAULT") {
        default_for(draft, walk);
    } else if is_constraint && walk.words(&["NOT", "NULL"]) {
        let name = walk.identifier()?;
        draft.column(&name).into_iter().for_each(|column| column.nullable = false);
    } else if !is_constraint && !walk.is_no_column() {
        return column(draft, walk);
    }
    // CHECK, EXCLUDE, INDEX, PERIOD … say nothing the catalog keeps
    Ok(())
}

/// SQL Server's `DEFAULT … FOR column`.
fn default_for(draft: &mut Draft, walk: Walk<'_>) {
    let tokens = walk.rest().tokens;
    let Some(at) = (1..tokens.len()).rev().find(|at| Walk { at: *at, ..walk.rest() }.is_word("FOR")) else {
        return;
    };
    let name = Walk { at: at + 1, ..walk.rest() }.identifier();
    if let Some(column) = name.ok().and_then(|name| draft.column(&name)) {
        column.default = Some(spelled(&tokens[1..at]));
    }
}

fn column(draft: &mut Draft, walk: Walk<'_>) -> Found<()> {
    let place = walk.place();
    let (column, keys) = read_column(walk)?;
    if draft.table.columns.iter().any(|c| c.name == column.name) {
        let message = format!("column '{}' is defined twice in table '{}'", column.name, draft.table.name);
        return Err(place.error(message));
    }
    let name = column.name.clone();
    draft.table.columns.push(column);
    if let Some(constraint) = keys.primary_key {
        draft.primary_key(constraint, vec![name.clone()], place);
    }
    if let Some(constraint) = keys.unique {
        draft.unique(constraint, vec![name], place);
    }
    keys.foreign_keys.into_iter().for_each(|key| draft.foreign_key(key, place));
    Ok(())
}

/// Keys that a column's own definition declares, each with its constraint's name.
#[derive(Default)]
pub(super) struct ColumnKeys {
    primary_key: Option<Option<String>>,
    unique: Option<Option<String>>,
    foreign_keys: Vec<ForeignKey>,
}

pub(super) fn read_column(walk: Walk<'_>) -> Found<(Column, ColumnKeys)> {
    let mut keys = ColumnKeys::default();
    let def = match definition(&walk)? {
        Definition::Computed { name, expression } => {
            return Ok((
                Column { name, nullable: true, default: Some(expression), ..Column::default() },
                keys,
            ));
        }
        Definition::Parsed(def) => def,
    };
    let name = walk.folded(&def.name.value, def.name.quote_style);
    let data_type = data_type(&def.data_type, walk.dialect);
    let mut column = Column { name: name.clone(), data_type, nullable: true, default: None, comment: None };
    for option in def.options {
        let constraint = option.name.map(|name| name.value);
        match option.option {
            ColumnOption::NotNull => column.nullable = false,
            ColumnOption::Default(value) => column.default = Some(value.to_string()),
            ColumnOption::Comment(text) => column.comment = Some(text),
            ColumnOption::PrimaryKey(_) => {
                keys.primary_key = Some(constraint);
                column.nullable = false;
            }
            ColumnOption::Unique(_) => keys.unique = Some(constraint),
            ColumnOption::ForeignKey(key) => {
                let folded = |name: &sqlparser::ast::Ident| walk.folded(&name.value, name.quote_style);
                let parts: Vec<String> =
                    key.foreign_table.0.iter().filter_map(|p| p.as_ident()).map(folded).collect();
                keys.foreign_keys.push(ForeignKey {
                    name: constraint,
                    columns: vec![name.clone()],
                    ref_table: table_name(walk.dialect, &parts),
                    ref_columns: key.referred_columns.iter().map(folded).collect(),
                });
            }
            _ => {}
        }
    }
    Ok((column, keys))
}
