//! The whole data model of a job's results, with a reason for every part that is not in it.
//!
//! A table whose concept item failed is listed as uncovered: a concept is the model's judgement, and none is
//! made up for it. A key or column whose item failed is still a fact of the schema; it stays in the model
//! under a derived name, marked `"source": "catalog"`. While items run, their parts are uncovered (`not_yet`).

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::ExtractError;
use super::answer::{of_column, of_key};
use super::item::{Item, RelationshipItem};
use super::name;
use super::pipeline::Finished;
use crate::domain::catalog::{Catalog, Key};
use crate::domain::code::Code;
use crate::domain::confidence::Confidence;
use crate::domain::fact::{
    Attribute, Concept, Coverage, DataModel, Kind, Part, Reason, Relationship, Review, Source, Uncovered,
};
use crate::domain::item::Outcome;
use crate::domain::job::JobSpec;
use crate::domain::task::{Stage, Task};

/// Concepts by table: what the model named, with tables of one concept merged.
pub struct Concepts {
    list: Vec<Concept>,
    by_table: Vec<Option<usize>>,
}

#[derive(Deserialize)]
struct ConceptResult {
    concepts: Vec<ConceptEntry>,
}

#[derive(Deserialize)]
struct ConceptEntry {
    table: String,
    kind: Kind,
    concept: String,
    description: String,
    #[serde(default)]
    confidence: Option<Confidence>,
}

#[derive(Deserialize)]
struct RelationshipResult {
    relationships: Vec<Relationship>,
}

#[derive(Deserialize)]
struct AttributeResult {
    attributes: Vec<Attribute>,
}

impl Concepts {
    /// Of a job without a concept stage: every table is its own concept under its own name.
    pub fn of_table_names(catalog: &Catalog) -> Self {
        let list = catalog.tables.iter().map(|table| Concept {
            name: table.name.clone(),
            kind: Kind::Entity,
            description: name::tidy(table.comment.as_deref().unwrap_or(""), name::MAX_DESCRIPTION_BYTES),
            source: Source::Catalog,
            source_tables: vec![table.name.clone()],
            confidence: None,
            review: false,
        });
        Self { list: list.collect(), by_table: (0..catalog.tables.len()).map(Some).collect() }
    }

    /// Of the concept stage's results. Tables whose concepts have one name, apart from case, plural and
    /// punctuation, are one concept; the first table in catalog order gives name, kind and description.
    pub fn of_results(catalog: &Catalog, results: &[Finished]) -> Result<Self, ExtractError> {
        let mut entries: BTreeMap<usize, ConceptEntry> = BTreeMap::new();
        for (item, result) in succeeded(catalog, results, Stage::Concept) {
            let Item::Concept(item) = item? else { continue };
            let answer: ConceptResult = read(Stage::Concept, result)?;
            for (at, entry) in item.tables.into_iter().zip(answer.concepts) {
                if catalog.tables[at].name == entry.table {
                    entries.insert(at, entry);
                }
            }
        }
        let mut concepts = Self { list: Vec::new(), by_table: vec![None; catalog.tables.len()] };
        let mut by_key: HashMap<String, usize> = HashMap::new();
        for (at, entry) in entries {
            let next = concepts.list.len();
            let place = *by_key.entry(name::concept_key(&entry.concept)).or_insert(next);
            if place != next {
                let known = &mut concepts.list[place].confidence;
                *known = known.zip(entry.confidence).map(|(known, other)| known.min(other));
            } else {
                concepts.list.push(Concept {
                    name: entry.concept,
                    kind: entry.kind,
                    description: entry.description,
                    source: Source::Model,
                    source_tables: Vec::new(),
                    confidence: entry.confidence,
                    review: false,
                });
            }
            concepts.list[place].source_tables.push(entry.table);
            concepts.by_table[at] = Some(place);
        }
        Ok(concepts)
    }

    pub fn of_table(&self, table: usize) -> Option<&str> {
        let place = self.by_table.get(table).copied().flatten()?;
        Some(&self.list[place].name)
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// The model of all items that have ended. Complete in the sense that every table, key and column that the
/// task asks for is in it or listed in `uncovered`.
pub fn assemble(spec: &JobSpec, catalog: &Catalog, results: &[Finished]) -> Result<DataModel, ExtractError> {
    let stages = spec.task.stages();
    let concepts = match spec.task {
        Task::Concept | Task::DataModel => Concepts::of_results(catalog, results)?,
        _ => Concepts::of_table_names(catalog),
    };
    let mut model = DataModel::default();
    let ended = Ended::of(catalog, results)?;
    uncovered_tables(&mut model, catalog, &concepts, &ended);
    if stages.contains(&Stage::Relationship) {
        add_relationships(&mut model, catalog, &concepts, &ended, results)?;
    }
    if stages.contains(&Stage::Attribute) {
        add_attributes(&mut model, catalog, &concepts, &ended, results)?;
    }
    model.concepts = concepts.list;
    mark_for_review(&mut model, spec.review_below());
    Ok(model)
}

/// Marks and counts what somebody should look at. A concept under its table's own name is nobody's judgement; a
/// key or column under a derived name was to be judged and was not.
fn mark_for_review(model: &mut DataModel, below: Confidence) {
    let is_doubtful = |confidence: Option<Confidence>| confidence.is_none_or(|known| known < below);
    let mut review = Review { below, ..Review::default() };
    for concept in &mut model.concepts {
        concept.review = concept.source != Source::Catalog && is_doubtful(concept.confidence);
        review.concepts += usize::from(concept.review);
    }
    for relationship in &mut model.relationships {
        relationship.review = is_doubtful(relationship.confidence);
        review.relationships += usize::from(relationship.review);
    }
    for attribute in &mut model.attributes {
        attribute.review = is_doubtful(attribute.confidence);
        review.attributes += usize::from(attribute.review);
    }
    model.review = review;
}

/// How items without a result ended, by the parts they were about.
#[derive(Default)]
struct Ended {
    tables: HashMap<usize, (Reason, Option<Code>)>,
    keys: HashMap<(usize, usize), (Reason, Option<Code>)>,
    columns: HashMap<(usize, usize), (Reason, Option<Code>)>,
}

impl Ended {
    fn of(catalog: &Catalog, results: &[Finished]) -> Result<Self, ExtractError> {
        let mut ended = Ended::default();
        for result in results {
            let why = match &result.outcome {
                Outcome::Succeeded { .. } => continue,
                Outcome::Failed { code, .. } => (Reason::ItemFailed, Some(*code)),
                Outcome::Cancelled => (Reason::ItemCancelled, None),
                Outcome::Expired => (Reason::ItemExpired, None),
            };
            match Item::read(&result.draft, Some(catalog))? {
                Item::Concept(item) => ended.tables.extend(item.tables.into_iter().map(|at| (at, why))),
                Item::Relationship(item) => ended.keys.extend(item.keys.into_iter().map(|key| (key, why))),
                Item::Attribute(item) => {
                    ended.columns.extend((item.from..item.to).map(|c| ((item.table, c), why)));
                }
                Item::Custom(_) | Item::Chat(_) | Item::Line(_) => {}
            }
        }
        Ok(ended)
    }
}

fn uncovered_tables(model: &mut DataModel, catalog: &Catalog, concepts: &Concepts, ended: &Ended) {
    model.coverage.tables = catalog.tables.len();
    for (at, table) in catalog.tables.iter().enumerate() {
        if concepts.of_table(at).is_some() {
            model.coverage.tables_covered += 1;
            continue;
        }
        let (reason, code) = ended.tables.get(&at).copied().unwrap_or((Reason::NotYet, None));
        model.coverage.tables_uncovered += 1;
        let table = table.name.clone();
        model.uncovered.push(Uncovered { what: Part::Table, table, columns: Vec::new(), reason, code });
    }
}

fn add_relationships(
    model: &mut DataModel,
    catalog: &Catalog,
    concepts: &Concepts,
    ended: &Ended,
    results: &[Finished],
) -> Result<(), ExtractError> {
    let mut declared: HashMap<(usize, usize), Relationship> = HashMap::new();
    let mut inferred: Vec<Relationship> = Vec::new();
    for (item, result) in succeeded(catalog, results, Stage::Relationship) {
        let Item::Relationship(item) = item? else { continue };
        let answer: RelationshipResult = read(Stage::Relationship, result)?;
        let mut list = answer.relationships.into_iter();
        declared.extend(item.keys.iter().copied().zip(list.by_ref().take(item.keys.len())));
        inferred.extend(list);
    }
    for key in catalog.keys() {
        model.coverage.keys += 1;
        match key_fact(catalog, concepts, ended, &mut declared, &key)? {
            Ok(fact) => {
                model.coverage.keys_covered += 1;
                model.relationships.push(fact);
            }
            Err((reason, code)) => {
                model.coverage.keys_uncovered += 1;
                let owner = &catalog.tables[key.table];
                model.uncovered.push(Uncovered {
                    what: Part::Key,
                    table: owner.name.clone(),
                    columns: owner.foreign_keys[key.index].columns.clone(),
                    reason,
                    code,
                });
            }
        }
    }
    model.relationships.extend(inferred);
    Ok(())
}

type Why = (Reason, Option<Code>);

fn key_fact(
    catalog: &Catalog,
    concepts: &Concepts,
    ended: &Ended,
    declared: &mut HashMap<(usize, usize), Relationship>,
    key: &Key,
) -> Result<Result<Relationship, Why>, ExtractError> {
    let place = (key.table, key.index);
    if let Some(fact) = declared.remove(&place) {
        return Ok(Ok(fact));
    }
    let Some((to, _)) = &key.target else { return Ok(Err((Reason::UnknownTarget, None))) };
    let (Some(from_concept), Some(to_concept)) = (concepts.of_table(key.table), concepts.of_table(*to))
    else {
        return Ok(Err((Reason::TableUncovered, None)));
    };
    if !ended.keys.contains_key(&place) {
        return Ok(Err((Reason::NotYet, None)));
    }
    let ends = vec![(key.table, from_concept.to_string()), (*to, to_concept.to_string())];
    let item = RelationshipItem { keys: vec![place], links: Vec::new(), concepts: ends };
    let mut fact = of_key(catalog, &item, place)?;
    fact.source = Source::Catalog;
    Ok(Ok(fact))
}

fn add_attributes(
    model: &mut DataModel,
    catalog: &Catalog,
    concepts: &Concepts,
    ended: &Ended,
    results: &[Finished],
) -> Result<(), ExtractError> {
    let mut answered: HashMap<(usize, usize), Attribute> = HashMap::new();
    for (item, result) in succeeded(catalog, results, Stage::Attribute) {
        let Item::Attribute(item) = item? else { continue };
        let answer: AttributeResult = read(Stage::Attribute, result)?;
        answered.extend((item.from..item.to).map(|c| (item.table, c)).zip(answer.attributes));
    }
    let counts: &mut Coverage = &mut model.coverage;
    for (at, table) in catalog.tables.iter().enumerate() {
        counts.columns += table.columns.len();
        let Some(concept) = concepts.of_table(at) else {
            counts.columns_uncovered += table.columns.len();
            continue;
        };
        for column in 0..table.columns.len() {
            let fact = answered.remove(&(at, column)).or_else(|| {
                ended.columns.get(&(at, column)).map(|_| of_column(catalog, at, column, concept))
            });
            if let Some(fact) = fact {
                counts.columns_covered += 1;
                model.attributes.push(fact);
                continue;
            }
            counts.columns_uncovered += 1;
            model.uncovered.push(Uncovered {
                what: Part::Column,
                table: table.name.clone(),
                columns: vec![table.columns[column].name.clone()],
                reason: Reason::NotYet,
                code: None,
            });
        }
    }
    Ok(())
}

type ItemOf<'a> = (Result<Item, ExtractError>, &'a serde_json::Value);

fn succeeded<'a>(
    catalog: &'a Catalog,
    results: &'a [Finished],
    stage: Stage,
) -> impl Iterator<Item = ItemOf<'a>> {
    results.iter().filter(move |r| r.draft.stage == stage).filter_map(move |r| match &r.outcome {
        Outcome::Succeeded { output } => Some((Item::read(&r.draft, Some(catalog)), output)),
        _ => None,
    })
}

fn read<'a, T: Deserialize<'a>>(stage: Stage, result: &'a serde_json::Value) -> Result<T, ExtractError> {
    T::deserialize(result).map_err(|e| ExtractError::Result { stage, detail: e.to_string() })
}
