//! What an item's input holds, by stage: small, and by reference to the job's catalog.
//!
//! The store keeps it as JSON; here it is read back and checked against the catalog before anything uses it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ExtractError, describe};
use crate::domain::catalog::{Catalog, Column, ForeignKey, Table};
use crate::domain::chat::{ChatRequest, Refusal};
use crate::domain::item::ItemDraft;
use crate::domain::message::Message;
use crate::domain::task::Stage;

/// Tables, by position in the catalog, each of which gets one entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConceptItem {
    pub tables: Vec<usize>,
}

/// Declared keys, each of which gets one entry, and undeclared links of which the model may confirm some.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelationshipItem {
    /// Table and place among its foreign keys.
    pub keys: Vec<(usize, usize)>,
    #[serde(default)]
    pub links: Vec<Link>,
    /// Concept of every table that a key or link touches.
    pub concepts: Vec<(usize, String)>,
}

/// A link that names suggest and the schema does not declare.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Table and column, by position; no column where only the table's name is known.
    pub from: (usize, Option<usize>),
    pub to: (usize, Option<usize>),
}

/// A range `from..to` of a table's columns, each of which gets one entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttributeItem {
    pub table: usize,
    pub from: usize,
    pub to: usize,
    pub concept: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomItem {
    pub text: String,
}

/// Messages, with what may differ from item to item of one batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatItem {
    pub messages: Vec<Message>,
    /// Goes before the job's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
}

/// One line of a batch's file: what it asks, in every respect its own, or why it asks nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineItem {
    /// In its file, from 1.
    pub line: u64,
    /// The client's own name for it; absent if it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_id: Option<String>,
    pub ask: Ask,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    Request(Box<ChatRequest>),
    /// It cannot be run: it failed when its file was read, and fails again without a look at the model if its
    /// job's failed items are retried.
    Refused(Refusal),
}

impl LineItem {
    /// Whether an item is a line, without reading it whole.
    pub fn is_line(draft: &ItemDraft) -> bool {
        draft.stage == Stage::Chat && draft.input.get("ask").is_some()
    }

    /// Whether its answer may end at a text of the client's.
    pub fn has_stops(draft: &ItemDraft) -> bool {
        draft.input["ask"]["request"]["stop"].as_array().is_some_and(|stops| !stops.is_empty())
    }
}

/// An item by its stage, checked against the catalog.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Concept(ConceptItem),
    Relationship(RelationshipItem),
    Attribute(AttributeItem),
    Custom(CustomItem),
    Chat(ChatItem),
    /// Of a chat job that was made of a file.
    Line(LineItem),
}

impl Item {
    pub fn stage(&self) -> Stage {
        match self {
            Item::Concept(_) => Stage::Concept,
            Item::Relationship(_) => Stage::Relationship,
            Item::Attribute(_) => Stage::Attribute,
            Item::Custom(_) => Stage::Custom,
            Item::Chat(_) | Item::Line(_) => Stage::Chat,
        }
    }

    pub fn into_draft(self) -> ItemDraft {
        let stage = self.stage();
        let input = match self {
            Item::Concept(item) => serde_json::to_value(item),
            Item::Relationship(item) => serde_json::to_value(item),
            Item::Attribute(item) => serde_json::to_value(item),
            Item::Custom(item) => serde_json::to_value(item),
            Item::Chat(item) => serde_json::to_value(item),
            Item::Line(item) => serde_json::to_value(item),
        };
        ItemDraft { stage, input: input.expect("items have string keys only") }
    }

    /// Reads a stored item. Every position in it is within `catalog` afterwards.
    pub fn read(draft: &ItemDraft, catalog: Option<&Catalog>) -> Result<Self, ExtractError> {
        let item = match draft.stage {
            Stage::Concept => Item::Concept(input(draft)?),
            Stage::Relationship => Item::Relationship(input(draft)?),
            Stage::Attribute => Item::Attribute(input(draft)?),
            Stage::Custom => return Ok(Item::Custom(input(draft)?)),
            Stage::Chat if LineItem::is_line(draft) => return Ok(Item::Line(input(draft)?)),
            Stage::Chat => return Ok(Item::Chat(input(draft)?)),
        };
        let catalog = super::catalog_of(catalog)?;
        if item.fits(catalog) {
            return Ok(item);
        }
        let detail = "it names a table or column that the job's schema does not have".into();
        Err(ExtractError::Item { stage: draft.stage, detail })
    }

    fn fits(&self, catalog: &Catalog) -> bool {
        let table = |at: usize| catalog.tables.get(at);
        match self {
            Item::Concept(item) => item.tables.iter().all(|at| table(*at).is_some()),
            Item::Attribute(item) => {
                item.from <= item.to && table(item.table).is_some_and(|t| item.to <= t.columns.len())
            }
            Item::Relationship(item) => {
                let end = |end: &(usize, Option<usize>)| {
                    item.concept(end.0).is_some()
                        && table(end.0).is_some_and(|t| end.1.is_none_or(|c| c < t.columns.len()))
                };
                let key = |(at, key): &(usize, usize)| {
                    table(*at).and_then(|t| t.foreign_keys.get(*key)).is_some_and(|key| {
                        let target = catalog.resolve(key).map(|(to, _)| to);
                        item.concept(*at).is_some() && target.is_some_and(|to| item.concept(to).is_some())
                    })
                };
                item.keys.iter().all(key) && item.links.iter().all(|l| end(&l.from) && end(&l.to))
            }
            Item::Custom(_) | Item::Chat(_) | Item::Line(_) => true,
        }
    }
}

fn input<T: DeserializeOwned>(draft: &ItemDraft) -> Result<T, ExtractError> {
    T::deserialize(&draft.input).map_err(|e| ExtractError::Item { stage: draft.stage, detail: e.to_string() })
}

impl RelationshipItem {
    pub fn concept(&self, table: usize) -> Option<&str> {
        self.concepts.iter().find(|(at, _)| *at == table).map(|(_, name)| name.as_str())
    }

    /// How a declared key is written in prompt and answer: `orders.customer_id -> customers.id`.
    pub fn key_text(catalog: &Catalog, (table, key): (usize, usize)) -> String {
        let owner: &Table = &catalog.tables[table];
        let key: &ForeignKey = &owner.foreign_keys[key];
        let to = catalog.resolve(key).map(|(_, columns)| columns).unwrap_or_default();
        format!("{} -> {}", end_text(&owner.name, &key.columns), end_text(&key.ref_table, &to))
    }
}

impl Link {
    /// How the link is written in prompt and answer.
    pub fn text(&self, catalog: &Catalog) -> String {
        format!("{} -> {}", Self::end(catalog, self.from), Self::end(catalog, self.to))
    }

    fn end(catalog: &Catalog, (table, column): (usize, Option<usize>)) -> String {
        let table = &catalog.tables[table];
        let column: Vec<String> = column
            .and_then(|at| table.columns.get(at))
            .map(|c: &Column| c.name.clone())
            .into_iter()
            .collect();
        end_text(&table.name, &column)
    }

    /// The names of an end's columns: one, or none.
    pub fn columns(catalog: &Catalog, (table, column): (usize, Option<usize>)) -> Vec<String> {
        column.map(|at| catalog.tables[table].columns[at].name.clone()).into_iter().collect()
    }
}

/// Names and columns of an end that its text shows; the facts made of the answer hold them all.
const LABEL_BYTES: usize = 96;
const LABEL_COLUMNS: usize = 4;

fn end_text(table: &str, columns: &[String]) -> String {
    let label = |name: &str| describe::cut(name, LABEL_BYTES);
    match columns {
        [] => label(table),
        [one] => format!("{}.{}", label(table), label(one)),
        many => {
            let mut shown: Vec<String> = many.iter().take(LABEL_COLUMNS).map(|name| label(name)).collect();
            if many.len() > LABEL_COLUMNS {
                shown.push("…".into());
            }
            format!("{}({})", label(table), shown.join(", "))
        }
    }
}
