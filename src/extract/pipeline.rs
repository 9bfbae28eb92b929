//! Items of a job: the first ones, and those of each stage that follows.
//!
//! Deterministic: the same job and results give the same items in the same order, so that a stage that was
//! advanced twice is advanced to the same place.

use std::collections::HashMap;

use serde_json::Value;

use super::assemble::Concepts;
use super::carry::Answered;
use super::item::{AttributeItem, ChatItem, ConceptItem, CustomItem, Item, Link, RelationshipItem};
use super::{ExtractError, candidate, describe, group};
use crate::domain::catalog::{Catalog, Table};
use crate::domain::item::{ItemDraft, Outcome};
use crate::domain::job::JobSpec;
use crate::domain::task::{Stage, Task};

pub use super::assemble::assemble;

/// Columns of one attribute item; a wider table is split evenly.
pub const MAX_COLUMNS: usize = 10;
/// Keys, and likely links, of one relationship item.
pub const MAX_KEYS: usize = 6;

/// Bytes of an item's own text and of its answer, estimated from above. A token is at least a byte, so that an
/// item fits a context of 8,192 tokens beside the shared head even where a tokenizer knows none of its letters.
pub const MAX_ITEM_BYTES: usize = 6_000;
/// What one entry of an answer has beside its identifier: keys, names, a description.
const ENTRY_BYTES: usize = 350;

/// An item that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    pub draft: ItemDraft,
    pub outcome: Outcome,
}

/// Items of a schema job's first stage. Texts and messages come one by one, see [`input_item`].
pub fn first_items(spec: &JobSpec, catalog: Option<&Catalog>) -> Result<Vec<ItemDraft>, ExtractError> {
    let catalog = super::catalog_of(catalog)?;
    if catalog.tables.is_empty() {
        return Err(ExtractError::NoTables);
    }
    let Some(&first) = spec.task.stages().first().filter(|_| spec.task.reads_catalog()) else {
        return Err(ExtractError::Input { expected: "texts or messages", found: "a schema".into() });
    };
    Ok(items_of(first, catalog, &Concepts::of_table_names(catalog), &Answered::default()))
}

/// Items of a stage of a schema job, of all that is not answered already.
pub(super) fn items_of(
    stage: Stage,
    catalog: &Catalog,
    concepts: &Concepts,
    answered: &Answered,
) -> Vec<ItemDraft> {
    match stage {
        Stage::Concept => concept_items(catalog, answered),
        Stage::Relationship => relationship_items(catalog, concepts, answered),
        Stage::Attribute => attribute_items(catalog, concepts, answered),
        Stage::Custom | Stage::Chat => Vec::new(),
    }
}

/// Items of all stages that a schema job has, were every table a concept of its own: the first stage's are those
/// that the job would have. Stages without items are left out.
pub fn expected_items(
    spec: &JobSpec,
    catalog: &Catalog,
) -> Result<Vec<(Stage, Vec<ItemDraft>)>, ExtractError> {
    first_items(spec, Some(catalog))?;
    let concepts = Concepts::of_table_names(catalog);
    let items = |stage: &Stage| (*stage, items_of(*stage, catalog, &concepts, &Answered::default()));
    Ok(spec.task.stages().iter().map(items).filter(|(_, items)| !items.is_empty()).collect())
}

/// The item of one input of a `custom` or `chat` job: a text, `{"text": …}`, a list of messages, or
/// `{"messages": […], "schema"?, "max_tokens"?}`.
pub fn input_item(spec: &JobSpec, input: Value) -> Result<ItemDraft, ExtractError> {
    let wrong = |expected: &'static str, found: String| ExtractError::Input { expected, found };
    match spec.task {
        Task::Custom => match input {
            Value::String(text) => Ok(Item::Custom(CustomItem { text }).into_draft()),
            other => serde_json::from_value(other)
                .map(|item| Item::Custom(item).into_draft())
                .map_err(|e| wrong("a string or {\"text\": string}", format!("something else ({e})"))),
        },
        Task::Chat => {
            let input = if input.is_array() { serde_json::json!({"messages": input}) } else { input };
            let item: ChatItem = serde_json::from_value(input).map_err(|e| {
                wrong("{\"messages\": [{\"role\", \"content\"}]}", format!("something else ({e})"))
            })?;
            if item.messages.is_empty() {
                return Err(wrong("at least one message", "none".into()));
            }
            Ok(Item::Chat(item).into_draft())
        }
        _ => Err(wrong("a database schema", "a single input".into())),
    }
}

/// Items of the stage after `finished`; `results` are all items of the job that have ended, of every stage.
/// Empty if the task has no further stage or the stage has nothing to ask (a schema without keys has no
/// relationship items): see [`next_stage`], which skips such a stage.
pub fn next_items(
    spec: &JobSpec,
    catalog: &Catalog,
    finished: Stage,
    results: &[Finished],
) -> Result<Vec<ItemDraft>, ExtractError> {
    let Some(next) = spec.task.stage_after(finished) else { return Ok(Vec::new()) };
    let concepts = Concepts::of_results(catalog, results)?;
    if concepts.is_empty() {
        let items = results.iter().filter(|r| r.draft.stage == Stage::Concept).count();
        return Err(ExtractError::NoConcepts { items });
    }
    Ok(items_of(next, catalog, &concepts, &Answered::default()))
}

/// The next stage that has items, with its items; `None` when the job is complete.
pub fn next_stage(
    spec: &JobSpec,
    catalog: &Catalog,
    finished: Stage,
    results: &[Finished],
) -> Result<Option<(Stage, Vec<ItemDraft>)>, ExtractError> {
    let mut stage = finished;
    while let Some(next) = spec.task.stage_after(stage) {
        let items = next_items(spec, catalog, stage, results)?;
        if !items.is_empty() {
            return Ok(Some((next, items)));
        }
        stage = next;
    }
    Ok(None)
}

fn concept_items(catalog: &Catalog, answered: &Answered) -> Vec<ItemDraft> {
    let asked: Vec<usize> = (0..catalog.tables.len()).filter(|at| !answered.tables.contains(at)).collect();
    let place: HashMap<usize, usize> = asked.iter().enumerate().map(|(place, at)| (*at, place)).collect();
    let bytes: Vec<usize> = asked
        .iter()
        .map(|at| &catalog.tables[*at])
        .map(|t| describe::table(t).len() + json_bytes(&t.name))
        .collect();
    let mut edges: Vec<(usize, usize)> =
        catalog.keys().iter().filter_map(|k| k.target.as_ref().map(|(to, _)| (k.table, *to))).collect();
    edges.extend(candidate::links(catalog).iter().flatten().map(|link| (link.from.0, link.to.0)));
    let edges: Vec<(usize, usize)> =
        edges.iter().filter_map(|(from, to)| Some((*place.get(from)?, *place.get(to)?))).collect();
    let item =
        |group: Vec<usize>| ConceptItem { tables: group.into_iter().map(|place| asked[place]).collect() };
    group::groups(&bytes, &edges).into_iter().map(|group| Item::Concept(item(group)).into_draft()).collect()
}

/// Keys and links of a table stay together as far as the bounds allow; those of small neighbours are joined.
fn relationship_items(catalog: &Catalog, concepts: &Concepts, answered: &Answered) -> Vec<ItemDraft> {
    let known = |at: usize| concepts.of_table(at).is_some();
    let mut keys: Vec<Vec<((usize, usize), usize)>> = vec![Vec::new(); catalog.tables.len()];
    for key in catalog.keys() {
        if let Some((to, _)) = key.target
            && known(key.table)
            && known(to)
            && !answered.keys.contains(&(key.table, key.index))
        {
            keys[key.table].push(((key.table, key.index), to));
        }
    }
    let mut items = Vec::new();
    let mut bundle = Bundle::default();
    for (at, mut links) in candidate::links(catalog).into_iter().enumerate() {
        links.retain(|link| known(link.from.0) && known(link.to.0) && !answered.links.contains(link));
        let fits =
            bundle.keys.len() + keys[at].len() <= MAX_KEYS && bundle.links.len() + links.len() <= MAX_KEYS;
        if !fits {
            items.extend(bundle.take(concepts));
        }
        for (key, to) in keys[at].drain(..) {
            let bytes = 2 * json_bytes(&RelationshipItem::key_text(catalog, key)) + ENTRY_BYTES;
            if bundle.keys.len() == MAX_KEYS || bundle.bytes + bytes > MAX_ITEM_BYTES {
                items.extend(bundle.take(concepts));
            }
            bundle.bytes += bytes;
            bundle.keys.push(key);
            bundle.tables.extend([key.0, to]);
        }
        for link in links {
            let bytes = 2 * json_bytes(&link.text(catalog)) + ENTRY_BYTES / 2;
            if bundle.links.len() == MAX_KEYS || bundle.bytes + bytes > MAX_ITEM_BYTES {
                items.extend(bundle.take(concepts));
            }
            bundle.bytes += bytes;
            bundle.tables.extend([link.from.0, link.to.0]);
            bundle.links.push(link);
        }
    }
    items.extend(bundle.take(concepts));
    items
}

#[derive(Default)]
struct Bundle {
    keys: Vec<(usize, usize)>,
    links: Vec<Link>,
    tables: Vec<usize>,
    bytes: usize,
}

impl Bundle {
    fn take(&mut self, concepts: &Concepts) -> Option<ItemDraft> {
        if self.keys.is_empty() && self.links.is_empty() {
            return None;
        }
        self.bytes = 0;
        let mut tables = std::mem::take(&mut self.tables);
        tables.sort_unstable();
        tables.dedup();
        let item = RelationshipItem {
            keys: std::mem::take(&mut self.keys),
            links: std::mem::take(&mut self.links),
            concepts: tables
                .into_iter()
                .filter_map(|at| concepts.of_table(at).map(|name| (at, name.to_string())))
                .collect(),
        };
        Some(Item::Relationship(item).into_draft())
    }
}

fn attribute_items(catalog: &Catalog, concepts: &Concepts, answered: &Answered) -> Vec<ItemDraft> {
    let mut items = Vec::new();
    for (at, table) in catalog.tables.iter().enumerate() {
        let Some(concept) = concepts.of_table(at) else { continue };
        for (lo, hi) in unanswered(at, table.columns.len(), answered) {
            let parts = (hi - lo).div_ceil(MAX_COLUMNS);
            for part in 0..parts {
                let (from, to) = (lo + (hi - lo) * part / parts, lo + (hi - lo) * (part + 1) / parts);
                for (from, to) in ranges(table, from, to) {
                    let item = AttributeItem { table: at, from, to, concept: concept.to_string() };
                    items.push(Item::Attribute(item).into_draft());
                }
            }
        }
    }
    items
}

/// Ranges of a table's columns that nobody has answered.
fn unanswered(table: usize, columns: usize, answered: &Answered) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for column in (0..columns).filter(|column| !answered.columns.contains(&(table, *column))) {
        match runs.last_mut() {
            Some((_, end)) if *end == column => *end += 1,
            _ => runs.push((column, column + 1)),
        }
    }
    runs
}

/// The range, halved until each part is within [`MAX_ITEM_BYTES`] or a single column.
fn ranges(table: &Table, from: usize, to: usize) -> Vec<(usize, usize)> {
    let answer: usize = table.columns[from..to].iter().map(|c| ENTRY_BYTES + json_bytes(&c.name)).sum();
    if to - from <= 1 || answer + describe::columns(table, from, to).len() <= MAX_ITEM_BYTES {
        return vec![(from, to)];
    }
    let middle = from + (to - from) / 2;
    let mut parts = ranges(table, from, middle);
    parts.extend(ranges(table, middle, to));
    parts
}

/// Bytes of a name as an answer holds it.
fn json_bytes(name: &str) -> usize {
    Value::from(name).to_string().len()
}
