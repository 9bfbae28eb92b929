//! What the RDF exports share: the IRIs of classes and properties, so that all speak of the same things, and literals.

use std::collections::HashMap;
use std::fmt::Write;

use crate::domain::fact::{Attribute, DataModel, Meaning, Relationship};

/// Prefixes of every RDF export; `:` is the model itself.
pub(super) const PREFIXES: &str = "@prefix : <urn:adit:model#> .
@prefix adit: <urn:adit:vocabulary#> .
@prefix owl: <http://www.w3.org/2002/07/owl#> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
";

/// The model's terms as prefixed names.
pub(super) struct Vocabulary<'a> {
    model: &'a DataModel,
    classes: HashMap<&'a str, String>,
}

/// A relationship between two classes.
pub(super) struct ObjectProperty<'a> {
    pub(super) id: String,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) fact: &'a Relationship,
}

/// An attribute of a class.
pub(super) struct DatatypeProperty<'a> {
    pub(super) id: String,
    pub(super) class: &'a str,
    pub(super) range: &'static str,
    pub(super) fact: &'a Attribute,
}

impl<'a> Vocabulary<'a> {
    pub(super) fn of(model: &'a DataModel) -> Self {
        let class = |name: &'a str| (name, format!(":{}", local(&[name])));
        Self { model, classes: model.concepts.iter().map(|c| class(&c.name)).collect() }
    }

    /// Of a concept of the model.
    pub(super) fn class(&self, concept: &str) -> &str {
        self.classes.get(concept).map_or(":n-", String::as_str)
    }

    /// Relationships whose ends are concepts of the model, in its order.
    pub(super) fn object_properties(&self) -> impl Iterator<Item = ObjectProperty<'_>> {
        self.model.relationships.iter().enumerate().filter_map(|(at, fact)| {
            let (from, to) = (self.classes.get(fact.from.as_str())?, self.classes.get(fact.to.as_str())?);
            // the place keeps two keys of one name between the same tables apart
            let id = format!(":{}", local(&[&fact.from_table, &fact.name, &format!("r{}", at + 1)]));
            Some(ObjectProperty { id, from, to, fact })
        })
    }

    /// Attributes of concepts of the model, in its order.
    pub(super) fn datatype_properties(&self) -> impl Iterator<Item = DatatypeProperty<'_>> {
        self.model.attributes.iter().filter_map(|fact| {
            let class = self.classes.get(fact.concept.as_str())?;
            let id = format!(":{}", local(&[&fact.source_table, &fact.source_column]));
            Some(DatatypeProperty { id, class, range: range(fact.meaning), fact })
        })
    }
}

fn range(meaning: Meaning) -> &'static str {
    match meaning {
        Meaning::Quantity | Meaning::Amount | Meaning::Percentage => "xsd:decimal",
        Meaning::Date => "xsd:date",
        Meaning::Timestamp => "xsd:dateTime",
        Meaning::Boolean => "xsd:boolean",
        Meaning::Url => "xsd:anyURI",
        Meaning::Binary => "xsd:base64Binary",
        _ => "xsd:string",
    }
}

/// A local name that is distinct for distinct parts: letters and digits as they are, all else as `_hex_`.
pub(super) fn local(parts: &[&str]) -> String {
    let mut out = String::from("n");
    for part in parts {
        out.push('-');
        for c in part.chars() {
            if c.is_ascii_alphanumeric() {
                out.push(c);
            } else {
                let _ = write!(out, "_{:x}_", c as u32);
            }
        }
    }
    out
}

pub(super) fn literal(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
