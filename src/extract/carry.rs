//! Answers of an earlier job that hold for another catalog.
//!
//! An answer's entry holds while every table that it is about is unchanged, by [`fingerprint`], and what the prompt
//! said of it beside these tables is the same:
//!
//! - a **concept** while its table is, and while the schema suggests the same kind for it: whether others refer to
//!   it has a part in that. Tables that were asked about in one prompt are judged one by one: that a neighbour has
//!   changed does not make a table another one;
//! - a **declared key** while both of its ends are, and both ends' concepts have the names that they had. So does an
//!   **undeclared link**, confirmed or not, as long as it is still a likely one;
//! - **attributes** while their table is, and its concept has the name that it had.
//!
//! Names of concepts are known once the concept stage has ended, hence two looks: [`carried`] when a job is
//! submitted, [`still_named`] when a stage begins. What only a part of an item's entries holds for is cut down to
//! that part: item and answer alike, entries otherwise as they were.
//!
//! [`fingerprint`]: super::fingerprint

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::assemble::Concepts;
use super::fingerprint::{Fingerprint, fingerprint};
use super::item::{AttributeItem, ConceptItem, Item, Link, RelationshipItem};
use super::{ExtractError, candidate, guess};
use crate::domain::catalog::Catalog;
use crate::domain::difference::TableChanges;
use crate::domain::item::Carried;

/// Parts of a catalog that need not be asked about.
#[derive(Debug, Default)]
pub struct Answered {
    pub tables: HashSet<usize>,
    /// Table and place among its foreign keys.
    pub keys: HashSet<(usize, usize)>,
    pub links: HashSet<Link>,
    pub columns: HashSet<(usize, usize)>,
}

impl Answered {
    pub fn of(catalog: &Catalog, carried: &[Carried]) -> Result<Self, ExtractError> {
        let mut answered = Self::default();
        for one in carried {
            match Item::read(&one.draft, Some(catalog))? {
                Item::Concept(item) => answered.tables.extend(item.tables),
                Item::Relationship(item) => {
                    answered.keys.extend(item.keys);
                    answered.links.extend(item.links);
                }
                Item::Attribute(item) => {
                    answered.columns.extend((item.from..item.to).map(|column| (item.table, column)));
                }
                Item::Custom(_) | Item::Chat(_) | Item::Line(_) => {}
            }
        }
        Ok(answered)
    }
}

/// An earlier catalog beside the one of now.
pub struct Tables<'a> {
    earlier: &'a Catalog,
    now: &'a Catalog,
    /// By earlier position: where the table is now, if it is unchanged.
    place: Vec<Option<usize>>,
}

impl<'a> Tables<'a> {
    pub fn new(earlier: &'a Catalog, now: &'a Catalog) -> Self {
        let prints: HashMap<&str, (usize, Fingerprint)> = now
            .tables
            .iter()
            .enumerate()
            .map(|(at, table)| (table.name.as_str(), (at, fingerprint(table))))
            .collect();
        let place = earlier.tables.iter().map(|table| {
            let (at, print) = prints.get(table.name.as_str())?;
            (*print == fingerprint(table)).then_some(*at)
        });
        Self { earlier, now, place: place.collect() }
    }

    pub fn changes(&self) -> TableChanges {
        let names = |catalog: &'a Catalog| -> HashSet<&'a str> {
            catalog.tables.iter().map(|table| table.name.as_str()).collect()
        };
        let (before, after) = (names(self.earlier), names(self.now));
        let unchanged: HashSet<usize> = self.place.iter().flatten().copied().collect();
        let mut changes = TableChanges { unchanged: unchanged.len(), ..TableChanges::default() };
        for (_, table) in self.now.tables.iter().enumerate().filter(|(at, _)| !unchanged.contains(at)) {
            let list =
                if before.contains(table.name.as_str()) { &mut changes.changed } else { &mut changes.added };
            list.push(table.name.clone());
        }
        let gone = self.earlier.tables.iter().filter(|table| !after.contains(table.name.as_str()));
        changes.removed = gone.map(|table| table.name.clone()).collect();
        changes
    }

    fn place(&self, table: usize) -> Option<usize> {
        self.place.get(table).copied().flatten()
    }
}

/// What holds of an earlier job's answers as far as its tables say, about the catalog of now.
pub fn carried(tables: &Tables, answers: Vec<Carried>) -> Result<Vec<Carried>, ExtractError> {
    let keys = key_places(tables);
    let links: HashSet<Link> = candidate::links(tables.now).into_iter().flatten().collect();
    let mut holding = Vec::new();
    for answer in answers {
        let item = Item::read(&answer.draft, Some(tables.earlier))?;
        let kept = match item {
            Item::Concept(item) => concepts(tables, item, answer.output),
            Item::Relationship(item) => {
                let link = |link: &Link| {
                    let place =
                        |(table, column): (usize, Option<usize>)| Some((tables.place(table)?, column));
                    let now = Link { from: place(link.from)?, to: place(link.to)? };
                    links.contains(&now).then_some(now)
                };
                let place = |table: usize| tables.place(table);
                let part = Part {
                    catalog: tables.earlier,
                    place: &place,
                    key: &|key| keys.get(&key).copied(),
                    link: &link,
                };
                part.of(&item, answer.output)
            }
            Item::Attribute(item) => tables
                .place(item.table)
                .map(|table| (Item::Attribute(AttributeItem { table, ..item }), answer.output)),
            Item::Custom(_) | Item::Chat(_) | Item::Line(_) => None,
        };
        holding.extend(kept.map(|(item, output)| Carried {
            seq: answer.seq,
            draft: item.into_draft(),
            output,
        }));
    }
    Ok(holding)
}

/// What of carried answers of one stage still holds when the concepts are known.
pub fn still_named(
    catalog: &Catalog,
    concepts: &Concepts,
    carried: Vec<Carried>,
) -> Result<Vec<Carried>, ExtractError> {
    let targets: HashMap<(usize, usize), usize> = catalog
        .keys()
        .into_iter()
        .filter_map(|key| key.target.map(|(to, _)| ((key.table, key.index), to)))
        .collect();
    let mut holding = Vec::new();
    for answer in carried {
        let kept = match Item::read(&answer.draft, Some(catalog))? {
            Item::Relationship(item) => {
                let named = |table: usize| {
                    item.concept(table).is_some_and(|name| concepts.of_table(table) == Some(name))
                };
                let key = |key: (usize, usize)| {
                    (named(key.0) && targets.get(&key).is_some_and(|to| named(*to))).then_some(key)
                };
                let link = |link: &Link| (named(link.from.0) && named(link.to.0)).then(|| link.clone());
                Part { catalog, place: &|table| Some(table), key: &key, link: &link }.of(&item, answer.output)
            }
            Item::Attribute(item) if concepts.of_table(item.table) != Some(item.concept.as_str()) => None,
            item => Some((item, answer.output)),
        };
        holding.extend(kept.map(|(item, output)| Carried {
            seq: answer.seq,
            draft: item.into_draft(),
            output,
        }));
    }
    Ok(holding)
}

fn concepts(tables: &Tables, item: ConceptItem, mut output: Value) -> Option<(Item, Value)> {
    let holds = |at: usize| {
        let now = tables.place(at)?;
        (guess::kind(tables.earlier, at) == guess::kind(tables.now, now)).then_some(now)
    };
    let places: Vec<Option<usize>> = item.tables.into_iter().map(holds).collect();
    let entries = output.get_mut("concepts")?.as_array_mut()?;
    if entries.len() != places.len() {
        return None;
    }
    let mut kept = places.iter().map(Option::is_some);
    entries.retain(|_| kept.next().unwrap_or(false));
    let tables: Vec<usize> = places.into_iter().flatten().collect();
    (!tables.is_empty()).then_some((Item::Concept(ConceptItem { tables }), output))
}

/// By place of a key in the earlier catalog: its place now, if both of its ends are unchanged.
fn key_places(tables: &Tables) -> HashMap<(usize, usize), (usize, usize)> {
    let mut places = HashMap::new();
    let mut taken: HashSet<(usize, usize)> = HashSet::new();
    for key in tables.earlier.keys() {
        let Some((to, _)) = key.target else { continue };
        let (Some(table), Some(_)) = (tables.place(key.table), tables.place(to)) else { continue };
        let before = &tables.earlier.tables[key.table].foreign_keys[key.index];
        // keys may be declared in another order, and under other names
        let same = tables.now.tables[table].foreign_keys.iter().enumerate().find(|(index, now)| {
            (&now.columns, &now.ref_table, &now.ref_columns)
                == (&before.columns, &before.ref_table, &before.ref_columns)
                && !taken.contains(&(table, *index))
        });
        if let Some((index, _)) = same {
            taken.insert((table, index));
            places.insert((key.table, key.index), (table, index));
        }
    }
    places
}

/// The part of a relationship item that holds: where its tables, keys and links are now.
struct Part<'a> {
    /// That of the item.
    catalog: &'a Catalog,
    place: &'a dyn Fn(usize) -> Option<usize>,
    key: &'a dyn Fn((usize, usize)) -> Option<(usize, usize)>,
    link: &'a dyn Fn(&Link) -> Option<Link>,
}

impl Part<'_> {
    fn of(&self, item: &RelationshipItem, mut output: Value) -> Option<(Item, Value)> {
        let keys: Vec<Option<(usize, usize)>> = item.keys.iter().map(|key| (self.key)(*key)).collect();
        let links: Vec<Option<Link>> = item.links.iter().map(|link| (self.link)(link)).collect();
        let entries = output.get_mut("relationships")?.as_array_mut()?;
        if entries.len() < keys.len() {
            return None;
        }
        let mut at = 0;
        entries.retain(|entry| {
            at += 1;
            match keys.get(at - 1) {
                Some(key) => key.is_some(),
                None => item
                    .links
                    .iter()
                    .zip(&links)
                    .any(|(link, now)| now.is_some() && is_of(self.catalog, link, entry)),
            }
        });
        let part = RelationshipItem {
            keys: keys.into_iter().flatten().collect(),
            links: links.into_iter().flatten().collect(),
            concepts: Vec::new(),
        };
        if part.keys.is_empty() && part.links.is_empty() {
            return None;
        }
        let concepts = self.concepts(item, &part);
        Some((Item::Relationship(RelationshipItem { concepts, ..part }), output))
    }

    /// Of the tables that the part still touches, in catalog order.
    fn concepts(&self, item: &RelationshipItem, part: &RelationshipItem) -> Vec<(usize, String)> {
        let mut touched: HashSet<usize> =
            part.links.iter().flat_map(|link| [link.from.0, link.to.0]).collect();
        for (owner, index) in item.keys.iter().filter(|key| (self.key)(**key).is_some()) {
            let target = self.catalog.resolve(&self.catalog.tables[*owner].foreign_keys[*index]);
            let ends = [Some(*owner), target.map(|(to, _)| to)];
            touched.extend(ends.into_iter().flatten().filter_map(self.place));
        }
        let mut concepts: Vec<(usize, String)> = item
            .concepts
            .iter()
            .filter_map(|(table, name)| Some(((self.place)(*table)?, name.clone())))
            .filter(|(table, _)| touched.contains(table))
            .collect();
        concepts.sort();
        concepts
    }
}

/// Whether an entry confirms this link.
fn is_of(catalog: &Catalog, link: &Link, entry: &Value) -> bool {
    let end = |(table, column): (usize, Option<usize>), side: &str| {
        let columns = Link::columns(catalog, (table, column));
        entry[format!("{side}_table")] == catalog.tables[table].name.as_str()
            && entry[format!("{side}_columns")] == Value::from(columns)
    };
    end(link.from, "from") && end(link.to, "to")
}
