//! What an extraction yields: concepts, relationships and attributes, each with the identifiers it rests on.
//!
//! Everything here names real identifiers of the catalog; names and descriptions are the only free text. A fact's
//! `confidence` is the model's, of what it judged (see `extract::confidence`); absent where it judged nothing.

use serde::{Deserialize, Serialize};

use super::code::Code;
use super::confidence::Confidence;

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// What kind of thing a table holds.
    Kind {
        /// Something that exists by itself.
        Entity = "entity",
        /// A link between two or more entities.
        Association = "association",
        /// A small list of values that others refer to.
        Lookup = "lookup",
        /// Something that happened at a time.
        Event = "event",
        /// Of the software, not of its subject.
        Technical = "technical",
    }
}

words! {
    /// What a column's values mean, whatever their storage type.
    Meaning {
        Identifier = "identifier",
        Reference = "reference",
        Name = "name",
        Text = "text",
        Code = "code",
        Category = "category",
        Status = "status",
        Quantity = "quantity",
        Amount = "amount",
        Percentage = "percentage",
        Date = "date",
        Timestamp = "timestamp",
        Boolean = "boolean",
        Email = "email",
        Phone = "phone",
        Url = "url",
        Address = "address",
        Document = "document",
        Binary = "binary",
        Other = "other",
    }
}

words! {
    /// How many of one end belong to how many of the other, read from `from` to `to`.
    Cardinality {
        OneToOne = "one_to_one",
        ManyToOne = "many_to_one",
        /// Only undeclared links between tables of which nothing but the name is known.
        Unknown = "unknown",
    }
}

words! {
    /// What a fact rests on.
    Source {
        /// The identifiers are the catalog's, name and description the model's.
        Model = "model",
        /// The catalog alone: the model's item failed, the name is derived from the identifier.
        Catalog = "catalog",
        /// The model found a link that the schema does not declare.
        Inferred = "inferred",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concept {
    /// Unique within a model, compared without case, plural and punctuation.
    pub name: String,
    pub kind: Kind,
    pub description: String,
    pub source: Source,
    /// In catalog order, at least one.
    pub source_tables: Vec<String>,
    /// Of the table that the model was least sure of.
    #[serde(default)]
    pub confidence: Option<Confidence>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub review: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relationship {
    pub name: String,
    pub description: String,
    /// Names of concepts of the same model.
    pub from: String,
    pub to: String,
    pub cardinality: Cardinality,
    /// Every `from` has a `to`.
    pub required: bool,
    pub source: Source,
    pub from_table: String,
    /// Empty if only tables are known.
    pub from_columns: Vec<String>,
    pub to_table: String,
    pub to_columns: Vec<String>,
    #[serde(default)]
    pub confidence: Option<Confidence>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub review: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// Name of a concept of the same model.
    pub concept: String,
    pub name: String,
    #[serde(rename = "type")]
    pub meaning: Meaning,
    pub description: String,
    /// Part of the table's primary key.
    pub identifier: bool,
    pub required: bool,
    /// Unique by itself.
    pub unique: bool,
    pub source: Source,
    pub source_table: String,
    pub source_column: String,
    /// The source's own type; empty if unknown.
    pub data_type: String,
    #[serde(default)]
    pub confidence: Option<Confidence>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub review: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Facts that somebody should look at: those of a lower confidence than `below`, and those that the model was to
/// name and did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    pub below: Confidence,
    pub concepts: usize,
    pub relationships: usize,
    pub attributes: usize,
}

impl Default for Review {
    fn default() -> Self {
        Self { below: Confidence::DEFAULT_REVIEW_BELOW, concepts: 0, relationships: 0, attributes: 0 }
    }
}

/// A part of the input that the model does not answer, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uncovered {
    pub what: Part,
    pub table: String,
    /// The key's or the column's own columns; empty for a table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    pub reason: Reason,
    /// Code of the item that failed, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
}

words! {
    Part {
        Table = "table",
        Key = "key",
        Column = "column",
    }
}

words! {
    Reason {
        /// The item ended without an answer; `code` says how.
        ItemFailed = "item_failed",
        ItemCancelled = "item_cancelled",
        ItemExpired = "item_expired",
        /// The item has not ended, or its stage has not begun.
        NotYet = "not_yet",
        /// The key points to a table or column that the input does not have.
        UnknownTarget = "unknown_target",
        /// A table at one of its ends has no concept.
        TableUncovered = "table_uncovered",
    }
}

/// Input parts by what became of them: in each group the total is the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    pub tables: usize,
    pub tables_covered: usize,
    pub tables_uncovered: usize,
    pub keys: usize,
    pub keys_covered: usize,
    pub keys_uncovered: usize,
    pub columns: usize,
    pub columns_covered: usize,
    /// Columns of uncovered tables included, which are not listed one by one.
    pub columns_uncovered: usize,
}

impl Coverage {
    pub fn adds_up(&self) -> bool {
        self.tables == self.tables_covered + self.tables_uncovered
            && self.keys == self.keys_covered + self.keys_uncovered
            && self.columns == self.columns_covered + self.columns_uncovered
    }
}

/// The whole result of a schema job: complete, ordered, and the same for the same results.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataModel {
    /// By first source table.
    pub concepts: Vec<Concept>,
    /// Declared ones in catalog order, then inferred ones.
    pub relationships: Vec<Relationship>,
    /// By table, then column, in catalog order.
    pub attributes: Vec<Attribute>,
    pub uncovered: Vec<Uncovered>,
    pub coverage: Coverage,
    #[serde(default)]
    pub review: Review,
}
