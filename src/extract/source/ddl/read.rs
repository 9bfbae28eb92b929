//! Statements → tables. Headers and constraints are walked token by token; a column is parsed by sqlparser.

use std::collections::HashMap;

use sqlparser::ast::{ColumnDef, ColumnOption, DataType};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use super::Dialect;
use super::split::Statement;
use crate::domain::catalog::{Catalog, Column, ForeignKey, Table};
use crate::extract::source::SourceError;

type Found<T> = Result<T, SourceError>;

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
                if !columns.contains_key(&key.ref_table) {
                    if let Some(name) = names.get(&key.ref_table.to_lowercase()) {
                        key.ref_table = name.clone();
                    }
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
        if !known.contains(name) {
            if let Some(spelling) = known.iter().find(|k| same(k, name)) {
                *name = spelling.clone();
            }
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

fn tokens(statement: &Statement<'_>, dialect: Dialect) -> Found<Vec<TokenWithSpan>> {
    let moved = |at: Location| {
        let column = if at.line <= 1 { at.column.max(1) + statement.column - 1 } else { at.column };
        Location::new(at.line.max(1) + statement.line - 1, column)
    };
    let tokens = Tokenizer::new(dialect.parser(), statement.text).tokenize_with_location().map_err(|e| {
        let at = moved(e.location);
        SourceError::new(at.line, at.column, e.message)
    })?;
    let tokens = tokens.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF));
    Ok(tokens
        .map(|t| TokenWithSpan { span: Span::new(moved(t.span.start), moved(t.span.end)), token: t.token })
        .collect())
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

/// `name`, or `schema.name` outside the default schema; a database before the schema is dropped.
fn table_name(dialect: Dialect, parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [name] => name.clone(),
        [.., schema, name] if dialect.default_schema() == Some(schema.to_lowercase().as_str()) => {
            name.clone()
        }
        [.., schema, name] => format!("{schema}.{name}"),
    }
}

/// A place in the script.
#[derive(Clone, Copy)]
struct Place(u64, u64);

impl Place {
    fn error(self, message: String) -> SourceError {
        SourceError::new(self.0, self.1, message)
    }
}

/// A walk over a statement's tokens, or over a part of them.
#[derive(Clone, Copy)]
struct Walk<'a> {
    tokens: &'a [TokenWithSpan],
    at: usize,
    dialect: Dialect,
}

impl<'a> Walk<'a> {
    fn peek(&self, n: usize) -> Option<&'a Token> {
        self.tokens.get(self.at + n).map(|t| &t.token)
    }

    fn place(&self) -> Place {
        let here = self.tokens.get(self.at).map(|t| t.span.start);
        let at = here.or_else(|| self.tokens.last().map(|t| t.span.end));
        at.map_or(Place(1, 1), |at| Place(at.line, at.column))
    }

    fn expected(&self, what: &str) -> SourceError {
        let found = self.peek(0).map_or("the end of the statement".into(), |t| format!("'{t}'"));
        self.place().error(format!("expected {what}, found {found}"))
    }

    fn is_word_at(&self, n: usize, word: &str) -> bool {
        matches!(self.peek(n), Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
    }

    fn is_word(&self, word: &str) -> bool {
        self.is_word_at(0, word)
    }

    /// A keyword, and not a column that happens to have its name and a type after it.
    fn is_unquoted(&self, word: &str) -> bool {
        self.is_word(word) && self.peek(1).is_some()
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn words(&mut self, words: &[&str]) -> bool {
        let found = words.iter().enumerate().all(|(n, word)| self.is_word_at(n, word));
        self.at += if found { words.len() } else { 0 };
        found
    }

    /// Moves behind the first of `wanted`; says which it was and whether a word of `seen` came before.
    fn until_any(&mut self, wanted: &[&'static str], seen: &[&str]) -> Option<(&'static str, bool)> {
        let mut was_seen = false;
        while self.at < self.tokens.len() {
            if let Some(word) = wanted.iter().find(|w| self.is_word(w)) {
                self.at += 1;
                return Some((word, was_seen));
            }
            was_seen |= seen.iter().any(|w| self.is_word(w));
            self.at += 1;
        }
        None
    }

    /// Moves behind the first `word`.
    fn seek(&mut self, word: &str) -> bool {
        while self.at < self.tokens.len() {
            self.at += 1;
            if self.tokens.get(self.at - 1).is_some_and(|_| Walk { at: self.at - 1, ..*self }.is_word(word)) {
                return true;
            }
        }
        false
    }

    fn folded(&self, name: &str, quote: Option<char>) -> String {
        match (self.dialect, quote) {
            (Dialect::Postgres, None) => name.to_lowercase(),
            _ => name.to_string(),
        }
    }

    fn identifier(&mut self) -> Found<String> {
        let name = match self.peek(0) {
            Some(Token::Word(w)) => self.folded(&w.value, w.quote_style),
            Some(Token::DoubleQuotedString(name) | Token::SingleQuotedString(name)) => name.clone(),
            _ => return Err(self.expected("a name")),
        };
        self.at += 1;
        Ok(name)
    }

    fn name_parts(&mut self) -> Found<Vec<String>> {
        let mut parts = vec![self.identifier()?];
        while self.peek(0) == Some(&Token::Period) {
            self.at += 1;
            parts.push(self.identifier()?);
        }
        Ok(parts)
    }

    fn name(&mut self) -> Found<String> {
        let parts = self.name_parts()?;
        Ok(table_name(self.dialect, &parts))
    }

    fn string(&mut self) -> Option<String> {
        let text = match self.peek(0) {
            Some(
                Token::SingleQuotedString(text)
                | Token::EscapedStringLiteral(text)
                | Token::NationalStringLiteral(text)
                | Token::UnicodeStringLiteral(text),
            ) => text.clone(),
            Some(Token::DollarQuotedString(text)) => text.value.clone(),
            Some(Token::DoubleQuotedString(text)) => text.clone(),
            _ => return None,
        };
        self.at += 1;
        Some(text)
    }

    /// The inside of the parentheses that open here, and moves behind them.
    fn parens(&mut self) -> Option<Walk<'a>> {
        if self.peek(0) != Some(&Token::LParen) {
            return None;
        }
        let mut depth = 0;
        for (n, token) in self.tokens[self.at..].iter().enumerate() {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let inside = &self.tokens[self.at + 1..self.at + n];
                self.at += n + 1;
                return Some(Walk { tokens: inside, at: 0, dialect: self.dialect });
            }
        }
        None
    }

    fn rest(&self) -> Walk<'a> {
        Walk { tokens: &self.tokens[self.at.min(self.tokens.len())..], at: 0, dialect: self.dialect }
    }

    /// Parts between commas that stand in no parentheses.
    fn split_commas(self) -> Vec<Walk<'a>> {
        let mut depth = 0;
        let parts = self.tokens.split(|token| {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            depth == 0 && token.token == Token::Comma
        });
        parts.map(|tokens| Walk { tokens, at: 0, dialect: self.dialect }).collect()
    }

    /// Columns of a key after its words; between them may stand an index's name, its method, `CLUSTERED` …
    fn key_columns(&mut self) -> Found<Vec<String>> {
        while self.at < self.tokens.len() && self.peek(0) != Some(&Token::LParen) {
            if !matches!(self.peek(0), Some(Token::Word(_))) {
                break;
            }
            self.at += 1;
        }
        let body = self.parens().ok_or_else(|| self.expected("columns in parentheses"))?;
        body.plain_columns().ok_or_else(|| body.expected("column names"))
    }

    /// Column names, each perhaps with a length or an order; `None` if one is an expression.
    fn plain_columns(self) -> Option<Vec<String>> {
        let column = |mut part: Walk<'a>| {
            let name = part.identifier().ok()?;
            let length = part.parens();
            let prefix =
                length.is_none_or(|l| matches!(l.tokens, [one] if matches!(one.token, Token::Number(..))));
            let plain = part.rest().tokens.iter().all(|t| matches!(t.token, Token::Word(_)));
            (prefix && plain).then_some(name)
        };
        self.split_commas().into_iter().map(column).collect()
    }

    /// An element of a table that defines neither a column nor a key.
    fn is_no_column(&self) -> bool {
        let before_parens = |word: &str| self.is_word(word) && self.peek(1) == Some(&Token::LParen);
        let index = |word: &str| {
            // `key text` is a column, `KEY name (…)` an index
            self.is_word(word)
                && self.dialect == Dialect::MySql
                && (self.peek(1) == Some(&Token::LParen) || self.peek(2) == Some(&Token::LParen))
        };
        before_parens("CHECK")
            || (self.is_word("CHECK") && self.is_word_at(1, "CONSTRAINT"))
            || self.is_word("EXCLUDE")
            || self.is_word("LIKE")
            || (self.is_word("PERIOD") && self.is_word_at(1, "FOR"))
            || ["KEY", "INDEX"].iter().any(|w| index(w))
            || (["FULLTEXT", "SPATIAL"].iter().any(|w| self.is_word(w)) && self.dialect == Dialect::MySql)
    }

    fn column_def(&self) -> Found<ColumnDef> {
        let tokens: Vec<TokenWithSpan> = self.rest().tokens.to_vec();
        let mut last = None;
        for dialect in [self.dialect, Dialect::Auto] {
            let mut parser = Parser::new(dialect.parser()).with_tokens_with_locations(tokens.clone());
            match parser.parse_column_def() {
                Ok(def) if parser.peek_token_ref().token == Token::EOF => return Ok(def),
                Ok(_) => {
                    let token = parser.peek_token();
                    let word_only =
                        matches!(&token.token, Token::Word(w) if is_harmless(w.keyword, &w.value));
                    if word_only {
                        return Parser::new(dialect.parser())
                            .with_tokens_with_locations(tokens)
                            .parse_column_def()
                            .map_err(|e| self.place().error(e.to_string()));
                    }
                    let message = format!("'{}' was not understood in a column's definition", token.token);
                    last.get_or_insert(SourceError::new(
                        token.span.start.line,
                        token.span.start.column,
                        message,
                    ));
                }
                Err(error) => {
                    last.get_or_insert(self.located(&error.to_string()));
                }
            }
        }
        Err(last.unwrap_or_else(|| self.expected("a column")))
    }

    /// sqlparser writes the place at the end of its message.
    fn located(&self, message: &str) -> SourceError {
        let message = message.trim_start_matches("sql parser error: ");
        if let Some((text, place)) = message.rsplit_once(" at Line: ") {
            if let Some((line, column)) = place.split_once(", Column: ") {
                if let (Ok(line), Ok(column)) = (line.trim().parse(), column.trim().parse()) {
                    return SourceError::new(line, column, text);
                }
            }
        }
        self.place().error(message.to_string())
    }

    /// MySQL's `COMMENT='…'` after the columns.
    fn table_comment(&mut self) -> Option<String> {
        let mut rest = self.rest();
        if self.dialect != Dialect::MySql || !rest.seek("COMMENT") {
            return None;
        }
        if rest.peek(0) == Some(&Token::Eq) {
            rest.at += 1;
        }
        rest.string()
    }
}

/// Column options that sqlparser does not know and the catalog does not need.
fn is_harmless(keyword: Keyword, word: &str) -> bool {
    keyword == Keyword::ON
        || [
            "VISIBLE",
            "VIRTUAL",
            "STORED",
            "SPARSE",
            "ROWGUIDCOL",
            "STORAGE",
            "COMPRESSION",
            "CLUSTERED",
            "NONCLUSTERED",
        ]
        .iter()
        .any(|w| word.eq_ignore_ascii_case(w))
}
