//! From an item to messages: what a job's items share first and byte for byte the same, the item's own last.
//!
//! The shared head is the system message; the engine keeps it as one cached prefix for the whole job. The
//! item's own text is untrusted (names and comments of someone's database) and stands in the user message.

use std::fmt::Write;
use std::sync::OnceLock;

use minijinja::{AutoEscape, Environment, context};
use serde_json::Value;

use super::answer::of_key;
use super::item::{Ask, AttributeItem, ConceptItem, Item, RelationshipItem};
use super::{ExtractError, describe, schema};
use crate::domain::catalog::Catalog;
use crate::domain::chat::ChatRequest;
use crate::domain::fact::Cardinality;
use crate::domain::item::ItemDraft;
use crate::domain::job::{Generation, JobSpec};
use crate::domain::message::{Message, Role};
use crate::domain::task::Stage;

/// What the engine is asked for one item.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    pub messages: Vec<Message>,
    /// `None`: the answer is free text.
    pub schema: Option<Value>,
    /// Enough for any answer of a schema task: a bound on its bytes, hence on its tokens.
    pub max_tokens: u32,
    /// Bytes at which a free string is closed, kept by the engine outside the grammar.
    pub string_limit_bytes: Option<u32>,
    /// How tokens are chosen; its bounds are in the fields above.
    pub generation: Generation,
    /// The seed is this prompt's own: it is not varied from item to item.
    pub has_own_seed: bool,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Alternatives to name beside each token.
    pub logprobs: Option<u8>,
    /// How sure the model is of what it chooses is wanted with the answer.
    pub confidence: bool,
}

/// Answer tokens where neither job, item nor schema bounds them.
const DEFAULT_MAX_TOKENS: u32 = 1_024;

pub fn prompt(spec: &JobSpec, catalog: Option<&Catalog>, draft: &ItemDraft) -> Result<Prompt, ExtractError> {
    let item = Item::read(draft, catalog)?;
    let schema = schema::answer_schema(spec, catalog, draft)?;
    let catalog = || super::catalog_of(catalog);
    let default_limit = string_limit(draft.stage, schema.is_some());
    let string_limit_bytes = default_limit.map(|limit| spec.generation.max_string_bytes.unwrap_or(limit));
    let mut max_tokens = spec.generation.max_tokens;
    let messages = match item {
        Item::Concept(item) => with_head(spec, draft.stage, concept_text(catalog()?, &item))?,
        Item::Relationship(item) => with_head(spec, draft.stage, relationship_text(catalog()?, &item)?)?,
        Item::Attribute(item) => with_head(spec, draft.stage, attribute_text(catalog()?, &item))?,
        Item::Custom(item) => with_head(spec, draft.stage, item.text)?,
        Item::Chat(item) => {
            max_tokens = item.max_tokens.or(max_tokens);
            item.messages
        }
        Item::Line(line) => {
            return match line.ask {
                Ask::Request(request) => Ok(of_chat(*request)),
                Ask::Refused(refusal) => Err(ExtractError::Refused(Box::new(refusal))),
            };
        }
    };
    let bound = schema
        .as_ref()
        .and_then(|s| schema::max_answer_bytes(s, string_limit_bytes.unwrap_or(0) as usize))
        .and_then(|bytes| u32::try_from(bytes).ok());
    // one more for the token that ends the answer
    let bounded = bound.map_or(DEFAULT_MAX_TOKENS, |bytes| bytes.saturating_add(1));
    let default = match draft.stage {
        Stage::Custom | Stage::Chat => bounded.min(DEFAULT_MAX_TOKENS),
        _ => bounded,
    };
    let max_tokens = max_tokens.unwrap_or(default);
    Ok(Prompt {
        confidence: schema.is_some() && draft.stage != Stage::Chat,
        messages,
        schema,
        max_tokens,
        string_limit_bytes,
        generation: spec.generation.clone(),
        has_own_seed: false,
        stop: Vec::new(),
        logprobs: None,
    })
}

/// A chat completion brings everything with it. Its strings are as long as the client lets the answer be.
pub fn of_chat(request: ChatRequest) -> Prompt {
    let ChatRequest { model: _, messages, format, generation, stop, logprobs } = request;
    Prompt {
        messages,
        schema: format.schema(),
        max_tokens: generation.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
        string_limit_bytes: None,
        has_own_seed: generation.seed.is_some(),
        generation,
        stop,
        logprobs,
        confidence: false,
    }
}

fn string_limit(stage: Stage, has_schema: bool) -> Option<u32> {
    match stage {
        Stage::Concept => Some(160),
        Stage::Relationship => Some(120),
        Stage::Attribute => Some(96),
        Stage::Custom | Stage::Chat => has_schema.then_some(1_000),
    }
}

/// The shared head of a job's stage: the same bytes for each of its items.
pub fn head(spec: &JobSpec, stage: Stage) -> Result<String, ExtractError> {
    let schema = spec.schema.as_ref().map(Value::to_string);
    let instructions = spec.instructions.as_deref().map(str::trim).filter(|text| !text.is_empty());
    environment()
        .get_template(stage.as_str())
        .and_then(|template| template.render(context! { instructions, schema }))
        .map_err(|source| ExtractError::Template { stage, source })
}

fn with_head(spec: &JobSpec, stage: Stage, own: String) -> Result<Vec<Message>, ExtractError> {
    let head = head(spec, stage)?;
    Ok(vec![Message { role: Role::System, content: head }, Message { role: Role::User, content: own }])
}

fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut env = Environment::new();
        env.set_auto_escape_callback(|_| AutoEscape::None);
        for (name, text) in [
            ("concept", include_str!("concept.jinja")),
            ("relationship", include_str!("relationship.jinja")),
            ("attribute", include_str!("attribute.jinja")),
            ("custom", include_str!("custom.jinja")),
        ] {
            env.add_template(name, text).expect("the built-in templates are correct");
        }
        env
    })
}

fn concept_text(catalog: &Catalog, item: &ConceptItem) -> String {
    let mut text = String::new();
    for at in &item.tables {
        let table = &catalog.tables[*at];
        text.push_str(&describe::table(table));
    }
    text.push_str("Answer:");
    text
}

fn relationship_text(catalog: &Catalog, item: &RelationshipItem) -> Result<String, ExtractError> {
    let mut text = String::from("Keys:\n");
    for key in &item.keys {
        let fact = of_key(catalog, item, *key)?;
        let cardinality = match fact.cardinality {
            Cardinality::OneToOne => "one to one",
            Cardinality::ManyToOne => "many to one",
            Cardinality::Unknown => "unknown",
        };
        let key = one_line(&RelationshipItem::key_text(catalog, *key));
        let (from, to) = (describe::shown(&fact.from), describe::shown(&fact.to));
        let _ = writeln!(text, "- {key} ({from} to {to}, {cardinality})");
    }
    if item.keys.is_empty() {
        text.push_str("none\n");
    }
    if !item.links.is_empty() {
        text.push_str("Possible links:\n");
        for link in &item.links {
            let ends =
                [link.from.0, link.to.0].map(|at| describe::shown(item.concept(at).unwrap_or_default()));
            let _ = writeln!(text, "- {} ({} to {})", one_line(&link.text(catalog)), ends[0], ends[1]);
        }
    }
    text.push_str("Answer:");
    Ok(text)
}

fn attribute_text(catalog: &Catalog, item: &AttributeItem) -> String {
    let columns = describe::columns(&catalog.tables[item.table], item.from, item.to);
    format!("concept {}\n{columns}Answer:", describe::shown(&item.concept))
}

/// A text that is short already, without what would break its line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
