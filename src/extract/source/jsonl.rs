//! Texts, one per line: a JSON string or `{"text": "…"}`. Blank lines are passed over.

use serde::Deserialize;

use super::{Sieve, SourceError};
use crate::domain::omission::Omissions;

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Text(String),
    Object { text: String },
}

/// Reads all lines; the first that is not a text ends it, with its number, or with `lenient` is listed.
pub fn read(text: &str, lenient: bool) -> Result<(Vec<String>, Omissions), SourceError> {
    let mut sieve = Sieve::new(lenient);
    let mut texts = Vec::new();
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
        match read_line(line, number) {
            Ok(text) => texts.push(text),
            Err(error) => sieve.leave_out(error)?,
        }
    }
    Ok((texts, sieve.into_left_out()))
}

/// Reads one line; `number` counts from 1 and is for the error only.
pub fn read_line(line: &str, number: u64) -> Result<String, SourceError> {
    let line = line.trim_start_matches('\u{feff}');
    // the syntax error first: an untagged enum would hide its column
    let value: serde_json::Value =
        serde_json::from_str(line).map_err(|e| SourceError { line: number, ..SourceError::of_json(&e) })?;
    match Line::deserialize(value) {
        Ok(Line::Text(text) | Line::Object { text }) => Ok(text),
        Err(_) => Err(SourceError::new(number, 1, "expected a string or an object with a string \"text\"")),
    }
}
