//! A Mermaid `erDiagram`: entities with attributes, and crow's-foot relationships.
//!
//! Entity ids are made here (`c1_Order_Item`); names stand in quoted labels, with what Mermaid, its Markdown or its
//! HTML could read as syntax written as entity codes.

use std::collections::HashMap;
use std::fmt::Write;

use crate::domain::fact::{Attribute, Cardinality, DataModel, Relationship};

pub fn write(model: &DataModel) -> String {
    let mut text = String::from("erDiagram\n");
    let mut ids: HashMap<&str, String> = HashMap::new();
    let mut attributes: HashMap<&str, Vec<&Attribute>> = HashMap::new();
    for attribute in &model.attributes {
        attributes.entry(&attribute.concept).or_default().push(attribute);
    }
    for (at, concept) in model.concepts.iter().enumerate() {
        let id = format!("c{}_{}", at + 1, word(&concept.name));
        let _ = write!(text, "    {id}[\"{}\"]", label(&concept.name));
        if let Some(list) = attributes.get(concept.name.as_str()) {
            text.push_str(" {\n");
            for attribute in list {
                line(&mut text, attribute);
            }
            text.push_str("    }");
        }
        text.push('\n');
        ids.insert(&concept.name, id);
    }
    for relationship in &model.relationships {
        if let (Some(from), Some(to)) =
            (ids.get(relationship.from.as_str()), ids.get(relationship.to.as_str()))
        {
            let _ =
                writeln!(text, "    {from} {} {to} : \"{}\"", arrow(relationship), label(&relationship.name));
        }
    }
    text
}

fn line(text: &mut String, attribute: &Attribute) {
    let _ = write!(text, "        {} a_{}", attribute.meaning.as_str(), word(&attribute.source_column));
    if attribute.identifier {
        text.push_str(" PK");
    } else if attribute.unique {
        text.push_str(" UK");
    }
    let _ = writeln!(text, " \"{}\"", label(&attribute.name));
}

/// `from` on the left: how many of it belong to one `to`, then how many `to` one of it has.
fn arrow(relationship: &Relationship) -> String {
    let left = if relationship.cardinality == Cardinality::OneToOne { "|o" } else { "}o" };
    let right = if relationship.required { "||" } else { "o|" };
    format!("{left}--{right}")
}

/// Letters, digits and underscores, never empty.
fn word(name: &str) -> String {
    let word: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if word.is_empty() { "_".into() } else { word }
}

/// What stands between quotes, and is shown as the name is.
fn label(text: &str) -> String {
    let mut out = String::new();
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        let rest = &text[at + c.len_utf8()..];
        match c {
            _ if is_syntax(c) => code(&mut out, c),
            // emphasis, but not within a word
            '_' if !before.is_alphanumeric() || !rest.starts_with(char::is_alphanumeric) => code(&mut out, c),
            'd' | 'D' if is_direction(&text[at..]) => code(&mut out, c),
            c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => out.push(' '),
            c => out.push(c),
        }
        before = c;
    }
    // an empty label is a syntax error
    if out.trim().is_empty() { "-".into() } else { out }
}

fn code(out: &mut String, c: char) {
    let _ = write!(out, "#{};", c as u32);
}

/// Read as syntax wherever it stands: by the grammar and HTML, by Markdown (`*a*`), as a generic type (`~a~`), a
/// formula (`$$a$$`) or an icon (`fa:fa-car`).
fn is_syntax(c: char) -> bool {
    "\"<>&#;%{}[]\\`*~$:".contains(c)
}

/// `direction LR` is a statement to Mermaid's lexer, even within quotes, and takes the whole line with it.
fn is_direction(text: &str) -> bool {
    let Some((word, rest)) = text.split_at_checked("direction".len()) else { return false };
    let rest = rest.trim_start_matches(|c: char| !c.is_alphanumeric());
    let way = rest.get(..2).unwrap_or_default();
    word.eq_ignore_ascii_case("direction")
        && ["TB", "BT", "RL", "LR"].iter().any(|known| way.eq_ignore_ascii_case(known))
}
