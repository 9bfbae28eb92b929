//! A statement's tokens, and a walk over them: names, parenthesised parts, lists.

use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use super::Dialect;
use super::split::Statement;
use crate::extract::source::SourceError;

pub(super) type Found<T> = Result<T, SourceError>;

/// `name`, or `schema.name` outside the default schema; a database before the schema is dropped.
pub(super) fn table_name(dialect: Dialect, parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [name] => name.clone(),
        [.., schema, name] if dialect.default_schema() == Some(schema.to_lowercase().as_str()) => {
            name.clone()
        }
        [.., schema, name] => format!("{schema}.{name}"),
    }
}

pub(super) fn tokens(statement: &Statement<'_>, dialect: Dialect) -> Found<Vec<TokenWithSpan>> {
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

/// A place in the script.
#[derive(Clone, Copy)]
pub(super) struct Place(u64, u64);

impl Place {
    pub(super) fn error(self, message: String) -> SourceError {
        SourceError::new(self.0, self.1, message)
    }

    pub(super) fn line_and_column(self) -> (u64, u64) {
        (self.0, self.1)
    }
}

/// Tokens as text, with a blank where the source has one.
pub(super) fn spelled(tokens: &[TokenWithSpan]) -> String {
    let mut text = String::new();
    let mut end = None;
    for token in tokens {
        if end.is_some_and(|end| end != token.span.start) {
            text.push(' ');
        }
        text.push_str(&token.token.to_string());
        end = Some(token.span.end);
    }
    text
}

/// A walk over a statement's tokens, or over a part of them.
#[derive(Clone, Copy)]
pub(super) struct Walk<'a> {
    pub(super) tokens: &'a [TokenWithSpan],
    pub(super) at: usize,
    pub(super) dialect: Dialect,
}

impl<'a> Walk<'a> {
    pub(super) fn peek(&self, n: usize) -> Option<&'a Token> {
        self.tokens.get(self.at + n).map(|t| &t.token)
    }

    pub(super) fn place(&self) -> Place {
        let here = self.tokens.get(self.at).map(|t| t.span.start);
        let at = here.or_else(|| self.tokens.last().map(|t| t.span.end));
        at.map_or(Place(1, 1), |at| Place(at.line, at.column))
    }

    pub(super) fn expected(&self, what: &str) -> SourceError {
        let found = self.peek(0).map_or("the end of the statement".into(), |t| format!("'{t}'"));
        self.place().error(format!("expected {what}, found {found}"))
    }

    pub(super) fn is_word_at(&self, n: usize, word: &str) -> bool {
        matches!(self.peek(n), Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        self.is_word_at(0, word)
    }

    /// A keyword, and not a column that happens to have its name and a type after it.
    pub(super) fn is_unquoted(&self, word: &str) -> bool {
        self.is_word(word) && self.peek(1).is_some()
    }

    pub(super) fn word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    pub(super) fn words(&mut self, words: &[&str]) -> bool {
        let found = words.iter().enumerate().all(|(n, word)| self.is_word_at(n, word));
        self.at += if found { words.len() } else { 0 };
        found
    }

    /// Whether the words stand somewhere from here on.
    pub(super) fn has_words(&self, words: &[&str]) -> bool {
        (self.at..self.tokens.len())
            .any(|at| words.iter().enumerate().all(|(n, word)| Walk { at, ..*self }.is_word_at(n, word)))
    }

    /// Moves behind the first `word`.
    pub(super) fn seek(&mut self, word: &str) -> bool {
        while self.at < self.tokens.len() {
            self.at += 1;
            if self.tokens.get(self.at - 1).is_some_and(|_| Walk { at: self.at - 1, ..*self }.is_word(word)) {
                return true;
            }
        }
        false
    }

    pub(super) fn folded(&self, name: &str, quote: Option<char>) -> String {
        match (self.dialect, quote) {
            (Dialect::Postgres, None) => name.to_lowercase(),
            _ => name.to_string(),
        }
    }

    pub(super) fn identifier(&mut self) -> Found<String> {
        let name = match self.peek(0) {
            Some(Token::Word(w)) => self.folded(&w.value, w.quote_style),
            Some(Token::DoubleQuotedString(name) | Token::SingleQuotedString(name)) => name.clone(),
            _ => return Err(self.expected("a name")),
        };
        self.at += 1;
        Ok(name)
    }

    pub(super) fn name_parts(&mut self) -> Found<Vec<String>> {
        let mut parts = vec![self.identifier()?];
        while self.peek(0) == Some(&Token::Period) {
            self.at += 1;
            parts.push(self.identifier()?);
        }
        Ok(parts)
    }

    pub(super) fn name(&mut self) -> Found<String> {
        let parts = self.name_parts()?;
        Ok(table_name(self.dialect, &parts))
    }

    pub(super) fn string(&mut self) -> Option<String> {
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
    pub(super) fn parens(&mut self) -> Option<Walk<'a>> {
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

    pub(super) fn rest(&self) -> Walk<'a> {
        Walk { tokens: &self.tokens[self.at.min(self.tokens.len())..], at: 0, dialect: self.dialect }
    }

    /// Parts between commas that stand in no parentheses.
    pub(super) fn split_commas(self) -> Vec<Walk<'a>> {
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
    pub(super) fn key_columns(&mut self) -> Found<Vec<String>> {
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
    pub(super) fn plain_columns(self) -> Option<Vec<String>> {
        let column = |mut part: Walk<'a>| {
            let name = part.identifier().ok()?;
            let length = part.parens();
            let prefix =
                length.is_none_or(|l| matches!(l.tokens, [one] if matches!(one.token, Token::Number(..))));
            // DESC, an operator class, COLLATE pg_catalog."C"
            let plain = part.rest().tokens.iter().all(|t| matches!(t.token, Token::Word(_) | Token::Period));
            (prefix && plain).then_some(name)
        };
        self.split_commas().into_iter().map(column).collect()
    }

    /// An element of a table that defines neither a column nor a key.
    pub(super) fn is_no_column(&self) -> bool {
        let before_parens = |word: &str| self.is_word(word) && self.peek(1) == Some(&Token::LParen);
        let index = |word: &str| {
            // `key text` is a column, `KEY name (…)` an index
            let before_columns = match self.dialect {
                Dialect::MySql => 1..=2,
                // INDEX name UNIQUE NONCLUSTERED (…)
                Dialect::MsSql => 2..=4,
                _ => return false,
            };
            self.is_word(word) && before_columns.into_iter().any(|n| self.peek(n) == Some(&Token::LParen))
        };
        before_parens("CHECK")
            || (self.is_word("CHECK") && self.is_word_at(1, "CONSTRAINT"))
            || self.is_word("EXCLUDE")
            || self.is_word("LIKE")
            || (self.is_word("PERIOD") && self.is_word_at(1, "FOR"))
            || ["KEY", "INDEX"].iter().any(|w| index(w))
            || (["FULLTEXT", "SPATIAL"].iter().any(|w| self.is_word(w)) && self.dialect == Dialect::MySql)
    }

    /// sqlparser writes the place at the end of its message.
    pub(super) fn located(&self, message: &str) -> SourceError {
        let message = message.trim_start_matches("sql parser error: ");
        if let Some((text, place)) = message.rsplit_once(" at Line: ")
            && let Some((line, column)) = place.split_once(", Column: ")
            && let (Ok(line), Ok(column)) = (line.trim().parse(), column.trim().parse())
        {
            return SourceError::new(line, column, text);
        }
        self.place().error(message.to_string())
    }

    /// MySQL's `COMMENT='…'` after the columns.
    pub(super) fn table_comment(&mut self) -> Option<String> {
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
