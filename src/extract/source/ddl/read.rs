//! Statements → tables. Headers and constraints are walked token by token; a column is parsed by sqlparser.

use std::collections::HashMap;

use sqlparser::ast::{ColumnOption, DataType};

use super::Dialect;
use super::split::Statement;
use super::walk::{Found, Walk, table_name, tokens};
use crate::domain::catalog::{Catalog, Column, ForeignKey, Table};
use crate::extract::source::SourceError;

pub struct Reader {
    dialect: Dialect,
    tables: Vec<Table>,
    /// Folded name → position.
    by_name: HashMap<String, usize>,
}

impl Reader {
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, tables: Vec::new(), by_name: HashMap::new() }
    }

    /// Takes in one statement; what could not be read of it comes back.
    pub fn statement(&mut self, statement: &Statement<'_>) -> Vec<SourceError> {
        if !is_relevant(statement.text) {
            return Vec::new();
        }
        let tokens = match tokens(statement, self.dialect) {
            Ok(tokens) => tokens,
            Err(error) => return vec![error],
        };
        let mut walk = Walk { tokens: &tokens, at: 0, dialect: self.dialect };
        let mut errors = Vec::new();
        if let Err(error) = self.apply(&mut walk, &mut errors) {
            errors.push(error);
        }
        errors
    }

    fn apply(&mut self, walk: &mut Walk<'_>, errors: &mut Vec<SourceError>) -> Found<()> {
        if walk.word("CREATE") {
            let unique = walk.until_any(&["TABLE", "INDEX"], &["UNIQUE"]);
            return match unique {
                Some(("TABLE", _)) => self.create_table(walk, errors),
                Some(("INDEX", true)) => self.unique_index(walk),
                _ => Ok(()),
            };
        }
        if walk.word("ALTER") {
            walk.word("TABLE");
            return self.alter_table(walk, errors);
        }
        if walk.word("COMMENT") {
            return self.comment(walk);
        }
        if walk.word("DROP") {
            walk.word("TABLE");
            walk.words(&["IF", "EXISTS"]);
            let name = walk.name()?;
            if let Some(at) = self.position(&name) {
                self.remove(at);
            }
        }
        Ok(())
    }

    fn create_table(&mut self, walk: &mut Walk<'_>, errors: &mut Vec<SourceError>) -> Found<()> {
        walk.words(&["IF", "NOT", "EXISTS"]);
        let place = walk.place();
        let name = walk.name()?;
        if walk.words(&["PARTITION", "OF"]) {
            // a part of its parent, not a table of the model
            return Ok(());
        }
        if self.by_name.contains_key(&fold(&name)) {
            return Err(place.error(format!("table '{name}' is defined twice")));
        }
        let mut table = Table { name, ..Table::default() };
        if let Some(body) = walk.parens() {
            for part in body.split_commas() {
                if let Err(error) = element(&mut table, part) {
                    errors.push(error);
                }
            }
        } else if !walk.is_word("AS") && !walk.is_word("LIKE") {
            return Err(walk.expected("the table's columns in parentheses"));
        }
        table.comment = walk.table_comment();
        self.by_name.insert(fold(&table.name), self.tables.len());
        self.tables.push(table);
        Ok(())
    }

    fn alter_table(&mut self, walk: &mut Walk<'_>, errors: &mut Vec<SourceError>) -> Found<()> {
        walk.words(&["IF", "EXISTS"]);
        walk.word("ONLY");
        let place = walk.place();
        let name = walk.name()?;
        let mut found = None;
        for mut action in walk.rest().split_commas() {
            // SQL Server: WITH CHECK ADD CONSTRAINT
            action.words(&["WITH", "CHECK"]);
            action.words(&["WITH", "NOCHECK"]);
            if !action.word("ADD") && found != Some(true) {
                found = Some(false);
                continue;
            }
            found = Some(true);
            let Some(at) = self.position(&name) else {
                return Err(place.error(format!("table '{name}' is not defined before this")));
            };
            action.word("COLUMN");
            action.words(&["IF", "NOT", "EXISTS"]);
            if let Err(error) = element(&mut self.tables[at], action) {
                errors.push(error);
            }
        }
        Ok(())
    }

    fn unique_index(&mut self, walk: &mut Walk<'_>) -> Found<()> {
        if !walk.seek("ON") {
            return Ok(());
        }
        walk.word("ONLY");
        let name = walk.name()?;
        if walk.word("USING") {
            walk.at += 1;
        }
        let Some(body) = walk.parens() else { return Err(walk.expected("columns in parentheses")) };
        // an index over expressions, or over some rows only, makes no column unique
        let partial = walk.rest().seek("WHERE");
        if let (Some(at), Some(columns), false) = (self.position(&name), body.plain_columns(), partial) {
            add_unique(&mut self.tables[at], columns);
        }
        Ok(())
    }

    fn comment(&mut self, walk: &mut Walk<'_>) -> Found<()> {
        walk.word("ON");
        let of_column = walk.word("COLUMN");
        if !of_column && !walk.word("TABLE") {
            return Ok(());
        }
        let place = walk.place();
        let mut parts = walk.name_parts()?;
        let column = if of_column { parts.pop() } else { None };
        let name = table_name(self.dialect, &parts);
        if !walk.word("IS") {
            return Err(walk.expected("IS"));
        }
        let text = walk.string();
        let Some(at) = self.position(&name) else {
            // of a view, perhaps
            return Ok(());
        };
        let table = &mut self.tables[at];
        match column {
            None => table.comment = text,
            Some(column) => match table.columns.iter_mut().find(|c| same(&c.name, &column)) {
                Some(found) => found.comment = text,
                None => return Err(place.error(format!("table '{name}' has no column '{column}'"))),
            },
        }
        Ok(())
    }

    fn position(&self, name: &str) -> Option<usize> {
        let exact = self.by_name.get(&fold(name)).copied();
        exact.or_else(|| self.tables.iter().position(|t| same(&t.name, name)))
    }

    fn remove(&mut self, at: usize) {
        self.tables.remove(at);
        self.by_name = self.tables.iter().enumerate().map(|(i, t)| (fold(&t.name), i)).collect();
    }

    /// Names in keys take the spelling of what they refer to.
    pub fn finish(mut self) -> Catalog {
        let names: HashMap<String, String> =
            self.tables.iter().map(|t| (t.name.to_lowercase(), t.name.clone())).collect();
        let columns: HashMap<String, Vec<String>> = self
            .tables
            .iter()
            .map(|t| (t.name.clone(), t.columns.iter().map(|c| c.name.clone()).collect()))
            .collect();
        for table in &mut self.tables {
            let own = columns[&table.name].clone();
            spell(&mut table.primary_key, &own);
            table.unique.iter_mut().for_each(|key| spell(key, &own));
            for name in table.primary_key.clone() {
                table.columns.iter_mut().filter(|c| c.name == name).for_each(|c| c.nullable = false);
            }
            let mut keys: Vec<ForeignKey> = Vec::new();
            for mut key in std::mem::take(&mut table.foreign_keys) {
                spell(&mut key.columns, &own);
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
        Catalog { tables: self.tables }
    }
}

/// Tables of a name are told apart exactly; see [`same`] for looking one up.
fn fold(name: &str) -> String {
    name.to_string()
}

fn same(a: &str, b: &str) -> bool {
    a == b || a.to_lowercase() == b.to_lowercase()
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

fn is_relevant(text: &str) -> bool {
    let mut words = text.split(|c: char| !c.is_ascii_alphabetic()).filter(|w| !w.is_empty());
    let first = words.next().unwrap_or("").to_ascii_uppercase();
    let mut next = |n: usize, wanted: &[&str]| {
        words.by_ref().take(n).any(|w| wanted.iter().any(|x| w.eq_ignore_ascii_case(x)))
    };
    match first.as_str() {
        "CREATE" => {
            // what defines a table stands before its name
            let head: Vec<&str> = words.take(5).collect();
            let stop = head.iter().position(|w| {
                ["FUNCTION", "VIEW", "TRIGGER", "PROCEDURE", "TYPE", "AS", "EXTENSION", "SEQUENCE", "DOMAIN"]
                    .iter()
                    .any(|x| w.eq_ignore_ascii_case(x))
            });
            let known =
                head.iter().position(|w| ["TABLE", "INDEX"].iter().any(|x| w.eq_ignore_ascii_case(x)));
            known.is_some_and(|at| stop.is_none_or(|stop| at < stop))
        }
        "ALTER" | "DROP" => next(1, &["TABLE"]),
        "COMMENT" => next(2, &["TABLE", "COLUMN"]),
        _ => false,
    }
}

/// A column or a constraint.
fn element(table: &mut Table, mut walk: Walk<'_>) -> Found<()> {
    if walk.tokens.is_empty() {
        return Err(walk.expected("a column or a constraint"));
    }
    let mut constraint = None;
    if walk.is_unquoted("CONSTRAINT") {
        walk.at += 1;
        let named = !["PRIMARY", "UNIQUE", "FOREIGN", "CHECK", "EXCLUDE"].iter().any(|w| walk.is_word(w));
        if named {
            constraint = Some(walk.identifier()?);
        }
    }
    if walk.is_unquoted("PRIMARY") && walk.is_word_at(1, "KEY") {
        walk.at += 2;
        table.primary_key = walk.key_columns()?;
    } else if walk.is_unquoted("UNIQUE") {
        walk.at += 1;
        let columns = walk.key_columns()?;
        add_unique(table, columns);
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
        table.foreign_keys.push(ForeignKey { name: constraint, columns, ref_table, ref_columns });
    } else if constraint.is_some() || walk.is_no_column() {
        // CHECK, EXCLUDE, INDEX, LIKE, PERIOD … say nothing the catalog keeps
        return Ok(());
    } else {
        return column(table, walk);
    }
    Ok(())
}

fn add_unique(table: &mut Table, columns: Vec<String>) {
    if !columns.is_empty() && !table.unique.contains(&columns) {
        table.unique.push(columns);
    }
}

fn column(table: &mut Table, walk: Walk<'_>) -> Found<()> {
    let place = walk.place();
    let def = walk.column_def()?;
    let name = walk.folded(&def.name.value, def.name.quote_style);
    if table.columns.iter().any(|c| c.name == name) {
        return Err(place.error(format!("column '{name}' is defined twice in table '{}'", table.name)));
    }
    let data_type = match &def.data_type {
        DataType::Unspecified => String::new(),
        known => known.to_string().to_lowercase().replace(['[', ']', '"', '`'], ""),
    };
    let mut column = Column { name: name.clone(), data_type, nullable: true, default: None, comment: None };
    for option in def.options {
        match option.option {
            ColumnOption::NotNull => column.nullable = false,
            ColumnOption::Default(value) => column.default = Some(value.to_string()),
            ColumnOption::Comment(text) => column.comment = Some(text),
            ColumnOption::PrimaryKey(_) => {
                table.primary_key = vec![name.clone()];
                column.nullable = false;
            }
            ColumnOption::Unique(_) => add_unique(table, vec![name.clone()]),
            ColumnOption::ForeignKey(key) => table.foreign_keys.push(ForeignKey {
                name: option.name.map(|n| n.value),
                columns: vec![name.clone()],
                ref_table: table_name(
                    walk.dialect,
                    &key.foreign_table
                        .0
                        .iter()
                        .filter_map(|p| p.as_ident())
                        .map(|i| walk.folded(&i.value, i.quote_style))
                        .collect::<Vec<_>>(),
                ),
                ref_columns: key
                    .referred_columns
                    .iter()
                    .map(|i| walk.folded(&i.value, i.quote_style))
                    .collect(),
            }),
            _ => {}
        }
    }
    table.columns.push(column);
    Ok(())
}
