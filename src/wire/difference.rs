//! What a job found beside what the job found that it was made from.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain;

/// `GET /v1/jobs/{id}/difference`. Each list has concepts first, then relationships, then attributes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    pub job: Uuid,
    /// The job that this one was made from. It may be gone; what it had found at the submission is kept.
    pub since: Uuid,
    pub counts: DifferenceCounts,
    pub tables: TableChanges,
    pub added: Vec<WholeFact>,
    pub removed: Vec<WholeFact>,
    pub changed: Vec<ChangedFact>,
    /// Facts of the earlier job about parts that this one leaves uncovered, because their items ended without an
    /// answer: whether they still hold is not known.
    pub unanswered: Vec<WholeFact>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DifferenceCounts {
    pub tables_unchanged: usize,
    pub tables_changed: usize,
    pub tables_added: usize,
    pub tables_removed: usize,
    pub facts_unchanged: usize,
    pub facts_changed: usize,
    pub facts_added: usize,
    pub facts_removed: usize,
    pub facts_unanswered: usize,
}

/// Names of tables whose definition is not what it was, in the order of the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TableChanges {
    pub changed: Vec<String>,
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FactKind {
    Concept,
    Relationship,
    Attribute,
}

/// A fact by the identifiers of the source that it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FactKey {
    #[serde(rename = "fact")]
    pub kind: FactKind,
    /// What it is called; of a removed fact, what it was called.
    pub name: String,
    /// All tables of a concept, the one of a relationship or an attribute.
    pub tables: Vec<String>,
    /// Columns in that table; none of a concept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Where a relationship leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_table: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to_columns: Vec<String>,
}

/// A fact that only one of the two jobs has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WholeFact {
    #[serde(flatten)]
    pub key: FactKey,
    /// The fact as the JSON export has it.
    #[schema(value_type = Object)]
    pub value: Value,
}

/// A fact that both have, and differently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChangedFact {
    #[serde(flatten)]
    pub key: FactKey,
    pub fields: Vec<FieldChange>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FieldChange {
    /// As the JSON export calls it.
    pub field: String,
    #[schema(value_type = Value)]
    pub before: Value,
    #[schema(value_type = Value)]
    pub now: Value,
}

impl FactKind {
    pub fn as_str(self) -> &'static str {
        match self {
            FactKind::Concept => "concept",
            FactKind::Relationship => "relationship",
            FactKind::Attribute => "attribute",
        }
    }
}

impl Difference {
    pub fn new(
        job: Uuid,
        since: Uuid,
        tables: domain::difference::TableChanges,
        facts: domain::difference::Difference,
    ) -> Self {
        let domain::difference::Difference { unchanged, added, removed, changed, unanswered } = facts;
        let domain::difference::TableChanges {
            unchanged: tables_unchanged,
            changed: changed_tables,
            added: added_tables,
            removed: removed_tables,
        } = tables;
        Self {
            job,
            since,
            counts: DifferenceCounts {
                tables_unchanged,
                tables_changed: changed_tables.len(),
                tables_added: added_tables.len(),
                tables_removed: removed_tables.len(),
                facts_unchanged: unchanged,
                facts_changed: changed.len(),
                facts_added: added.len(),
                facts_removed: removed.len(),
                facts_unanswered: unanswered.len(),
            },
            tables: TableChanges { changed: changed_tables, added: added_tables, removed: removed_tables },
            added: added.into_iter().map(Into::into).collect(),
            removed: removed.into_iter().map(Into::into).collect(),
            changed: changed.into_iter().map(Into::into).collect(),
            unanswered: unanswered.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<domain::difference::FactKey> for FactKey {
    fn from(key: domain::difference::FactKey) -> Self {
        let domain::difference::FactKey { kind, name, tables, columns, to_table, to_columns } = key;
        let kind = match kind {
            domain::difference::FactKind::Concept => FactKind::Concept,
            domain::difference::FactKind::Relationship => FactKind::Relationship,
            domain::difference::FactKind::Attribute => FactKind::Attribute,
        };
        Self { kind, name, tables, columns, to_table, to_columns }
    }
}

impl From<domain::difference::WholeFact> for WholeFact {
    fn from(fact: domain::difference::WholeFact) -> Self {
        Self { key: fact.key.into(), value: fact.fact }
    }
}

impl From<domain::difference::ChangedFact> for ChangedFact {
    fn from(fact: domain::difference::ChangedFact) -> Self {
        let field = |change: domain::difference::FieldChange| FieldChange {
            field: change.field,
            before: change.before,
            now: change.now,
        };
        Self { key: fact.key.into(), fields: fact.fields.into_iter().map(field).collect() }
    }
}
