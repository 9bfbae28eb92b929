//! A dbt `schema.yml`: a model per source table with descriptions and the tests that the schema implies.
//!
//! Every scalar that is not ours is written double-quoted, in the part of YAML that is JSON, and such that dbt,
//! which renders scalars as Jinja templates, renders it to itself.

use std::collections::HashMap;
use std::fmt::Write;

use crate::domain::confidence::Confidence;
use crate::domain::fact::{Attribute, DataModel, Relationship};

pub fn write(model: &DataModel) -> String {
    if model.concepts.is_empty() {
        return "version: 2\n\nmodels: []\n".into();
    }
    let mut text = String::from("version: 2\n\nmodels:\n");
    let mut attributes: HashMap<&str, Vec<&Attribute>> = HashMap::new();
    for attribute in &model.attributes {
        attributes.entry(&attribute.source_table).or_default().push(attribute);
    }
    let mut links: HashMap<(&str, &str), Vec<&Relationship>> = HashMap::new();
    for relationship in &model.relationships {
        // dbt's test knows keys of one column
        if let ([from], [_]) = (relationship.from_columns.as_slice(), relationship.to_columns.as_slice()) {
            links.entry((&relationship.from_table, from)).or_default().push(relationship);
        }
    }
    for concept in &model.concepts {
        for table in &concept.source_tables {
            let _ = writeln!(text, "  - name: {}", quoted(table));
            let _ = writeln!(text, "    description: {}", quoted(&concept.description));
            let _ = writeln!(text, "    meta:\n      concept: {}", quoted(&concept.name));
            let _ = writeln!(text, "      kind: {}", concept.kind.as_str());
            certainty(&mut text, "      ", concept.confidence, concept.review);
            let columns = attributes.get(table.as_str()).map(Vec::as_slice).unwrap_or_default();
            if !columns.is_empty() {
                text.push_str("    columns:\n");
            }
            for attribute in columns {
                let key = (table.as_str(), attribute.source_column.as_str());
                column(&mut text, attribute, links.get(&key).map(Vec::as_slice).unwrap_or_default());
            }
        }
    }
    text
}

/// Of a `meta` block: how sure the model was, and whether somebody should look.
fn certainty(text: &mut String, indent: &str, confidence: Option<Confidence>, review: bool) {
    if let Some(confidence) = confidence {
        let _ = writeln!(text, "{indent}confidence: {confidence}");
    }
    if review {
        let _ = writeln!(text, "{indent}review: true");
    }
}

fn column(text: &mut String, attribute: &Attribute, links: &[&Relationship]) {
    let _ = writeln!(text, "      - name: {}", quoted(&attribute.source_column));
    let _ = writeln!(text, "        description: {}", quoted(&attribute.description));
    if !attribute.data_type.is_empty() {
        let _ = writeln!(text, "        data_type: {}", quoted(&attribute.data_type));
    }
    let _ = writeln!(text, "        meta:\n          attribute: {}", quoted(&attribute.name));
    let _ = writeln!(text, "          type: {}", attribute.meaning.as_str());
    certainty(text, "          ", attribute.confidence, attribute.review);
    if !attribute.required && !attribute.unique && links.is_empty() {
        return;
    }
    text.push_str("        data_tests:\n");
    if attribute.required {
        text.push_str("          - not_null\n");
    }
    if attribute.unique {
        text.push_str("          - unique\n");
    }
    for link in links {
        let target = format!("ref('{}')", jinja_literal(&link.to_table));
        let _ = writeln!(text, "          - relationships:\n              to: {}", scalar(&target));
        let _ = writeln!(text, "              field: {}", quoted(&link.to_columns[0]));
    }
}

/// Text that dbt shows as it is: it renders every scalar of this file as a Jinja template.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        // a lone brace begins nothing
        if c == '{' && matches!(chars.peek(), Some('{' | '%' | '#')) {
            out.push_str("{{ '{' }}");
        } else {
            out.push(c);
        }
    }
    scalar(&out)
}

/// The inside of a string literal of Jinja, without anything that could begin or end an expression.
fn jinja_literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() || "\\'\"{}%#".contains(c) => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out
}

/// A JSON string is a YAML double-quoted scalar once the characters that only YAML minds are escaped.
fn scalar(text: &str) -> String {
    let mut out = serde_json::to_string(text).expect("a string is JSON");
    for (c, escape) in [('\u{85}', "\\N"), ('\u{2028}', "\\L"), ('\u{2029}', "\\P"), ('\u{feff}', "\\uFEFF")]
    {
        out = out.replace(c, escape);
    }
    // the rest of what YAML does not print: delete, C1 controls, noncharacters
    let printable = |c: char| !matches!(c, '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}');
    if out.chars().all(printable) {
        return out;
    }
    let mut escaped = String::with_capacity(out.len());
    for c in out.chars() {
        if printable(c) {
            escaped.push(c);
        } else {
            let _ = write!(escaped, "\\u{:04X}", c as u32);
        }
    }
    escaped
}
