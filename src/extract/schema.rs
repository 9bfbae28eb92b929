//! JSON Schemas: the one an item's answer is generated under, and the public one its stored result satisfies.
//!
//! Answers are arrays with a fixed entry per object (`prefixItems` with `const` identifiers), so that nothing
//! can be dropped, repeated or invented, and most tokens are forced. Key order is generation order. No
//! `maxLength`: it makes masks many times dearer; the engine counts instead, and `answer` cuts names.

use serde_json::{Map, Value, json};

use super::ExtractError;
use super::guess;
use super::item::{Ask, AttributeItem, ConceptItem, Item, LineItem, Link, RelationshipItem};
use super::name::{self, MAX_DESCRIPTION_BYTES, MAX_NAME_BYTES};
use crate::domain::catalog::{Catalog, Column, Table};
use crate::domain::fact::{Cardinality, Kind, Meaning, Source};
use crate::domain::item::ItemDraft;
use crate::domain::job::JobSpec;

/// Undeclared links that one item may confirm.
pub const MAX_INFERRED: usize = 3;

/// The schema of an item's answer, for the grammar; `None` leaves the answer free.
pub fn answer_schema(
    spec: &JobSpec,
    catalog: Option<&Catalog>,
    draft: &ItemDraft,
) -> Result<Option<Value>, ExtractError> {
    let item = Item::read(draft, catalog)?;
    Ok(match item {
        Item::Custom(_) => spec.schema.clone(),
        Item::Chat(item) => item.schema.or_else(|| spec.schema.clone()),
        Item::Line(LineItem { ask: Ask::Request(request), .. }) => request.format.schema(),
        Item::Line(_) => None,
        Item::Concept(item) => Some(concept_answer(super::catalog_of(catalog)?, &item)),
        Item::Relationship(item) => Some(relationship_answer(super::catalog_of(catalog)?, &item)),
        Item::Attribute(item) => Some(attribute_answer(super::catalog_of(catalog)?, &item)),
    })
}

/// The schema that an item's stored result satisfies, with the item's own identifiers. Draft 2020-12.
pub fn result_schema(
    spec: &JobSpec,
    catalog: Option<&Catalog>,
    draft: &ItemDraft,
) -> Result<Value, ExtractError> {
    Ok(match Item::read(draft, catalog)? {
        Item::Custom(_) => spec.schema.clone().unwrap_or(Value::Bool(true)),
        Item::Chat(_) => object(vec![("content", json!({"type": "string"}))]),
        Item::Line(_) => json!({
            "type": "object",
            "properties": {
                "content": {"type": "string"},
                "finish": {"enum": ["stop", "length"]},
                "logprobs": {"type": "array"},
            },
            "required": ["content", "finish"],
            "additionalProperties": false,
        }),
        Item::Concept(item) => concept_result(super::catalog_of(catalog)?, &item),
        Item::Relationship(item) => relationship_result(super::catalog_of(catalog)?, &item),
        Item::Attribute(item) => attribute_result(super::catalog_of(catalog)?, &item),
    })
}

fn concept_answer(catalog: &Catalog, item: &ConceptItem) -> Value {
    let entries = item.tables.iter().map(|at| {
        object(vec![
            ("table", json!({"const": catalog.tables[*at].name})),
            ("offered", json!({"const": offered_concept(catalog, *at)})),
            ("concept", string()),
            ("kind", one_of(Kind::ALL.iter().map(|k| k.as_str()))),
            ("description", string()),
        ])
    });
    object(vec![("concepts", tuple(entries.collect()))])
}

/// What a model is offered for a table: forced into the answer right before the model's own words, where even a
/// small one sees it.
fn offered_concept(catalog: &Catalog, at: usize) -> String {
    format!("{}, {}", name::concept_of_table(&catalog.tables[at].name), guess::kind(catalog, at).as_str())
}

fn offered_relationship(catalog: &Catalog, (table, key): (usize, usize)) -> String {
    let key = &catalog.tables[table].foreign_keys[key];
    guess::relationship(&key.columns, &key.ref_table)
}

fn offered_attribute(table: &Table, column: &Column) -> String {
    format!("{}, {}", name::attribute_of_column(&column.name), guess::meaning(table, column).as_str())
}

/// The meanings that a column's declaration leaves open.
fn meanings(table: &Table, column: &Column) -> Value {
    match guess::stated_meaning(table, column) {
        Some(stated) => json!({"const": stated.as_str()}),
        None => one_of(Meaning::ALL.iter().map(|m| m.as_str())),
    }
}

fn concept_result(catalog: &Catalog, item: &ConceptItem) -> Value {
    let entries = item.tables.iter().map(|at| {
        object(vec![
            ("table", json!({"const": catalog.tables[*at].name})),
            ("kind", one_of(Kind::ALL.iter().map(|k| k.as_str()))),
            ("concept", name_text()),
            ("description", description_text()),
        ])
    });
    object(vec![("concepts", tuple(entries.map(with_confidence).collect()))])
}

fn relationship_answer(catalog: &Catalog, item: &RelationshipItem) -> Value {
    let keys = item.keys.iter().map(|key| {
        object(vec![
            ("key", json!({"const": RelationshipItem::key_text(catalog, *key)})),
            ("offered", json!({"const": offered_relationship(catalog, *key)})),
            ("name", string()),
            ("description", string()),
        ])
    });
    let mut parts = vec![("relationships", tuple(keys.collect()))];
    if !item.links.is_empty() {
        let texts: Vec<String> = item.links.iter().map(|link| link.text(catalog)).collect();
        let entry = object(vec![
            ("link", one_of(texts.iter().map(String::as_str))),
            ("name", string()),
            ("description", string()),
        ]);
        let most = texts.len().min(MAX_INFERRED);
        parts.push(("inferred", json!({"type": "array", "items": entry, "minItems": 0, "maxItems": most})));
    }
    object(parts)
}

fn relationship_result(catalog: &Catalog, item: &RelationshipItem) -> Value {
    let concept = |at: usize| item.concept(at).unwrap_or_default().to_string();
    let entry =
        |from: usize, from_columns: Vec<String>, to: usize, to_columns: Vec<String>, source: Source| {
            with_confidence(object(vec![
                ("name", name_text()),
                ("description", description_text()),
                ("from", json!({"const": concept(from)})),
                ("to", json!({"const": concept(to)})),
                ("cardinality", one_of(Cardinality::ALL.iter().map(|c| c.as_str()))),
                ("required", json!({"type": "boolean"})),
                ("source", json!({"const": source.as_str()})),
                ("from_table", json!({"const": catalog.tables[from].name})),
                ("from_columns", json!({"const": from_columns})),
                ("to_table", json!({"const": catalog.tables[to].name})),
                ("to_columns", json!({"const": to_columns})),
            ]))
        };
    let keys: Vec<Value> = item
        .keys
        .iter()
        .map(|(at, key)| {
            let key = &catalog.tables[*at].foreign_keys[*key];
            let (to, to_columns) = catalog.resolve(key).unwrap_or((*at, Vec::new()));
            entry(*at, key.columns.clone(), to, to_columns, Source::Model)
        })
        .collect();
    let links: Vec<Value> = item
        .links
        .iter()
        .map(|link| {
            let (from, to) = (Link::columns(catalog, link.from), Link::columns(catalog, link.to));
            entry(link.from.0, from, link.to.0, to, Source::Inferred)
        })
        .collect();
    let (least, most) = (keys.len(), keys.len() + links.len().min(MAX_INFERRED));
    let rest = if links.is_empty() { Value::Bool(false) } else { json!({"anyOf": links}) };
    let mut list = json!({"type": "array", "items": rest, "minItems": least, "maxItems": most});
    if !keys.is_empty() {
        list["prefixItems"] = Value::Array(keys);
    }
    object(vec![("relationships", list)])
}

fn attribute_answer(catalog: &Catalog, item: &AttributeItem) -> Value {
    let table = &catalog.tables[item.table];
    let entries = table.columns[item.from..item.to].iter().map(|column| {
        object(vec![
            ("column", json!({"const": column.name})),
            ("offered", json!({"const": offered_attribute(table, column)})),
            ("attribute", string()),
            ("type", meanings(table, column)),
            ("description", string()),
        ])
    });
    object(vec![("attributes", tuple(entries.collect()))])
}

fn attribute_result(catalog: &Catalog, item: &AttributeItem) -> Value {
    let table: &Table = &catalog.tables[item.table];
    let entries = table.columns[item.from..item.to].iter().map(|column| {
        let itself = std::slice::from_ref(&column.name);
        object(vec![
            ("concept", json!({"const": item.concept})),
            ("name", name_text()),
            ("type", meanings(table, column)),
            ("description", description_text()),
            ("identifier", json!({"const": table.primary_key.contains(&column.name)})),
            ("required", json!({"const": table.is_required(itself)})),
            ("unique", json!({"const": table.is_unique(itself)})),
            ("source", json!({"const": Source::Model.as_str()})),
            ("source_table", json!({"const": table.name})),
            ("source_column", json!({"const": column.name})),
            ("data_type", json!({"const": column.data_type})),
        ])
    });
    object(vec![("attributes", tuple(entries.map(with_confidence).collect()))])
}

/// All keys required, none else allowed, in this order.
fn object(parts: Vec<(&str, Value)>) -> Value {
    let required: Vec<&str> = parts.iter().map(|(key, _)| *key).collect();
    let required = json!(required);
    let properties: Map<String, Value> = parts.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
    json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    })
}

/// Exactly these entries, in order.
fn tuple(entries: Vec<Value>) -> Value {
    let count = entries.len();
    let mut list = json!({"type": "array", "minItems": count, "maxItems": count, "items": false});
    if count > 0 {
        // an empty `prefixItems` is not valid JSON Schema
        list["prefixItems"] = Value::Array(entries);
    }
    list
}

fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> Value {
    json!({"enum": words.collect::<Vec<_>>()})
}

fn string() -> Value {
    json!({"type": "string"})
}

fn name_text() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": MAX_NAME_BYTES})
}

fn description_text() -> Value {
    json!({"type": "string", "maxLength": MAX_DESCRIPTION_BYTES})
}

/// An entry may say how sure the model was; null where its choices are not known.
/// Results of before there were confidences have none.
fn with_confidence(mut entry: Value) -> Value {
    entry["properties"]["confidence"] = json!({"type": ["number", "null"], "minimum": 0, "maximum": 1});
    entry
}

/// Bytes of a character of a JSON string at most: `\u001f`.
const MAX_CHARACTER_BYTES: usize = 6;

/// Upper bound of the bytes of an answer under `schema` in compact JSON, if free strings end at
/// `string_bytes`; `None` where the schema bounds nothing. A token is at least a byte, so it bounds tokens too.
pub fn max_answer_bytes(schema: &Value, string_bytes: usize) -> Option<usize> {
    let schema = schema.as_object()?;
    let bytes = |v: &Value| v.to_string().len();
    if let Some(value) = schema.get("const") {
        return Some(bytes(value));
    }
    if let Some(values) = schema.get("enum") {
        return values.as_array()?.iter().map(bytes).max();
    }
    match schema.get("type")?.as_str()? {
        "null" => Some(4),
        "boolean" => Some(5),
        // what these ask for is not cut short by the bound on free strings
        "string" if schema.contains_key("format") || schema.contains_key("pattern") => None,
        // quotes, and the character that reaches the bound, escaped
        "string" => {
            let least = usize::try_from(schema.get("minLength").and_then(Value::as_u64).unwrap_or(0)).ok()?;
            Some(string_bytes.max(least.checked_mul(MAX_CHARACTER_BYTES)?) + 2 + 2 * MAX_CHARACTER_BYTES)
        }
        "object" if schema.get("additionalProperties") == Some(&Value::Bool(false)) => {
            let mut sum = 2;
            for (key, value) in schema.get("properties")?.as_object()? {
                sum += json!(key).to_string().len() + 2 + max_answer_bytes(value, string_bytes)?;
            }
            Some(sum)
        }
        "array" => {
            let fixed = schema.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let most = usize::try_from(schema.get("maxItems")?.as_u64()?).ok()?;
            let mut sum = 2 + most;
            for entry in fixed.iter().take(most) {
                sum += max_answer_bytes(entry, string_bytes)?;
            }
            let rest = most.saturating_sub(fixed.len());
            if rest > 0 {
                sum += max_answer_bytes(schema.get("items")?, string_bytes)?.checked_mul(rest)?;
            }
            Some(sum)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_bounded_only_where_its_strings_are() {
        let check = |schema: Value, bytes: Option<usize>| {
            assert_eq!(max_answer_bytes(&schema, 24), bytes, "{schema}");
        };
        check(json!({"type": "string"}), Some(24 + 14));
        check(json!({"type": "string", "minLength": 3}), Some(24 + 14));
        check(json!({"type": "string", "minLength": 100}), Some(600 + 14));
        check(json!({"type": "string", "format": "email"}), None);
        check(json!({"type": "array", "maxItems": 2, "items": {"type": "string", "pattern": "^a+$"}}), None);
        check(json!({"enum": ["a", "bcd"]}), Some(5));
    }
}
