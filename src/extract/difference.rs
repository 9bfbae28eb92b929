//! Two models of one source, fact by fact.
//!
//! A fact is known by what it rests on, not by its name: an attribute by table and column, a relationship by its
//! table, columns and the table it leads to, a concept by its tables. So a new name is a change of a fact, and
//! another column is another fact. A concept is the earlier one that shares the first of its tables that any shares.

use std::collections::{HashMap, HashSet, VecDeque};

use serde::Serialize;
use serde_json::Value;

use crate::domain::difference::{ChangedFact, Difference, FactKey, FactKind, FieldChange, WholeFact};
use crate::domain::fact::{Attribute, Concept, DataModel, Part, Relationship};

pub fn difference(before: &DataModel, now: &DataModel) -> Difference {
    let mut difference = Difference::default();
    let unknown = Unknown::of(now);
    pair_concepts(before, now).record(&mut difference, &unknown);
    let relationship =
        |fact: &Relationship| (fact.from_table.clone(), fact.from_columns.clone(), fact.to_table.clone());
    pair(&before.relationships, &now.relationships, relationship).record(&mut difference, &unknown);
    let attribute = |fact: &Attribute| (fact.source_table.clone(), fact.source_column.clone());
    pair(&before.attributes, &now.attributes, attribute).record(&mut difference, &unknown);
    difference
}

/// Facts of one kind, each beside the one that it was.
struct Pairs<'a, F> {
    gone: Vec<&'a F>,
    now: Vec<(Option<&'a F>, &'a F)>,
}

/// Facts that have the same key, one by one where several do.
fn pair<'a, F, K: Eq + std::hash::Hash>(
    before: &'a [F],
    now: &'a [F],
    key: impl Fn(&F) -> K,
) -> Pairs<'a, F> {
    let mut earlier: HashMap<K, VecDeque<usize>> = HashMap::new();
    for (at, fact) in before.iter().enumerate() {
        earlier.entry(key(fact)).or_default().push_back(at);
    }
    let mut paired = vec![false; before.len()];
    let mut pairs = Vec::with_capacity(now.len());
    for fact in now {
        let place = earlier.get_mut(&key(fact)).and_then(VecDeque::pop_front);
        if let Some(place) = place {
            paired[place] = true;
        }
        pairs.push((place.map(|place| &before[place]), fact));
    }
    let gone = before.iter().zip(paired).filter(|(_, paired)| !paired).map(|(fact, _)| fact);
    Pairs { gone: gone.collect(), now: pairs }
}

fn pair_concepts<'a>(before: &'a DataModel, now: &'a DataModel) -> Pairs<'a, Concept> {
    let mut of_table: HashMap<&str, usize> = HashMap::new();
    for (at, concept) in before.concepts.iter().enumerate() {
        of_table.extend(concept.source_tables.iter().map(|table| (table.as_str(), at)));
    }
    let mut paired = vec![false; before.concepts.len()];
    let mut pairs = Vec::with_capacity(now.concepts.len());
    for concept in &now.concepts {
        let mut shared =
            concept.source_tables.iter().filter_map(|table| of_table.get(table.as_str()).copied());
        let place = shared.find(|place| !paired[*place]);
        if let Some(place) = place {
            paired[place] = true;
        }
        pairs.push((place.map(|place| &before.concepts[place]), concept));
    }
    let gone = before.concepts.iter().zip(paired).filter(|(_, paired)| !paired).map(|(concept, _)| concept);
    Pairs { gone: gone.collect(), now: pairs }
}

impl<F: Fact + PartialEq> Pairs<'_, F> {
    fn record(self, difference: &mut Difference, unknown: &Unknown) {
        for (before, now) in self.now {
            match before {
                None => difference.added.push(whole(now)),
                Some(before) if before == now => difference.unchanged += 1,
                Some(before) => match fields(before, now) {
                    fields if fields.is_empty() => difference.unchanged += 1,
                    fields => difference.changed.push(ChangedFact { key: now.key(), fields }),
                },
            }
        }
        for fact in self.gone {
            let list =
                if unknown.has(&fact.key()) { &mut difference.unanswered } else { &mut difference.removed };
            list.push(whole(fact));
        }
    }
}

fn whole(fact: &impl Fact) -> WholeFact {
    WholeFact { key: fact.key(), fact: json(fact) }
}

fn json(fact: &impl Serialize) -> Value {
    serde_json::to_value(fact).expect("a fact is texts and flags")
}

/// What is said beside a fact and is no part of it.
const BESIDE: [&str; 2] = ["confidence", "review"];

/// By the export's own names, so that whatever a fact comes to state is compared.
fn fields(before: &impl Serialize, now: &impl Serialize) -> Vec<FieldChange> {
    let (Value::Object(before), Value::Object(now)) = (json(before), json(now)) else { return Vec::new() };
    let gone = before.keys().filter(|field| !now.contains_key(*field));
    let of =
        |fact: &serde_json::Map<String, Value>, field: &str| fact.get(field).cloned().unwrap_or_default();
    now.keys()
        .chain(gone)
        .filter(|field| !BESIDE.contains(&field.as_str()))
        .map(|field| FieldChange { field: field.clone(), before: of(&before, field), now: of(&now, field) })
        .filter(|change| change.before != change.now)
        .collect()
}

trait Fact: Serialize {
    fn key(&self) -> FactKey;
}

impl Fact for Concept {
    fn key(&self) -> FactKey {
        FactKey {
            kind: FactKind::Concept,
            name: self.name.clone(),
            tables: self.source_tables.clone(),
            columns: Vec::new(),
            to_table: None,
            to_columns: Vec::new(),
        }
    }
}

impl Fact for Relationship {
    fn key(&self) -> FactKey {
        FactKey {
            kind: FactKind::Relationship,
            name: self.name.clone(),
            tables: vec![self.from_table.clone()],
            columns: self.from_columns.clone(),
            to_table: Some(self.to_table.clone()),
            to_columns: self.to_columns.clone(),
        }
    }
}

impl Fact for Attribute {
    fn key(&self) -> FactKey {
        FactKey {
            kind: FactKind::Attribute,
            name: self.name.clone(),
            tables: vec![self.source_table.clone()],
            columns: vec![self.source_column.clone()],
            to_table: None,
            to_columns: Vec::new(),
        }
    }
}

/// What a model leaves uncovered.
struct Unknown<'a> {
    tables: HashSet<&'a str>,
    parts: HashSet<(&'a str, &'a [String])>,
}

impl<'a> Unknown<'a> {
    fn of(model: &'a DataModel) -> Self {
        let mut unknown = Self { tables: HashSet::new(), parts: HashSet::new() };
        for part in &model.uncovered {
            match part.what {
                Part::Table => {
                    unknown.tables.insert(&part.table);
                }
                Part::Key | Part::Column => {
                    unknown.parts.insert((&part.table, &part.columns));
                }
            }
        }
        unknown
    }

    fn has(&self, key: &FactKey) -> bool {
        let table = |name: &String| self.tables.contains(name.as_str());
        key.tables.iter().chain(&key.to_table).any(table)
            || key.tables.iter().any(|table| self.parts.contains(&(table.as_str(), key.columns.as_slice())))
    }
}
