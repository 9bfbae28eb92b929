//! An OWL ontology in Turtle: a class per concept, an object property per relationship, a datatype property
//! per attribute, each with the tables and columns it came from.

use std::collections::HashMap;
use std::fmt::Write;

use crate::domain::fact::{Attribute, Cardinality, DataModel, Meaning, Relationship};

const PREFIXES: &str = "@prefix : <urn:adit:model#> .
@prefix adit: <urn:adit:vocabulary#> .
@prefix owl: <http://www.w3.org/2002/07/owl#> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .

<urn:adit:model> a owl:Ontology .
adit:kind a owl:AnnotationProperty .
adit:meaning a owl:AnnotationProperty .
adit:source a owl:AnnotationProperty .
adit:sourceTable a owl:AnnotationProperty .
adit:sourceColumn a owl:AnnotationProperty .
";

pub fn write(model: &DataModel) -> String {
    let mut text = PREFIXES.to_string();
    let mut classes: HashMap<&str, String> = HashMap::new();
    for concept in &model.concepts {
        let class = format!(":{}", local(&[&concept.name]));
        let _ = write!(text, "\n{class} a owl:Class ;\n    rdfs:label {}", literal(&concept.name));
        comment(&mut text, &concept.description);
        let _ = write!(text, " ;\n    adit:kind {}", literal(concept.kind.as_str()));
        let _ = write!(text, " ;\n    adit:source {}", literal(concept.source.as_str()));
        for table in &concept.source_tables {
            let _ = write!(text, " ;\n    adit:sourceTable {}", literal(table));
        }
        text.push_str(" .\n");
        classes.insert(&concept.name, class);
    }
    for (at, relationship) in model.relationships.iter().enumerate() {
        if let (Some(from), Some(to)) =
            (classes.get(relationship.from.as_str()), classes.get(relationship.to.as_str()))
        {
            object_property(&mut text, at, relationship, from, to);
        }
    }
    for attribute in &model.attributes {
        if let Some(class) = classes.get(attribute.concept.as_str()) {
            datatype_property(&mut text, attribute, class);
        }
    }
    text
}

fn object_property(text: &mut String, at: usize, relationship: &Relationship, from: &str, to: &str) {
    // the place keeps two keys of one name between the same tables apart
    let id = local(&[&relationship.from_table, &relationship.name, &format!("r{}", at + 1)]);
    let _ = write!(text, "\n:{id} a owl:ObjectProperty");
    if relationship.cardinality != Cardinality::Unknown {
        text.push_str(" , owl:FunctionalProperty");
    }
    if relationship.cardinality == Cardinality::OneToOne {
        text.push_str(" , owl:InverseFunctionalProperty");
    }
    let _ = write!(text, " ;\n    rdfs:label {}", literal(&relationship.name));
    comment(text, &relationship.description);
    let _ = write!(text, " ;\n    rdfs:domain {from} ;\n    rdfs:range {to}");
    let _ = write!(text, " ;\n    adit:source {}", literal(relationship.source.as_str()));
    let _ = write!(text, " ;\n    adit:sourceTable {}", literal(&relationship.from_table));
    for column in &relationship.from_columns {
        let _ = write!(text, " ;\n    adit:sourceColumn {}", literal(column));
    }
    text.push_str(" .\n");
}

fn datatype_property(text: &mut String, attribute: &Attribute, class: &str) {
    let id = local(&[&attribute.source_table, &attribute.source_column]);
    let range = match attribute.meaning {
        Meaning::Quantity | Meaning::Amount | Meaning::Percentage => "xsd:decimal",
        Meaning::Date => "xsd:date",
        Meaning::Timestamp => "xsd:dateTime",
        Meaning::Boolean => "xsd:boolean",
        Meaning::Url => "xsd:anyURI",
        Meaning::Binary => "xsd:base64Binary",
        _ => "xsd:string",
    };
    let _ = write!(text, "\n:{id} a owl:DatatypeProperty , owl:FunctionalProperty");
    let _ = write!(text, " ;\n    rdfs:label {}", literal(&attribute.name));
    comment(text, &attribute.description);
    let _ = write!(text, " ;\n    rdfs:domain {class} ;\n    rdfs:range {range}");
    let _ = write!(text, " ;\n    adit:meaning {}", literal(attribute.meaning.as_str()));
    let _ = write!(text, " ;\n    adit:source {}", literal(attribute.source.as_str()));
    let _ = write!(text, " ;\n    adit:sourceTable {}", literal(&attribute.source_table));
    let _ = writeln!(text, " ;\n    adit:sourceColumn {} .", literal(&attribute.source_column));
}

fn comment(text: &mut String, description: &str) {
    if !description.is_empty() {
        let _ = write!(text, " ;\n    rdfs:comment {}", literal(description));
    }
}

/// A local name that is distinct for distinct parts: letters and digits as they are, all else as `_hex_`.
fn local(parts: &[&str]) -> String {
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

fn literal(text: &str) -> String {
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
