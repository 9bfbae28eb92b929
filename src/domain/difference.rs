//! What a job found beside what an earlier one had found.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Tables of a catalog beside those of an earlier one, compared by fingerprint. Names in catalog order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableChanges {
    pub unchanged: usize,
    pub changed: Vec<String>,
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

/// What a fact is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactKind {
    Concept,
    Relationship,
    Attribute,
}

/// A fact by the identifiers that it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactKey {
    pub kind: FactKind,
    /// As it is called now; of a removed one, as it was called.
    pub name: String,
    /// Source tables of a concept, the one table of the others.
    pub tables: Vec<String>,
    /// Columns in that table; none of a concept, or where only tables are known.
    pub columns: Vec<String>,
    /// Where a relationship leads.
    pub to_table: Option<String>,
    pub to_columns: Vec<String>,
}

/// One field of a fact, by the name that exports give it.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldChange {
    pub field: String,
    pub before: Value,
    pub now: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub struct WholeFact {
    pub key: FactKey,
    /// As the JSON export has it.
    pub fact: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ChangedFact {
    pub key: FactKey,
    /// At least one, in the export's order.
    pub fields: Vec<FieldChange>,
}

/// Facts by what became of them. In each list concepts come first, then relationships, then attributes, in the
/// order of their model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    pub unchanged: usize,
    pub added: Vec<WholeFact>,
    pub removed: Vec<WholeFact>,
    pub changed: Vec<ChangedFact>,
    /// Facts of the earlier job about parts that the later one leaves uncovered: whether they still hold is not
    /// known.
    pub unanswered: Vec<WholeFact>,
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
