//! An answer on its way in: parsed, checked against what was asked, merged with what the catalog knows.
//!
//! The grammar is not trusted: every entry's identifier is compared, whatever produced the text.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::ExtractError;
use super::confidence::{Confidences, Decision};
use super::item::{Ask, AttributeItem, ConceptItem, Item, LineItem, Link, RelationshipItem};
use super::schema::MAX_INFERRED;
use super::{guess, name};
use crate::domain::catalog::Catalog;
use crate::domain::chat::ChatRequest;
use crate::domain::code::Code;
use crate::domain::confidence::{Confidence, ItemConfidence};
use crate::domain::fact::{Attribute, Cardinality, Kind, Meaning, Relationship, Source};
use crate::domain::item::ItemDraft;
use crate::domain::job::JobSpec;

/// Why an answer is no result.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error("the answer is not JSON of the form that was asked for")]
    Form(#[source] serde_json::Error),
    #[error("the answer has {found} {what}, {expected} were asked for")]
    Count { what: &'static str, expected: usize, found: usize },
    #[error("entry {at} is about '{found}', '{expected}' was asked for")]
    Identifier { at: usize, expected: String, found: String },
    #[error("the answer does not satisfy the schema at '{path}': {message}")]
    Schema { path: String, message: String },
    #[error("the job's schema cannot be used: {0}")]
    JobSchema(String),
    #[error(transparent)]
    Item(#[from] ExtractError),
}

impl AnswerError {
    pub fn code(&self) -> Code {
        match self {
            AnswerError::Item(error) => error.code(),
            AnswerError::JobSchema(_) => Code::InvalidSchema,
            _ => Code::InvalidAnswer,
        }
    }
}

/// An answer that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The result to store. It satisfies [`super::schema::result_schema`].
    pub output: Value,
    /// `None` where the model's choices are not known.
    pub confidence: Option<ItemConfidence>,
}

/// Checks what an item's model answered. `decisions` are the choices that the grammar left it, if they are known.
pub fn check(
    spec: &JobSpec,
    catalog: Option<&Catalog>,
    draft: &ItemDraft,
    text: &str,
    decisions: Option<&[Decision]>,
) -> Result<Checked, AnswerError> {
    let item = Item::read(draft, catalog)?;
    let catalog = || super::catalog_of(catalog);
    let sure = decisions.and_then(|decisions| Confidences::of(text, decisions));
    let unsaid = |output| Checked { output, confidence: None };
    match &item {
        Item::Concept(item) => concepts(catalog()?, item, text, sure.as_ref()),
        Item::Relationship(item) => relationships(catalog()?, item, text, sure.as_ref()),
        Item::Attribute(item) => attributes(catalog()?, item, text, sure.as_ref()),
        Item::Custom(_) => {
            let output = match &spec.schema {
                Some(schema) => validated(schema, text)?,
                None => parsed(text)?,
            };
            Ok(Checked { output, confidence: sure.map(Confidences::into_item) })
        }
        Item::Chat(item) => {
            if let Some(schema) = item.schema.as_ref().or(spec.schema.as_ref()) {
                validated(schema, text)?;
            }
            Ok(unsaid(json!({"content": text})))
        }
        Item::Line(LineItem { ask: Ask::Request(request), .. }) => {
            check_chat(request, text)?;
            Ok(unsaid(json!({"content": text})))
        }
        Item::Line(LineItem { ask: Ask::Refused(refusal), .. }) => {
            Err(ExtractError::Refused(Box::new(refusal.clone())).into())
        }
    }
}

/// How sure the model was of what it judged about one entry: of the field that it was least sure of. Prose that
/// only explains is no judgement; an entry whose name is not the one that the model gave is none of its.
fn judged(
    sure: Option<&Confidences>,
    is_named: bool,
    list: &str,
    at: usize,
    fields: &[&str],
) -> Option<Confidence> {
    let pointers: Vec<String> = fields.iter().map(|field| format!("/{list}/{at}/{field}")).collect();
    sure.map(|sure| if is_named { sure.least(&pointers) } else { Confidence::NONE })
}

/// The result of entries that carry their own confidence; the item is as sure as the least sure of them.
fn of_entries(output: Value, confidences: impl Iterator<Item = Option<Confidence>>) -> Checked {
    let confidence =
        confidences.flatten().min().map(|least| ItemConfidence { least, fields: BTreeMap::new() });
    Checked { output, confidence }
}

/// Whether a whole answer has the form that was asked for.
pub fn check_chat(request: &ChatRequest, text: &str) -> Result<(), AnswerError> {
    match request.format.schema() {
        Some(schema) => validated(&schema, text).map(drop),
        None => Ok(()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConceptAnswer {
    concepts: Vec<ConceptEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConceptEntry {
    table: String,
    /// What the prompt offered, said again by the grammar so that it stands right before the answer.
    #[serde(rename = "offered")]
    _offered: String,
    concept: String,
    kind: Kind,
    description: String,
}

fn concepts(
    catalog: &Catalog,
    item: &ConceptItem,
    text: &str,
    sure: Option<&Confidences>,
) -> Result<Checked, AnswerError> {
    let answer: ConceptAnswer = parsed(text)?;
    count("tables", item.tables.len(), answer.concepts.len())?;
    let mut entries = Vec::with_capacity(item.tables.len());
    let mut confidences = Vec::with_capacity(item.tables.len());
    for (at, (table, entry)) in item.tables.iter().zip(answer.concepts).enumerate() {
        let table = &catalog.tables[*table].name;
        identifier(at, table, entry.table)?;
        let named = name::concept(&entry.concept);
        let confidence = judged(sure, named.is_some(), "concepts", at, &["concept", "kind"]);
        let concept = named.unwrap_or_else(|| name::concept_of_table(table));
        let description = name::sentence(&entry.description);
        entries.push(json!({
            "table": table, "kind": entry.kind, "concept": concept, "description": description,
            "confidence": confidence,
        }));
        confidences.push(confidence);
    }
    Ok(of_entries(json!({"concepts": entries}), confidences.into_iter()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RelationshipAnswer {
    relationships: Vec<KeyEntry>,
    #[serde(default)]
    inferred: Vec<LinkEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    key: String,
    #[serde(rename = "offered")]
    _offered: String,
    name: String,
    description: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkEntry {
    link: String,
    name: String,
    description: String,
}

fn relationships(
    catalog: &Catalog,
    item: &RelationshipItem,
    text: &str,
    sure: Option<&Confidences>,
) -> Result<Checked, AnswerError> {
    let answer: RelationshipAnswer = parsed(text)?;
    count("keys", item.keys.len(), answer.relationships.len())?;
    if answer.inferred.len() > MAX_INFERRED {
        let found = answer.inferred.len();
        return Err(AnswerError::Count { what: "inferred links", expected: MAX_INFERRED, found });
    }
    let mut list = Vec::new();
    for (at, (key, entry)) in item.keys.iter().zip(answer.relationships).enumerate() {
        identifier(at, &RelationshipItem::key_text(catalog, *key), entry.key)?;
        let mut fact = of_key(catalog, item, *key)?;
        let named = name::plain(&entry.name);
        fact.confidence = judged(sure, named.is_some(), "relationships", at, &["name"]);
        fact.name = named.unwrap_or(fact.name);
        fact.description = name::sentence(&entry.description);
        list.push(fact);
    }
    let links: Vec<String> = item.links.iter().map(|link| link.text(catalog)).collect();
    let mut taken = vec![false; links.len()];
    for (at, entry) in answer.inferred.into_iter().enumerate() {
        let Some(link) = links.iter().position(|text| *text == entry.link) else {
            let expected = "one of the item's links".into();
            return Err(AnswerError::Identifier { at, expected, found: entry.link });
        };
        // the grammar cannot keep a model from naming one link twice
        if !std::mem::replace(&mut taken[link], true) {
            let mut fact = of_link(catalog, item, &item.links[link]);
            let named = name::plain(&entry.name);
            // that there is such a link at all is the greater part of the judgement
            fact.confidence = judged(sure, named.is_some(), "inferred", at, &["link", "name"]);
            fact.name = named.unwrap_or(fact.name);
            fact.description = name::sentence(&entry.description);
            list.push(fact);
        }
    }
    // that there is none of the links is a judgement too
    let none = list.is_empty().then(|| sure.map(|sure| sure.least(&["/inferred".to_string()])));
    let confidences = list.iter().map(|fact| fact.confidence).chain(none);
    Ok(of_entries(json!({"relationships": list}), confidences))
}

/// What the catalog alone says of a declared key; its name is derived from the key's first column.
pub(super) fn of_key(
    catalog: &Catalog,
    item: &RelationshipItem,
    (at, key): (usize, usize),
) -> Result<Relationship, ExtractError> {
    let owner = &catalog.tables[at];
    let key = &owner.foreign_keys[key];
    let (to, to_columns) = catalog.resolve(key).ok_or_else(|| ExtractError::Item {
        stage: crate::domain::task::Stage::Relationship,
        detail: format!("a key of '{}' points to nothing", owner.name),
    })?;
    let one = owner.is_unique(&key.columns);
    Ok(Relationship {
        name: guess::relationship(&key.columns, &key.ref_table),
        description: String::new(),
        from: item.concept(at).unwrap_or_default().into(),
        to: item.concept(to).unwrap_or_default().into(),
        cardinality: if one { Cardinality::OneToOne } else { Cardinality::ManyToOne },
        required: owner.is_required(&key.columns),
        source: Source::Model,
        from_table: owner.name.clone(),
        from_columns: key.columns.clone(),
        to_table: catalog.tables[to].name.clone(),
        to_columns,
        confidence: None,
        review: false,
    })
}

fn of_link(catalog: &Catalog, item: &RelationshipItem, link: &Link) -> Relationship {
    let (from, to) = (&catalog.tables[link.from.0], &catalog.tables[link.to.0]);
    let from_columns = Link::columns(catalog, link.from);
    let cardinality = match from_columns.as_slice() {
        [] => Cardinality::Unknown,
        columns if from.is_unique(columns) => Cardinality::OneToOne,
        _ => Cardinality::ManyToOne,
    };
    Relationship {
        name: guess::relationship(&from_columns, &to.name),
        description: String::new(),
        from: item.concept(link.from.0).unwrap_or_default().into(),
        to: item.concept(link.to.0).unwrap_or_default().into(),
        cardinality,
        required: !from_columns.is_empty() && from.is_required(&from_columns),
        source: Source::Inferred,
        from_table: from.name.clone(),
        from_columns,
        to_table: to.name.clone(),
        to_columns: Link::columns(catalog, link.to),
        confidence: None,
        review: false,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AttributeAnswer {
    attributes: Vec<AttributeEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AttributeEntry {
    column: String,
    #[serde(rename = "offered")]
    _offered: String,
    attribute: String,
    #[serde(rename = "type")]
    meaning: Meaning,
    description: String,
}

fn attributes(
    catalog: &Catalog,
    item: &AttributeItem,
    text: &str,
    sure: Option<&Confidences>,
) -> Result<Checked, AnswerError> {
    let answer: AttributeAnswer = parsed(text)?;
    count("columns", item.to - item.from, answer.attributes.len())?;
    let mut list = Vec::with_capacity(answer.attributes.len());
    let table = &catalog.tables[item.table];
    for (at, entry) in answer.attributes.into_iter().enumerate() {
        let mut fact = of_column(catalog, item.table, item.from + at, &item.concept);
        identifier(at, &fact.source_column, entry.column)?;
        let named = name::plain(&entry.attribute);
        fact.confidence = judged(sure, named.is_some(), "attributes", at, &["attribute", "type"]);
        fact.name = named.unwrap_or(fact.name);
        // what the schema states is not the model's to say
        fact.meaning = guess::stated_meaning(table, &table.columns[item.from + at]).unwrap_or(entry.meaning);
        fact.description = name::sentence(&entry.description);
        fact.source = Source::Model;
        list.push(fact);
    }
    let confidences = list.iter().map(|fact| fact.confidence);
    Ok(of_entries(json!({"attributes": list}), confidences))
}

/// What the catalog alone says of a column.
pub(super) fn of_column(catalog: &Catalog, table: usize, column: usize, concept: &str) -> Attribute {
    let table = &catalog.tables[table];
    let column = &table.columns[column];
    let itself = std::slice::from_ref(&column.name);
    let identifier = table.primary_key.contains(&column.name);
    Attribute {
        concept: concept.into(),
        name: name::attribute_of_column(&column.name),
        meaning: guess::meaning(table, column),
        description: String::new(),
        identifier,
        required: table.is_required(itself),
        unique: table.is_unique(itself),
        source: Source::Catalog,
        source_table: table.name.clone(),
        source_column: column.name.clone(),
        data_type: column.data_type.clone(),
        confidence: None,
        review: false,
    }
}

fn parsed<T: DeserializeOwned>(text: &str) -> Result<T, AnswerError> {
    serde_json::from_str(text).map_err(AnswerError::Form)
}

fn validated(schema: &Value, text: &str) -> Result<Value, AnswerError> {
    let value: Value = parsed(text)?;
    let validator = jsonschema::validator_for(schema).map_err(|e| AnswerError::JobSchema(e.to_string()))?;
    if let Err(error) = validator.validate(&value) {
        return Err(AnswerError::Schema {
            path: error.instance_path().to_string(),
            message: error.to_string(),
        });
    }
    Ok(value)
}

fn count(what: &'static str, expected: usize, found: usize) -> Result<(), AnswerError> {
    if expected == found { Ok(()) } else { Err(AnswerError::Count { what, expected, found }) }
}

fn identifier(at: usize, expected: &str, found: String) -> Result<(), AnswerError> {
    if expected == found {
        return Ok(());
    }
    Err(AnswerError::Identifier { at, expected: expected.into(), found })
}
