//! `ALTER TABLE`: the actions that change what the catalog keeps.

use super::Dialect;
use super::draft::Draft;
use super::element::{element, read_column};
use super::walk::{Found, Walk, spelled};
use crate::extract::source::SourceError;
use crate::extract::source::information_schema::lowered;

/// What an action does beyond its own table.
pub(super) enum Beyond {
    Nothing,
    /// The other table becomes a part of this one.
    Attach(String),
    RenameTable(String),
    RenameColumn {
        from: String,
        to: String,
    },
}

/// Words that begin an action; anything else after an `ADD` goes on with its list.
const VERBS: [&str; 11] =
    ["ADD", "ALTER", "ATTACH", "CHANGE", "CHECK", "COMMENT", "DROP", "MODIFY", "NOCHECK", "RENAME", "SET"];

pub(super) fn begins_action(walk: &Walk<'_>) -> bool {
    VERBS.iter().any(|verb| walk.is_word(verb))
}

/// Takes in one action after `ADD`.
pub(super) fn add(draft: &mut Draft, mut walk: Walk<'_>, errors: &mut Vec<SourceError>) {
    walk.word("COLUMN");
    walk.words(&["IF", "NOT", "EXISTS"]);
    let list = Walk { ..walk }.parens();
    let parts = match list {
        // MySQL: ADD COLUMN (a int, b int)
        Some(list) => list.split_commas(),
        None => vec![walk],
    };
    errors.extend(parts.into_iter().filter_map(|part| element(draft, part).err()));
}

/// Takes in any other action; those that say nothing to the catalog pass.
pub(super) fn change(draft: &mut Draft, mut walk: Walk<'_>) -> Found<Beyond> {
    if walk.words(&["ATTACH", "PARTITION"]) {
        return Ok(Beyond::Attach(walk.name()?));
    }
    if walk.word("RENAME") {
        return rename(draft, walk);
    }
    if walk.word("DROP") {
        return drop(draft, walk).map(|()| Beyond::Nothing);
    }
    if walk.word("COMMENT") {
        walk.at += usize::from(walk.peek(0) == Some(&sqlparser::tokenizer::Token::Eq));
        draft.table.comment = walk.string();
        return Ok(Beyond::Nothing);
    }
    if walk.word("MODIFY") {
        walk.word("COLUMN");
        let name = Walk { ..walk }.identifier()?;
        return redefine(draft, walk, &name).map(|_| Beyond::Nothing);
    }
    if walk.word("CHANGE") {
        walk.word("COLUMN");
        walk.words(&["IF", "EXISTS"]);
        let from = walk.identifier()?;
        let to = redefine(draft, walk, &from)?;
        draft.rename_column(&from, &to);
        return Ok(Beyond::RenameColumn { from, to });
    }
    if walk.word("ALTER") {
        walk.word("COLUMN");
        return alter_column(draft, walk).map(|()| Beyond::Nothing);
    }
    Ok(Beyond::Nothing)
}

fn rename(draft: &mut Draft, mut walk: Walk<'_>) -> Found<Beyond> {
    if ["CONSTRAINT", "INDEX", "KEY"].iter().any(|word| walk.is_word(word)) {
        return Ok(Beyond::Nothing);
    }
    if walk.word("TO") || (walk.dialect == Dialect::MySql && walk.word("AS")) {
        return Ok(Beyond::RenameTable(walk.name()?));
    }
    walk.word("COLUMN");
    let place = walk.place();
    let from = walk.identifier()?;
    if !walk.word("TO") {
        return Err(walk.expected("TO"));
    }
    let to = walk.identifier()?;
    if draft.column(&from).is_none() {
        return Err(place.error(format!("table '{}' has no column '{from}'", draft.table.name)));
    }
    draft.rename_column(&from, &to);
    Ok(Beyond::RenameColumn { from, to })
}

fn drop(draft: &mut Draft, mut walk: Walk<'_>) -> Found<()> {
    if walk.words(&["PRIMARY", "KEY"]) {
        draft.table.primary_key.clear();
        return Ok(());
    }
    let is_constraint = walk.word("CONSTRAINT")
        || walk.words(&["FOREIGN", "KEY"])
        || (walk.dialect == Dialect::MySql && (walk.word("INDEX") || walk.word("KEY")));
    if !is_constraint
        && !walk.word("COLUMN")
        && ["PARTITION", "PERIOD", "CHECK"].iter().any(|w| walk.is_word(w))
    {
        return Ok(());
    }
    walk.words(&["IF", "EXISTS"]);
    let name = walk.identifier()?;
    if is_constraint {
        draft.drop_constraint(&name)
    } else {
        draft.drop_column(&name)
    }
    Ok(())
}

/// A column's whole definition anew, in its old place; returns the new name. Keys that it declares come on top.
fn redefine(draft: &mut Draft, walk: Walk<'_>, name: &str) -> Found<String> {
    let place = walk.place();
    let (mut column, _) = read_column(walk)?;
    let table = draft.table.name.clone();
    let Some(old) = draft.column(name) else {
        return Err(place.error(format!("table '{table}' has no column '{name}'")));
    };
    let fresh = column.name.clone();
    column.name = old.name.clone();
    if walk.dialect == Dialect::MsSql {
        // SQL Server keeps what the statement cannot say
        (column.default, column.comment) = (old.default.take(), old.comment.take());
    }
    *old = column;
    Ok(fresh)
}

fn alter_column(draft: &mut Draft, mut walk: Walk<'_>) -> Found<()> {
    let place = walk.place();
    let start = walk;
    let name = walk.identifier()?;
    let table = draft.table.name.clone();
    if walk.dialect == Dialect::MsSql && !["ADD", "DROP", "SET"].iter().any(|w| walk.is_word(w)) {
        return redefine(draft, start, &name).map(|_| ());
    }
    let Some(column) = draft.column(&name) else {
        return Err(place.error(format!("table '{table}' has no column '{name}'")));
    };
    if walk.words(&["SET", "NOT", "NULL"]) {
        column.nullable = false;
    } else if walk.words(&["DROP", "NOT", "NULL"]) {
        column.nullable = true;
    } else if walk.words(&["SET", "DEFAULT"]) {
        column.default = Some(spelled(walk.rest().tokens));
    } else if walk.words(&["DROP", "DEFAULT"]) {
        column.default = None;
    } else if walk.word("TYPE") || walk.words(&["SET", "DATA", "TYPE"]) {
        let tokens = walk.rest().tokens;
        let end = (0..tokens.len())
            .find(|at| ["USING", "COLLATE"].iter().any(|w| Walk { at: *at, ..walk.rest() }.is_word(w)));
        column.data_type = lowered(&spelled(&tokens[..end.unwrap_or(tokens.len())]));
    }
    Ok(())
}
