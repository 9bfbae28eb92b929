//! Sources → catalog → items → prompts → answers → facts. Pure code over values.
//!
//! A [`source`] is read into a [`Catalog`]; [`pipeline`] cuts it into items; [`prompt`] turns an item into
//! messages and a [`schema`] for the grammar; [`answer`] checks what came back and merges it with what the
//! catalog knows and with how sure the model was ([`confidence`]); [`assemble`] makes the whole model of all
//! results.
//!
//! Never knows: models, tokens, queues, databases, files. Invariants:
//! - Every table, key and column that a task asks for is in exactly one item, and an answer has one entry for
//!   each of its item's objects, in order; a checked result names only identifiers of its item.
//! - Names come from the model, identifiers, types, keys and cardinalities from the catalog.
//! - The system message is the same for all items of a job and stage; an item's own text comes after it.
//! - Same input, same bytes: nothing depends on hash order, time or chance.

pub mod answer;
pub mod assemble;
mod candidate;
pub mod confidence;
mod describe;
mod group;
mod guess;
pub mod item;
pub mod name;
pub mod pipeline;
pub mod prompt;
pub mod schema;
pub mod source;

use crate::domain::catalog::Catalog;
use crate::domain::chat::Refusal;
use crate::domain::code::Code;
use crate::domain::task::Stage;

/// Why items or a prompt cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    #[error("the task reads a database schema, and the job has none")]
    NoCatalog,
    #[error("the schema has no tables")]
    NoTables,
    #[error("the task takes {expected}, not {found}")]
    Input { expected: &'static str, found: String },
    #[error("the input of a {stage} item cannot be read: {detail}")]
    Item { stage: Stage, detail: String },
    #[error("no table got a concept: all {items} items of the concept stage ended without a result")]
    NoConcepts { items: usize },
    #[error("the result of a {stage} item cannot be read: {detail}")]
    Result { stage: Stage, detail: String },
    /// A line that was refused when its file was read.
    #[error("{}", .0.message)]
    Refused(Box<Refusal>),
    #[error("the prompt of a {stage} item cannot be rendered")]
    Template {
        stage: Stage,
        #[source]
        source: minijinja::Error,
    },
}

impl ExtractError {
    pub fn code(&self) -> Code {
        match self {
            ExtractError::NoCatalog | ExtractError::NoTables | ExtractError::Input { .. } => {
                Code::InvalidInput
            }
            ExtractError::Refused(refusal) => refusal.code,
            ExtractError::NoConcepts { .. } | ExtractError::Result { .. } => Code::StageFailed,
            ExtractError::Item { .. } | ExtractError::Template { .. } => Code::Internal,
        }
    }
}

fn catalog_of(catalog: Option<&Catalog>) -> Result<&Catalog, ExtractError> {
    catalog.ok_or(ExtractError::NoCatalog)
}
