//! A GraphViz digraph: a record per concept with its attributes, crow's-foot edges.
//!
//! Node ids are made here; names stand in quoted labels, where a backslash introduces GraphViz's own escapes, an
//! ampersand its entities, and braces, bars and angles shape a record.

use std::collections::HashMap;
use std::fmt::Write;

use crate::domain::fact::{Attribute, Cardinality, DataModel, Relationship};

const HEAD: &str = "digraph model {
    graph [rankdir=LR];
    node [shape=record];
    edge [dir=both];
";

pub fn write(model: &DataModel) -> String {
    let mut text = String::from(HEAD);
    let mut attributes: HashMap<&str, Vec<&Attribute>> = HashMap::new();
    for attribute in &model.attributes {
        attributes.entry(&attribute.concept).or_default().push(attribute);
    }
    let mut ids: HashMap<&str, usize> = HashMap::new();
    for (at, concept) in model.concepts.iter().enumerate() {
        ids.insert(&concept.name, at + 1);
        let _ = write!(text, "    c{} [label=\"{{{}", at + 1, record(&concept.name));
        if let Some(list) = attributes.get(concept.name.as_str()) {
            text.push('|');
            for attribute in list {
                // left-aligned lines, the identifier marked
                let mark = if attribute.identifier { "# " } else { "" };
                let doubt = if attribute.review { " ?" } else { "" };
                let meaning = attribute.meaning.as_str();
                let _ = write!(text, "{mark}{}: {meaning}{doubt}\\l", record(&attribute.name));
            }
        }
        let _ =
            writeln!(text, "}}\", tooltip=\"{}\"{}];", label(&concept.description), dashed(concept.review));
    }
    for relationship in &model.relationships {
        if let (Some(from), Some(to)) =
            (ids.get(relationship.from.as_str()), ids.get(relationship.to.as_str()))
        {
            let (tail, head) = ends(relationship);
            let name = label(&relationship.name);
            let _ = writeln!(
                text,
                "    c{from} -> c{to} [label=\"{name}\", arrowtail={tail}, arrowhead={head}{}];",
                dashed(relationship.review)
            );
        }
    }
    text.push_str("}\n");
    text
}

/// What somebody should look at is dashed, and marked with a question mark in a record.
fn dashed(review: bool) -> &'static str {
    if review { ", style=dashed" } else { "" }
}

/// How many `from` belong to one `to`, and how many `to` one `from` has.
fn ends(relationship: &Relationship) -> (&'static str, &'static str) {
    let tail = match relationship.cardinality {
        Cardinality::OneToOne => "teeodot",
        Cardinality::ManyToOne => "crowodot",
        Cardinality::Unknown => "none",
    };
    (tail, if relationship.required { "teetee" } else { "teeodot" })
}

/// Text in a field of a record.
fn record(text: &str) -> String {
    let mut out = String::new();
    for c in label(text).chars() {
        if matches!(c, '{' | '}' | '|' | '<' | '>') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Text in a quoted label.
fn label(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '&' => out.push_str("&amp;"),
            c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => out.push(' '),
            c => out.push(c),
        }
    }
    // nothing to see would be a gap in the drawing
    if out.trim().is_empty() { "-".into() } else { out }
}
