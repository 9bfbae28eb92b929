//! Statements → tables.

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::Dialect;
use super::alter::{self, Beyond};
use super::draft::Draft;
use super::element::element;
use super::property::description;
use super::split::Statement;
use super::tables::Tables;
use super::walk::{Found, Walk, table_name, tokens};
use crate::domain::catalog::Catalog;
use crate::extract::source::{Sieve, SourceError};

pub struct Reader {
    dialect: Dialect,
    tables: Tables,
    /// SQLite's virtual tables, whose shadow tables are no tables of the model.
    virtual_tables: Vec<String>,
}

impl Reader {
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, tables: Tables::default(), virtual_tables: Vec::new() }
    }

    /// Takes in one statement; what could not be read of it comes back.
    pub fn statement(&mut self, statement: &Statement<'_>) -> Vec<SourceError> {
        let errors = self.read(statement);
        if let Some(draft) = self.tables.fresh() {
            draft.note_comments(super::comments::read(statement.text, self.dialect));
        }
        errors
    }

    fn read(&mut self, statement: &Statement<'_>) -> Vec<SourceError> {
        if !is_relevant(statement.text, self.dialect) {
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
            return self.create(walk, errors);
        }
        if walk.words(&["ALTER", "TABLE"]) {
            return self.alter_table(walk, errors);
        }
        if walk.words(&["COMMENT", "ON"]) {
            return self.comment(walk);
        }
        if walk.words(&["DROP", "TABLE"]) {
            walk.words(&["IF", "EXISTS"]);
            for mut name in walk.rest().split_commas() {
                let name = name.name()?;
                self.tables.remove(&name);
            }
            return Ok(());
        }
        let named = |token: &TokenWithSpan| matches!(&token.token, Token::Word(word) if word.value.eq_ignore_ascii_case("sp_addextendedproperty"));
        if let Some(at) = walk.tokens.iter().position(named) {
            self.describe(Walk { at: at + 1, ..*walk });
        }
        Ok(())
    }

    fn create(&mut self, walk: &mut Walk<'_>, errors: &mut Vec<SourceError>) -> Found<()> {
        let (mut unique, mut is_virtual) = (false, false);
        while walk.at < walk.tokens.len() {
            if walk.word("TABLE") {
                return if is_virtual { self.virtual_table(walk) } else { self.create_table(walk, errors) };
            }
            if walk.word("INDEX") {
                return if unique { self.unique_index(walk) } else { Ok(()) };
            }
            if walk.is_word("TEMP") || walk.is_word("TEMPORARY") {
                // gone with its session
                return Ok(());
            }
            unique |= walk.is_word("UNIQUE");
            is_virtual |= walk.is_word("VIRTUAL");
            walk.at += 1;
        }
        Ok(())
    }

    fn create_table(&mut self, walk: &mut Walk<'_>, errors: &mut Vec<SourceError>) -> Found<()> {
        let optional = walk.words(&["IF", "NOT", "EXISTS"]);
        let place = walk.place();
        let name = walk.name()?;
        if name.starts_with('#') || self.is_shadow(&name) {
            return Ok(());
        }
        let mut draft = Draft::new(name, place);
        draft.is_part = walk.words(&["PARTITION", "OF"]);
        if self.tables.has(&draft.table.name) && optional {
            return Ok(());
        }
        if self.tables.has(&draft.table.name) {
            return Err(place.error(format!("table '{}' is defined twice", draft.table.name)));
        }
        if draft.is_part {
            self.tables.insert(draft);
            return Ok(());
        }
        if let Some(body) = walk.parens() {
            let close = Walk { at: walk.at - 1, ..*walk };
            // a table may have no column of its own
            let parts = if body.tokens.is_empty() { Vec::new() } else { body.split_commas() };
            for part in parts {
                if part.tokens.is_empty() {
                    // SQL Server allows a comma behind the last
                    if self.dialect != Dialect::MsSql {
                        errors.push(close.place().error("a column or a constraint is missing".into()));
                    }
                } else if let Err(error) = self.part(&mut draft, part) {
                    errors.push(error);
                }
            }
            if walk.word("INHERITS")
                && let Some(parents) = walk.parens()
            {
                for mut parent in parents.split_commas().into_iter().rev() {
                    let parent = parent.name()?;
                    self.copy_columns(&mut draft, &parent, true);
                }
            }
        } else if walk.is_word("LIKE") {
            self.part(&mut draft, *walk)?;
        } else if !walk.is_word("AS") && !walk.is_word("OF") {
            return Err(walk.expected("the table's columns in parentheses"));
        }
        draft.table.comment = walk.table_comment();
        self.tables.insert(draft);
        Ok(())
    }

    /// An element of the table's body; only `LIKE` needs the other tables.
    fn part(&mut self, draft: &mut Draft, part: Walk<'_>) -> Found<()> {
        // `like text` is a column, `LIKE other.table` is not
        if part.is_word("LIKE") {
            let mut rest = Walk { at: part.at + 1, ..part };
            let plain = rest.name();
            let options =
                rest.at >= rest.tokens.len() || rest.is_word("INCLUDING") || rest.is_word("EXCLUDING");
            if let (Ok(other), true) = (plain, options)
                && self.tables.get(&other).is_some()
            {
                self.copy_columns(draft, &other, false);
                let all = part.dialect == Dialect::MySql || part.has_words(&["INCLUDING", "ALL"]);
                if all || part.has_words(&["INCLUDING", "INDEXES"]) {
                    self.copy_keys(draft, &other);
                }
                return Ok(());
            }
        }
        element(draft, part)
    }

    fn copy_columns(&self, draft: &mut Draft, other: &str, in_front: bool) {
        if let Some(other) = self.tables.get(other) {
            draft.copy_columns(&other.table, in_front);
        }
    }

    fn copy_keys(&self, draft: &mut Draft, other: &str) {
        if let Some(other) = self.tables.get(other) {
            draft.table.primary_key = other.table.primary_key.clone();
            draft.table.unique = other.table.unique.clone();
        }
    }

    /// `CREATE VIRTUAL TABLE name USING module (arguments)`: the arguments that are names are columns.
    fn virtual_table(&mut self, walk: &mut Walk<'_>) -> Found<()> {
        walk.words(&["IF", "NOT", "EXISTS"]);
        let place = walk.place();
        let mut draft = Draft::new(walk.name()?, place);
        if !walk.word("USING") {
            return Err(walk.expected("USING"));
        }
        walk.identifier()?;
        if let Some(body) = walk.parens() {
            for part in body.split_commas() {
                let is_option = part.peek(1) == Some(&Token::Eq);
                if !part.tokens.is_empty() && !is_option {
                    // a module's words behind the name are no types
                    let name = Walk { tokens: &part.tokens[..1], ..part };
                    element(&mut draft, name)?;
                }
            }
        }
        self.virtual_tables.push(draft.table.name.clone());
        self.tables.insert(draft);
        Ok(())
    }

    /// Whether SQLite itself made the table, for its own use or a virtual table's.
    fn is_shadow(&self, name: &str) -> bool {
        const SUFFIXES: [&str; 11] = [
            "_data",
            "_idx",
            "_content",
            "_docsize",
            "_config",
            "_node",
            "_parent",
            "_rowid",
            "_segments",
            "_segdir",
            "_stat",
        ];
        let is_of = |table: &String| name.strip_prefix(table.as_str()).is_some_and(|s| SUFFIXES.contains(&s));
        self.dialect == Dialect::Sqlite
            && (name.starts_with("sqlite_") || self.virtual_tables.iter().any(is_of))
    }

    fn alter_table(&mut self, walk: &mut Walk<'_>, errors: &mut Vec<SourceError>) -> Found<()> {
        walk.words(&["IF", "EXISTS"]);
        walk.word("ONLY");
        let place = walk.place();
        let name = walk.name()?;
        let mut adds = false;
        for mut action in walk.rest().split_commas() {
            // SQL Server: WITH CHECK ADD CONSTRAINT
            action.words(&["WITH", "CHECK"]);
            action.words(&["WITH", "NOCHECK"]);
            if action.word("ADD") {
                adds = true;
            } else if alter::begins_action(&action) || !adds {
                adds = false;
            }
            let Some(draft) = self.tables.get_mut(&name) else {
                if adds {
                    return Err(place.error(format!("table '{name}' is not defined before this")));
                }
                continue;
            };
            if adds {
                alter::add(draft, action, errors);
                continue;
            }
            match alter::change(draft, action) {
                Ok(beyond) => self.beyond(&name, beyond),
                Err(error) => errors.push(error),
            }
        }
        Ok(())
    }

    fn beyond(&mut self, name: &str, beyond: Beyond) {
        match beyond {
            Beyond::Nothing => {}
            Beyond::Attach(part) => {
                if let Some(part) = self.tables.get_mut(&part) {
                    part.is_part = true;
                }
            }
            Beyond::RenameTable(to) => self.tables.rename(name, &to),
            Beyond::RenameColumn { from, to } => self.tables.rename_column(name, &from, &to),
        }
    }

    fn unique_index(&mut self, walk: &mut Walk<'_>) -> Found<()> {
        let place = walk.place();
        walk.words(&["IF", "NOT", "EXISTS"]);
        let index = Walk { ..*walk }.identifier().ok();
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
        let draft = self.tables.get_mut(&name);
        if let (Some(draft), Some(columns), false) = (draft, body.plain_columns(), partial) {
            draft.unique(index, columns, place);
        }
        Ok(())
    }

    fn comment(&mut self, walk: &mut Walk<'_>) -> Found<()> {
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
        let draft = self.tables.get_mut(&name);
        // of a view, perhaps
        let Some(draft) = draft else { return Ok(()) };
        match column {
            None => draft.table.comment = text,
            Some(column) => match draft.column(&column) {
                Some(found) => found.comment = text,
                None => return Err(place.error(format!("table '{name}' has no column '{column}'"))),
            },
        }
        Ok(())
    }

    fn describe(&mut self, walk: Walk<'_>) {
        let Some(found) = description(walk) else { return };
        let parts: Vec<String> = found.schema.into_iter().chain([found.table]).collect();
        let Some(draft) = self.tables.get_mut(&table_name(self.dialect, &parts)) else { return };
        match found.column {
            None => draft.table.comment = Some(found.text),
            Some(name) => {
                draft.column(&name).into_iter().for_each(|c| c.comment = Some(found.text.clone()));
            }
        }
    }

    /// Names in keys take the spelling of what they refer to; keys over what is not there are faults.
    pub fn finish(self, sieve: &mut Sieve) -> Result<Catalog, SourceError> {
        self.tables.finish(sieve)
    }
}

fn is_relevant(text: &str, dialect: Dialect) -> bool {
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
        "EXEC" | "EXECUTE" => dialect == Dialect::MsSql && text.contains("sp_addextendedproperty"),
        _ => false,
    }
}
