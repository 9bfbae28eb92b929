//! One column's definition, by sqlparser; what it stumbles over and the catalog does not need is taken out first.

use std::ops::Range;

use sqlparser::ast::{ColumnDef, DataType};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::Dialect;
use super::walk::{Found, Walk, spelled};
use crate::extract::source::SourceError;
use crate::extract::source::information_schema::lowered;

pub(super) enum Definition {
    Parsed(Box<ColumnDef>),
    /// SQL Server's `name AS …`, which has no type of its own.
    Computed {
        name: String,
        expression: String,
    },
}

/// Column options without which a column is the same to the catalog, each with the tokens that follow it.
const NEEDLESS: [(&str, usize); 22] = [
    ("VISIBLE", 0),
    ("INVISIBLE", 0),
    ("VIRTUAL", 0),
    ("STORED", 0),
    ("PERSISTED", 0),
    ("PERSISTENT", 0),
    ("SPARSE", 0),
    ("HIDDEN", 0),
    ("ROWGUIDCOL", 0),
    ("CLUSTERED", 0),
    ("NONCLUSTERED", 0),
    ("COMPRESSED", 0),
    ("ZEROFILL", 0),
    ("FIRST", 0),
    ("AFTER", 1),
    ("STORAGE", 1),
    ("COMPRESSION", 1),
    ("COLUMN_FORMAT", 1),
    ("SRID", 1),
    ("CHARSET", 1),
    ("ENGINE_ATTRIBUTE", 1),
    ("INDEX", 1),
];

pub(super) fn definition(walk: &Walk<'_>) -> Found<Definition> {
    if let Some(computed) = computed(*walk) {
        return Ok(computed);
    }
    let mut tokens: Vec<TokenWithSpan> = walk.rest().tokens.to_vec();
    let mut own_type = None;
    loop {
        let stuck = match parse(walk, &tokens) {
            Ok(mut def) => {
                if let Some(text) = own_type {
                    def.data_type =
                        DataType::Custom(vec![sqlparser::ast::Ident::new(text)].into(), Vec::new());
                }
                return Ok(Definition::Parsed(Box::new(def)));
            }
            Err(stuck) => stuck,
        };
        let at = stuck.at.and_then(|at| tokens.iter().position(|t| t.span.start == at));
        if let Some(range) = at.and_then(|at| needless(walk, &tokens, at)) {
            tokens.drain(range);
        } else if let (None, Some(range)) = (&own_type, type_of(walk, &tokens, at)) {
            own_type = Some(spelled(&tokens[range.clone()]));
            let place = tokens[range.start].clone();
            tokens.splice(range, [TokenWithSpan { token: Token::make_word("text", None), ..place }]);
        } else {
            return Err(stuck.error);
        }
    }
}

fn computed(mut walk: Walk<'_>) -> Option<Definition> {
    if walk.dialect != Dialect::MsSql {
        return None;
    }
    let name = walk.identifier().ok()?;
    if !walk.word("AS") {
        return None;
    }
    let tokens = walk.rest().tokens;
    let ends = ["PERSISTED", "CONSTRAINT", "PRIMARY", "UNIQUE"];
    let end = (0..tokens.len()).find(|at| ends.iter().any(|w| Walk { at: *at, ..walk.rest() }.is_word(w)));
    Some(Definition::Computed { name, expression: spelled(&tokens[..end.unwrap_or(tokens.len())]) })
}

/// Where the parser stopped.
struct Stuck {
    at: Option<Location>,
    error: SourceError,
}

fn parse(walk: &Walk<'_>, tokens: &[TokenWithSpan]) -> Result<ColumnDef, Stuck> {
    let mut first = None;
    for dialect in [walk.dialect, Dialect::Auto] {
        let mut parser = Parser::new(dialect.parser()).with_tokens_with_locations(tokens.to_vec());
        let stuck = match parser.parse_column_def() {
            Ok(def) if parser.peek_token_ref().token == Token::EOF => return Ok(def),
            Ok(_) => {
                let token = parser.peek_token();
                let at = token.span.start;
                let message = format!("'{}' was not understood in a column's definition", token.token);
                Stuck { at: Some(at), error: SourceError::new(at.line, at.column, message) }
            }
            Err(error) => {
                let error = walk.located(&error.to_string());
                Stuck { at: Some(Location::new(error.line, error.column)), error }
            }
        };
        first.get_or_insert(stuck);
    }
    Err(first.unwrap_or_else(|| Stuck { at: None, error: walk.expected("a column") }))
}

/// The tokens around `at` that can go.
fn needless(walk: &Walk<'_>, tokens: &[TokenWithSpan], at: usize) -> Option<Range<usize>> {
    let walk = Walk { tokens, at, dialect: walk.dialect };
    let behind_parens = |at: usize| {
        let mut walk = Walk { at, ..walk };
        walk.parens();
        walk.at
    };
    if at == 0 {
        return None;
    }
    for (word, operands) in NEEDLESS {
        if walk.is_word(word) {
            let equals = usize::from(operands > 0 && walk.peek(1) == Some(&Token::Eq));
            return Some(at..(at + 1 + equals + operands).min(tokens.len()));
        }
    }
    let known: [(&[&str], usize); 8] = [
        (&["ON", "CONFLICT"], 3),
        (&["NOT", "FOR", "REPLICATION"], 3),
        (&["FOR", "REPLICATION"], 2),
        // SQL Server's column-level key; what follows is the standard's
        (&["FOREIGN", "KEY"], 2),
        (&["MASKED", "WITH"], 2),
        (&["WITH", "SYSTEM", "VERSIONING"], 3),
        (&["WITHOUT", "SYSTEM", "VERSIONING"], 3),
        (&["ON", "UPDATE"], 3),
    ];
    for (words, length) in known {
        if words.iter().enumerate().all(|(n, word)| walk.is_word_at(n, word)) {
            // the NOT of NOT FOR REPLICATION has been read already
            let not = words[0] == "FOR" && at > 1 && Walk { at: at - 1, ..walk }.is_word("NOT");
            let end = behind_parens((at + length).min(tokens.len()));
            return Some(at - usize::from(not)..end);
        }
    }
    if walk.is_word("WITH") && walk.peek(1) == Some(&Token::LParen) {
        return Some(at..behind_parens(at + 1));
    }
    if walk.is_word("ON") {
        return Some(at..(at + 2).min(tokens.len()));
    }
    row_time(&walk)
}

/// `GENERATED ALWAYS AS ROW START`: the parser stops behind GENERATED.
fn row_time(walk: &Walk<'_>) -> Option<Range<usize>> {
    let from = (0..=walk.at).rev().find(|at| Walk { at: *at, ..*walk }.is_word("GENERATED"))?;
    let here = Walk { at: from, ..*walk };
    let is_row = here.is_word_at(2, "AS") && here.is_word_at(3, "ROW");
    (is_row && walk.at <= from + 4).then(|| from..(from + 5).min(walk.tokens.len()))
}

/// The tokens of a type that the parser does not know, where it stopped because of it.
fn type_of(walk: &Walk<'_>, tokens: &[TokenWithSpan], stuck: Option<usize>) -> Option<Range<usize>> {
    let mut walk = Walk { tokens, at: 1, dialect: walk.dialect };
    if walk.dialect == Dialect::Sqlite {
        // any words: `UNSIGNED BIG INT`, `VARYING CHARACTER (255)`
        while matches!(walk.peek(0), Some(Token::Word(_))) && !BEHIND_TYPE.iter().any(|w| walk.is_word(w)) {
            walk.at += 1;
        }
        if walk.at == 1 {
            return None;
        }
    } else {
        walk.name_parts().ok()?;
    }
    let arguments = walk.at;
    walk.parens();
    let inside = stuck.is_some_and(|at| (arguments..walk.at).contains(&at));
    (walk.dialect == Dialect::Sqlite || inside).then_some(1..walk.at)
}

/// Words that a type cannot hold.
const BEHIND_TYPE: [&str; 11] = [
    "CONSTRAINT",
    "PRIMARY",
    "NOT",
    "NULL",
    "UNIQUE",
    "CHECK",
    "DEFAULT",
    "COLLATE",
    "REFERENCES",
    "GENERATED",
    "AS",
];

/// As the source spells it, in lower case but for what is quoted; without SQL Server's brackets.
pub(super) fn data_type(data_type: &DataType, dialect: Dialect) -> String {
    let text = match data_type {
        DataType::Unspecified => return String::new(),
        known => known.to_string(),
    };
    let quotes: &[char] = if dialect == Dialect::MsSql { &['[', ']', '"', '`'] } else { &['"', '`'] };
    lowered(&text).replace(quotes, "")
}
