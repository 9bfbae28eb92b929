//! An R2RML mapping of the source database onto the classes and properties of the OWL export: a triples map per table.
//!
//! A row's IRI is made of its key: the primary key, else a required unique column, else columns that a declared key
//! points to. A table without any has blank nodes of all its columns. A table of which no column is known, and a
//! relationship of which no column is, cannot be mapped, and are left out.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use super::rdf::{DatatypeProperty, ObjectProperty, PREFIXES, Vocabulary, literal, local};
use crate::domain::fact::{DataModel, Source};

const HEAD: &str = "@prefix rr: <http://www.w3.org/ns/r2rml#> .
@prefix map: <urn:adit:map#> .
";

pub fn write(model: &DataModel) -> String {
    let vocabulary = Vocabulary::of(model);
    let mut attributes: HashMap<&str, Vec<DatatypeProperty<'_>>> = HashMap::new();
    for property in vocabulary.datatype_properties() {
        attributes.entry(&property.fact.source_table).or_default().push(property);
    }
    let relationships: Vec<ObjectProperty<'_>> = vocabulary.object_properties().collect();
    let mut text = format!("{PREFIXES}{HEAD}");
    let mut subjects: Vec<(&str, &str, Subject<'_>)> = Vec::new();
    for concept in &model.concepts {
        for table in &concept.source_tables {
            let own = attributes.get(table.as_str()).map(Vec::as_slice).unwrap_or_default();
            if let Some(subject) = subject(table, own, &relationships) {
                subjects.push((vocabulary.class(&concept.name), table, subject));
            }
        }
    }
    let mapped: HashSet<&str> = subjects.iter().map(|(_, table, _)| *table).collect();
    let mut outgoing: HashMap<&str, Vec<&ObjectProperty<'_>>> = HashMap::new();
    for property in relationships.iter().filter(|property| is_mapped(property, &mapped)) {
        outgoing.entry(&property.fact.from_table).or_default().push(property);
    }
    for (class, table, subject) in subjects {
        triples_map(&mut text, class, table, &subject);
        for property in attributes.get(table).into_iter().flatten() {
            let _ = write!(text, " ;\n    rr:predicateObjectMap [\n        rr:predicate {} ;", property.id);
            let column = literal(&delimited(&property.fact.source_column));
            let _ = write!(
                text,
                "\n        rr:objectMap [ rr:column {column} ; rr:datatype {} ]\n    ]",
                property.range
            );
        }
        for property in outgoing.get(table).into_iter().flatten() {
            link(&mut text, property);
        }
        text.push_str(" .\n");
    }
    text
}

/// What tells a table's rows apart.
enum Subject<'a> {
    Key(Vec<&'a str>),
    /// Nothing does.
    Row(Vec<&'a str>),
}

fn subject<'a>(
    table: &str,
    attributes: &[DatatypeProperty<'a>],
    relationships: &[ObjectProperty<'a>],
) -> Option<Subject<'a>> {
    let columns = |wanted: fn(&DatatypeProperty<'a>) -> bool| -> Vec<&'a str> {
        attributes.iter().filter(|p| wanted(p)).map(|p| p.fact.source_column.as_str()).collect()
    };
    let primary = columns(|p| p.fact.identifier);
    if !primary.is_empty() {
        return Some(Subject::Key(primary));
    }
    if let Some(unique) = columns(|p| p.fact.unique && p.fact.required).first() {
        return Some(Subject::Key(vec![unique]));
    }
    // an inferred link may point anywhere
    let declared = relationships.iter().map(|p| p.fact).filter(|fact| fact.source != Source::Inferred);
    let target = declared.filter(|fact| fact.to_table == table).find(|fact| !fact.to_columns.is_empty());
    if let Some(target) = target {
        return Some(Subject::Key(target.to_columns.iter().map(String::as_str).collect()));
    }
    let mut all = columns(|_| true);
    for column in
        relationships.iter().filter(|p| p.fact.from_table == table).flat_map(|p| &p.fact.from_columns)
    {
        if !all.contains(&column.as_str()) {
            all.push(column);
        }
    }
    (!all.is_empty()).then_some(Subject::Row(all))
}

fn is_mapped(property: &ObjectProperty<'_>, mapped: &HashSet<&str>) -> bool {
    let fact = property.fact;
    !fact.from_columns.is_empty()
        && fact.from_columns.len() == fact.to_columns.len()
        && mapped.contains(fact.from_table.as_str())
        && mapped.contains(fact.to_table.as_str())
}

fn triples_map(text: &mut String, class: &str, table: &str, subject: &Subject<'_>) {
    let id = local(&[table]);
    let (columns, kind) = match subject {
        Subject::Key(columns) => (columns, ""),
        Subject::Row(columns) => (columns, " rr:termType rr:BlankNode ;"),
    };
    let places: Vec<String> = columns.iter().map(|column| format!("{{{}}}", in_template(column))).collect();
    let template = format!("urn:adit:data:{id}/{}", places.join("/"));
    let _ = write!(text, "\nmap:{id} a rr:TriplesMap");
    let _ = write!(text, " ;\n    rr:logicalTable [ rr:tableName {} ]", literal(&table_name(table)));
    let template = literal(&template);
    let _ = write!(text, " ;\n    rr:subjectMap [ rr:template {template} ;{kind} rr:class {class} ]");
}

fn link(text: &mut String, property: &ObjectProperty<'_>) {
    let fact = property.fact;
    let _ = write!(text, " ;\n    rr:predicateObjectMap [\n        rr:predicate {} ;", property.id);
    let _ = write!(
        text,
        "\n        rr:objectMap [\n            rr:parentTriplesMap map:{}",
        local(&[&fact.to_table])
    );
    for (child, parent) in fact.from_columns.iter().zip(&fact.to_columns) {
        let (child, parent) = (literal(&delimited(child)), literal(&delimited(parent)));
        let _ = write!(text, " ;\n            rr:joinCondition [ rr:child {child} ; rr:parent {parent} ]");
    }
    text.push_str("\n        ]\n    ]");
}

/// A table's name is `schema.table` outside the default schema.
fn table_name(table: &str) -> String {
    match table.split_once('.') {
        Some((schema, table)) if !schema.is_empty() && !table.is_empty() => {
            format!("{}.{}", delimited(schema), delimited(table))
        }
        _ => delimited(table),
    }
}

/// SQL's delimited identifier, which keeps case and any character.
fn delimited(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Braces and backslashes of a name are escaped in a template.
fn in_template(column: &str) -> String {
    let mut out = String::new();
    for c in delimited(column).chars() {
        if matches!(c, '\\' | '{' | '}') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
