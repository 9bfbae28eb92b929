//! A script cut into statements, with the place of each, without looking into them.
//!
//! Steps over quotes, comments, dollar-quoted bodies, `COPY … FROM stdin` data, `psql` backslash lines,
//! `GO` lines and `DELIMITER`; a `;` inside any of them ends nothing. SQL Server needs no `;`: there a line that
//! begins with `CREATE` and the like begins a statement, and a procedure ends at its `GO`.

use super::Dialect;
use crate::extract::source::SourceError;
use crate::extract::source::place::position;

/// A statement's text without its end, and where its first character stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    pub text: &'a str,
    pub line: u64,
    pub column: u64,
}

/// All statements up to the end, or up to a quote or comment that does not end; then that comes back as well.
pub fn statements(text: &str, dialect: Dialect) -> (Vec<Statement<'_>>, Option<SourceError>) {
    let mut splitter = Splitter {
        text,
        at: 0,
        start: None,
        delimiter: ";",
        dialect,
        depth: 0,
        fresh_line: true,
        body: false,
        statements: Vec::new(),
    };
    let mut open_end = None;
    while splitter.at < text.len() {
        if let Err(error) = splitter.step() {
            open_end = Some(error);
            splitter.start = None;
            break;
        }
    }
    splitter.end(text.len());
    (place(text, splitter.statements), open_end)
}

struct Splitter<'a> {
    text: &'a str,
    at: usize,
    /// First byte of the statement that is open.
    start: Option<usize>,
    delimiter: &'a str,
    dialect: Dialect,
    /// Parentheses that are open; of SQL Server only.
    depth: usize,
    /// Nothing but blanks and comments since the line began.
    fresh_line: bool,
    /// The statement that is open is a procedure of SQL Server or the like.
    body: bool,
    statements: Vec<(usize, &'a str)>,
}

impl<'a> Splitter<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn line_start(&self) -> bool {
        self.at == 0 || self.text.as_bytes()[self.at - 1] == b'\n'
    }

    /// The rest of the line, and moves behind it.
    fn line(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find('\n').map_or(rest.len(), |n| n + 1);
        self.at += end;
        self.fresh_line = true;
        rest[..end].trim_end()
    }

    fn end(&mut self, at: usize) {
        (self.depth, self.body) = (0, false);
        if let Some(start) = self.start.take() {
            self.statements.push((start, self.text[start..at].trim_end()));
        }
    }

    fn step(&mut self) -> Result<(), SourceError> {
        if self.line_start() && self.command_line() {
            return Ok(());
        }
        let rest = self.rest();
        if rest.starts_with(self.delimiter) && !self.body {
            let copies = self.start.is_some_and(|start| is_copy(&self.text[start..self.at]));
            self.end(self.at);
            self.at += self.delimiter.len();
            if copies {
                self.data();
            }
            return Ok(());
        }
        let Some(c) = rest.chars().next() else { return Ok(()) };
        let line_comment = rest.starts_with("--") || (c == '#' && self.dialect == Dialect::MySql);
        if line_comment {
            self.line();
        } else if rest.starts_with("/*") {
            let hint = rest.starts_with("/*!") && self.dialect == Dialect::MySql;
            if hint {
                self.start.get_or_insert(self.at);
            }
            self.skip("/*", "*/", "comment")?;
        } else if c.is_whitespace() || c == '\u{feff}' {
            self.at += c.len_utf8();
            self.fresh_line |= c == '\n';
        } else {
            if self.dialect == Dialect::MsSql {
                self.transact(c);
            }
            self.fresh_line = false;
            self.start.get_or_insert(self.at);
            self.token(c)?;
        }
        Ok(())
    }

    /// Where SQL Server ends a statement without saying so.
    fn transact(&mut self, c: char) {
        match c {
            '(' => self.depth += 1,
            ')' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        let may_end = c.is_ascii_alphabetic()
            && self.fresh_line
            && self.start.is_some()
            && self.depth == 0
            && !self.body;
        if may_end && begins_statement(self.rest()) {
            self.end(self.at);
        }
        if self.start.is_none() {
            self.body = begins_body(self.rest());
        }
    }

    fn token(&mut self, c: char) -> Result<(), SourceError> {
        let backslash = self.dialect == Dialect::MySql || self.escape_string();
        match c {
            '\'' => self.quoted('\'', backslash),
            '"' => self.quoted('"', self.dialect == Dialect::MySql),
            '`' => self.quoted('`', false),
            '[' if matches!(self.dialect, Dialect::MsSql | Dialect::Sqlite) => self.quoted(']', false),
            '$' => match dollar_tag(self.rest()) {
                Some(tag) => self.skip(tag, tag, "dollar-quoted text"),
                None => {
                    self.at += 1;
                    Ok(())
                }
            },
            c => {
                self.at += c.len_utf8();
                Ok(())
            }
        }
    }

    /// Whether the quote here belongs to Postgres' `E'…'`.
    fn escape_string(&self) -> bool {
        let before = &self.text[..self.at];
        let mut back = before.chars().rev();
        matches!(back.next(), Some('e' | 'E'))
            && !back.next().is_some_and(|c| c.is_alphanumeric() || c == '_')
    }

    fn skip(&mut self, open: &str, close: &str, what: &str) -> Result<(), SourceError> {
        let from = self.at + open.len();
        match self.text[from..].find(close) {
            Some(n) => {
                self.at = from + n + close.len();
                Ok(())
            }
            None => Err(self.open_ended(what)),
        }
    }

    /// A doubled quote stays inside.
    fn quoted(&mut self, close: char, backslash: bool) -> Result<(), SourceError> {
        let mut chars = self.text[self.at..].char_indices().skip(1).peekable();
        while let Some((n, c)) = chars.next() {
            if c == '\\' && backslash {
                chars.next();
            } else if c == close {
                if chars.peek().is_some_and(|(_, next)| *next == close) {
                    chars.next();
                } else {
                    self.at += n + c.len_utf8();
                    return Ok(());
                }
            }
        }
        Err(self.open_ended("quoted text"))
    }

    fn open_ended(&self, what: &str) -> SourceError {
        let (line, column) = position(self.text, self.at);
        SourceError::new(line, column, format!("{what} begins here and does not end"))
    }

    /// Lines that are no SQL: `\connect`, `GO`, `DELIMITER`.
    fn command_line(&mut self) -> bool {
        let rest = self.rest();
        let line = rest.lines().next().unwrap_or("");
        if self.start.is_none() && line.starts_with('\\') {
            self.line();
            return true;
        }
        if line.trim().eq_ignore_ascii_case("go") && self.dialect == Dialect::MsSql {
            self.end(self.at);
            self.line();
            return true;
        }
        let word = line.get(..10).unwrap_or("");
        if self.start.is_none() && word.eq_ignore_ascii_case("delimiter ") {
            let delimiter = line[10..].trim();
            self.delimiter = if delimiter.is_empty() { ";" } else { delimiter };
            self.line();
            return true;
        }
        false
    }

    /// Rows after `COPY … FROM stdin;` up to `\.`.
    fn data(&mut self) {
        self.line();
        while self.at < self.text.len() && self.line() != "\\." {}
    }
}

fn is_copy(statement: &str) -> bool {
    let begins = statement.get(..5).is_some_and(|word| word.eq_ignore_ascii_case("copy "));
    begins && statement.trim_end().to_ascii_lowercase().ends_with("from stdin")
}

/// `$$` or `$name$` at the start of `text`.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text[1..].find('$')? + 1;
    let inside = &text[1..end];
    inside.chars().all(|c| c.is_alphanumeric() || c == '_').then(|| &text[..=end])
}

/// The first words of a text, in upper case.
fn head(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|w| !w.is_empty());
    words.take(4).map(str::to_ascii_uppercase)
}

fn begins_statement(text: &str) -> bool {
    let mut words = head(text);
    match words.next().as_deref() {
        Some("CREATE" | "EXEC" | "EXECUTE" | "INSERT" | "USE" | "PRINT" | "DECLARE" | "IF") => true,
        // ALTER COLUMN and DROP COLUMN go on with an ALTER TABLE
        Some("ALTER" | "DROP") => words.next().is_some_and(|word| word == "TABLE"),
        _ => false,
    }
}

fn begins_body(text: &str) -> bool {
    let mut words = head(text);
    let first = words.next();
    matches!(first.as_deref(), Some("CREATE" | "ALTER"))
        && words
            .find(|word| word != "OR" && word != "ALTER")
            .is_some_and(|word| ["PROCEDURE", "PROC", "FUNCTION", "TRIGGER", "VIEW"].contains(&word.as_str()))
}

/// Places of all statements in one pass.
fn place<'a>(text: &str, found: Vec<(usize, &'a str)>) -> Vec<Statement<'a>> {
    let (mut line, mut line_at, mut at) = (1, 0, 0);
    let mut statements = Vec::with_capacity(found.len());
    for (start, statement) in found {
        for (n, byte) in text.as_bytes()[at..start].iter().enumerate() {
            if *byte == b'\n' {
                line += 1;
                line_at = at + n + 1;
            }
        }
        at = start;
        let column = text[line_at..start].chars().count() as u64 + 1;
        statements.push(Statement { text: statement, line, column });
    }
    statements
}
