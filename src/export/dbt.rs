//! A dbt `schema.yml`: a model per source table with descriptions and the tests that the schema implies.
//!
//! Every scalar that is not ours is written double-quoted, in the part of YAML that is JSON.

use std::collections::HashMap;
use std::fmt::Write;

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

fn column(text: &mut String, attribute: &Attribute, links: &[&Relationship]) {
    let _ = writeln!(text, "      - name: {}", quoted(&attribute.source_column));
    let _ = writeln!(text, "        description: {}", quoted(&attribute.description));
    if !attribute.data_type.is_empty() {
        let _ = writeln!(text, "        data_type: {}", quoted(&attribute.data_type));
    }
    let _ = writeln!(text, "        meta:\n          attribute: {}", quoted(&attribute.name));
    let _ = writeln!(text, "          type: {}", attribute.meaning.as_str());
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
        let target = format!("ref('{}')", link.to_table.replace('\\', "\\\\").replace('\'', "\\'"));
        let _ = writeln!(text, "          - relationships:\n              to: {}", quoted(&target));
        let _ = writeln!(text, "              field: {}", quoted(&link.to_columns[0]));
    }
}

/// A JSON string is a YAML double-quoted scalar once the line breaks that only YAML knows are escaped.
/// Braces stay as they are, so dbt still reads `{{ … }}` in a description as Jinja.
fn quoted(text: &str) -> String {
    let mut out = serde_json::to_string(text).expect("a string is JSON");
    for (c, escape) in [
        ('\u{7f}', "\\x7F"),
        ('\u{85}', "\\N"),
        ('\u{2028}', "\\L"),
        ('\u{2029}', "\\P"),
        ('\u{feff}', "\\uFEFF"),
    ] {
        out = out.replace(c, escape);
    }
    out
}
