//! Comments that stand in a `CREATE TABLE` itself: `price numeric, -- what the customer pays`.
//!
//! Only a comment behind something on its own line counts: behind an element it is the column's, behind the opening
//! parenthesis the table's. Lines that are comments as a whole may as well be SQL that someone has put aside.

use std::collections::HashMap;

use sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

use super::Dialect;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comments {
    pub table: Option<String>,
    /// By the column's name in lower case.
    pub columns: HashMap<String, String>,
}

/// Of a table as SQLite stores it.
pub fn comments(sql: &str) -> Comments {
    read(sql, Dialect::Sqlite)
}

/// Empty where there are none, or where the text is no SQL.
pub(super) fn read(sql: &str, dialect: Dialect) -> Comments {
    let mut comments = Comments::default();
    if !sql.contains("--") && !sql.contains("/*") {
        return comments;
    }
    let Ok(tokens) = Tokenizer::new(dialect.parser(), sql).tokenize_with_location() else { return comments };
    let mut depth = 0;
    // the first word of the element that is open, and of the one that ended on this line
    let (mut open, mut ended): (Option<String>, Option<String>) = (None, None);
    let mut line = 0;
    for token in &tokens {
        let text = match &token.token {
            Token::Whitespace(Whitespace::SingleLineComment { comment, .. }) => comment,
            Token::Whitespace(Whitespace::MultiLineComment(comment)) => comment,
            Token::Whitespace(_) | Token::EOF => continue,
            other => {
                match other {
                    Token::LParen => depth += 1,
                    Token::RParen => depth -= 1,
                    _ => {}
                }
                match other {
                    Token::Comma if depth == 1 => ended = open.take(),
                    Token::RParen if depth == 0 => (open, ended) = (None, None),
                    Token::LParen if depth == 1 => {}
                    _ if depth >= 1 && open.is_none() => {
                        ended = None;
                        open = Some(word(other).unwrap_or_default());
                    }
                    _ => {}
                }
                line = token.span.end.line;
                continue;
            }
        };
        if token.span.start.line != line {
            continue;
        }
        let text = text.trim().trim_start_matches(['-', '*', '!']).trim();
        // a hint of MySQL's is no comment
        if text.is_empty() || token.token.to_string().starts_with("/*!") {
            continue;
        }
        match open.as_ref().or(ended.as_ref()) {
            Some(name) if !name.is_empty() => {
                comments.columns.entry(name.to_lowercase()).or_insert_with(|| text.into());
            }
            None if depth == 1 => comments.table = comments.table.or_else(|| Some(text.into())),
            _ => {}
        }
    }
    comments
}

fn word(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) => Some(word.value.clone()),
        Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) => Some(text.clone()),
        _ => None,
    }
}
