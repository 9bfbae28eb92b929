//! Fingerprints, what is carried over from an earlier job, and the difference between two models.

use std::collections::{HashMap, HashSet};

use adit::domain::catalog::{Catalog, Table};
use adit::domain::code::Code;
use adit::domain::difference::{Difference, FactKind, TableChanges};
use adit::domain::fact::{DataModel, Reason};
use adit::domain::item::{Carried, ItemDraft, Outcome, StageItems};
use adit::domain::task::{Stage, Task};
use adit::extract::carry::{self, Tables};
use adit::extract::difference::difference;
use adit::extract::fingerprint::fingerprint;
use adit::extract::item::Item;
use adit::extract::pipeline::{self, Finished};
use adit::extract::{schema, since};
use proptest::prelude::*;
use serde_json::json;

use crate::answers::answered;
use crate::catalogs::{self, key, table};
use crate::pipeline::{run, spec};

fn orders() -> Table {
    let mut orders = table("orders", &["id", "customer_id", "status", "note"]);
    orders.comment = Some("What was bought".into());
    orders.primary_key = vec!["id".into()];
    orders.unique = vec![vec!["customer_id".into(), "status".into()], vec!["note".into()]];
    orders.foreign_keys = vec![key(&["customer_id"], "customers"), key(&["status"], "statuses")];
    orders.columns[3].comment = Some("By hand".into());
    orders
}

#[test]
fn a_fingerprint_is_the_same_everywhere_and_for_ever() {
    // of {"name":"orders","comment":"What was bought","columns":[{"name":"id","data_type":"integer","nullable":false,
    // "comment":""},…],"primary_key":["id"],"unique":[["customer_id","status"],["note"]],
    // "foreign_keys":[[["customer_id"],"customers",[]],[["status"],"statuses",[]]]}, made by another program
    let expected = "2936ac5c54fe6d30";
    assert_eq!(&fingerprint(&orders()).to_string()[..16], expected);
}

#[test]
fn what_no_answer_depends_on_is_not_part_of_a_fingerprint() {
    let check = |what: &str, change: fn(&mut Table)| {
        let mut changed = orders();
        change(&mut changed);
        assert_ne!(changed, orders(), "{what}");
        assert_eq!(fingerprint(&changed), fingerprint(&orders()), "{what}");
    };
    check("rows", |t| t.row_estimate = Some(7));
    check("default", |t| t.columns[2].default = Some("'open'".into()));
    check("order of foreign keys", |t| t.foreign_keys.reverse());
    check("name of a foreign key", |t| t.foreign_keys[0].name = Some("orders_fk".into()));
    check("order of unique keys", |t| t.unique.reverse());
    check("order within a unique key", |t| t.unique[0].reverse());
    check("the primary key as a unique key", |t| t.unique.push(vec!["id".into()]));
    check("a nullable column of the primary key", |t| t.columns[0].nullable = false);
    check("blanks around a comment", |t| t.comment = Some(" What was bought\n".into()));
    check("an empty comment", |t| t.columns[0].comment = Some(String::new()));
}

#[test]
fn every_change_that_matters_changes_the_fingerprint() {
    type Change = fn(&mut Table);
    let changes: [(&str, Change); 18] = [
        ("nothing", |_| {}),
        ("name", |t| t.name = "order".into()),
        ("comment", |t| t.comment = None),
        ("column name", |t| t.columns[3].name = "notes".into()),
        ("column type", |t| t.columns[3].data_type = "text".into()),
        ("column order", |t| t.columns.swap(2, 3)),
        ("column gone", |t| drop(t.columns.pop())),
        ("column added", |t| t.columns.push(t.columns[3].clone())),
        ("nullable", |t| t.columns[1].nullable = false),
        ("column comment", |t| t.columns[3].comment = Some("By a machine".into())),
        ("primary key", |t| t.primary_key = vec!["id".into(), "status".into()]),
        ("order of the primary key", |t| t.primary_key = vec!["status".into(), "id".into()]),
        ("unique gone", |t| drop(t.unique.pop())),
        ("unique column", |t| t.unique[0] = vec!["customer_id".into()]),
        ("key gone", |t| drop(t.foreign_keys.pop())),
        ("key's table", |t| t.foreign_keys[0].ref_table = "clients".into()),
        ("key's column", |t| t.foreign_keys[0].columns = vec!["note".into()]),
        ("key's target", |t| t.foreign_keys[0].ref_columns = vec!["no".into()]),
    ];
    let mut seen: HashMap<String, &str> = HashMap::new();
    for (what, change) in changes {
        let mut changed = orders();
        change(&mut changed);
        if let Some(other) = seen.insert(fingerprint(&changed).to_string(), what) {
            panic!("{what} has the fingerprint of {other}");
        }
    }
}

/// A job as the service keeps it: its catalog and how its items ended.
struct Job {
    catalog: Catalog,
    results: Vec<Finished>,
    model: DataModel,
}

fn extracted(task: Task, catalog: Catalog, seed: u64, fails: impl Fn(usize) -> bool) -> Job {
    let (model, results) = run(task, &catalog, seed, fails);
    Job { catalog, results, model }
}

fn answers(job: &Job) -> Vec<Carried> {
    let answer = |(seq, one): (usize, &Finished)| match &one.outcome {
        Outcome::Succeeded { output } => {
            Some(Carried { seq: seq as i32, draft: one.draft.clone(), output: output.clone() })
        }
        _ => None,
    };
    job.results.iter().enumerate().filter_map(answer).collect()
}

/// Runs a job made from `earlier` with made-up answers, as submission and worker do. The stages tell what was
/// carried and what was asked.
fn rerun(task: Task, earlier: &Job, catalog: Catalog, mut seed: u64) -> (Job, Vec<StageItems>, TableChanges) {
    let spec = spec(task);
    let tables = Tables::new(&earlier.catalog, &catalog);
    let changes = tables.changes();
    let carried = carry::carried(&tables, answers(earlier)).unwrap();
    let mut stages = since::first_stages(&spec, &catalog, &carried).unwrap();
    let mut results: Vec<Finished> = Vec::new();
    let mut done = 0;
    loop {
        for items in &stages[done..] {
            for one in &items.carried {
                let validator = jsonschema::validator_for(
                    &schema::result_schema(&spec, Some(&catalog), &one.draft).unwrap(),
                );
                if let Err(error) = validator.unwrap().validate(&one.output) {
                    panic!("{error} at {}: {:#}", error.instance_path(), one.output);
                }
                let outcome = Outcome::Succeeded { output: one.output.clone() };
                results.push(Finished { draft: one.draft.clone(), outcome });
            }
            for draft in &items.drafts {
                let output = answered(&spec, &catalog, draft, &mut seed);
                results.push(Finished { draft: draft.clone(), outcome: Outcome::Succeeded { output } });
            }
        }
        done = stages.len();
        let of_stage = |stage: Stage| -> Vec<Carried> {
            carried.iter().filter(|one| one.draft.stage == stage).cloned().collect()
        };
        let last = stages[done - 1].stage;
        let kept = spec.task.stage_after(last).map(of_stage).unwrap_or_default();
        match since::next_stage(&spec, &catalog, last, &results, kept).unwrap() {
            Some(items) => stages.push(items),
            None => break,
        }
    }
    let model = pipeline::assemble(&spec, &catalog, &results).unwrap();
    (Job { catalog, results, model }, stages, changes)
}

/// Whatever was changed, the new job is whole, and each part of it was answered once.
fn check_whole(job: &Job, stages: &[StageItems]) {
    let drafts =
        stages.iter().flat_map(|items| items.carried.iter().map(|one| &one.draft).chain(&items.drafts));
    let mut seen: HashMap<String, usize> = HashMap::new();
    for draft in drafts {
        match Item::read(draft, Some(&job.catalog)).unwrap() {
            Item::Concept(item) => {
                item.tables.iter().for_each(|t| *seen.entry(format!("t{t}")).or_default() += 1)
            }
            Item::Relationship(item) => {
                item.keys.iter().for_each(|k| *seen.entry(format!("k{k:?}")).or_default() += 1);
                item.links.iter().for_each(|l| *seen.entry(format!("l{l:?}")).or_default() += 1);
            }
            Item::Attribute(item) => (item.from..item.to)
                .for_each(|c| *seen.entry(format!("c{}.{c}", item.table)).or_default() += 1),
            _ => panic!("not of this task"),
        }
    }
    assert!(seen.values().all(|n| *n == 1), "{seen:?}");
    assert!(job.model.coverage.adds_up());
    assert!(job.model.uncovered.iter().all(|part| part.reason == Reason::UnknownTarget));
    let known_keys = job.catalog.keys().iter().filter(|k| k.target.is_some()).count();
    assert_eq!(job.model.coverage.tables_covered, job.catalog.tables.len());
    assert_eq!(job.model.coverage.keys_covered, known_keys);
    assert_eq!(job.model.coverage.columns_covered, job.catalog.column_count());
}

fn asked(stages: &[StageItems]) -> Vec<ItemDraft> {
    stages.iter().flat_map(|items| items.drafts.clone()).collect()
}

/// Tables that an item asks about.
fn tables_of(draft: &ItemDraft, catalog: &Catalog) -> Vec<String> {
    let tables = match Item::read(draft, Some(catalog)).unwrap() {
        Item::Concept(item) => item.tables,
        Item::Relationship(item) => item.concepts.into_iter().map(|(table, _)| table).collect(),
        Item::Attribute(item) => vec![item.table],
        _ => panic!("not of this task"),
    };
    tables.into_iter().map(|table| catalog.tables[table].name.clone()).collect()
}

#[test]
fn nothing_changed_asks_nothing_and_gives_the_same_model() {
    for name in ["shop", "library", "clinic", "legacy", "hostile"] {
        for task in [Task::DataModel, Task::Concept, Task::Relationship, Task::Attribute] {
            let earlier = extracted(task, catalogs::sample(name), 7, |_| false);
            let (now, stages, changes) = rerun(task, &earlier, earlier.catalog.clone(), 1);
            assert!(asked(&stages).is_empty(), "{name} {task}");
            assert_eq!(now.model, earlier.model, "{name} {task}");
            assert_eq!(changes, TableChanges { unchanged: now.catalog.tables.len(), ..Default::default() });
            let difference = difference(&earlier.model, &now.model);
            assert!(difference.added.is_empty() && difference.removed.is_empty());
            assert!(difference.changed.is_empty() && difference.unanswered.is_empty());
        }
    }
}

/// The sample with a column more in one table, a table more and a table less.
fn edited(mut catalog: Catalog) -> Catalog {
    let at = catalog.position("payments").unwrap();
    let column = table("x", &["currency"]).columns[0].clone();
    catalog.tables[at].columns.push(column);
    catalog.tables.retain(|table| table.name != "audit_log");
    let mut gifts = table("gifts", &["id", "payment_id"]);
    gifts.primary_key = vec!["id".into()];
    gifts.foreign_keys = vec![key(&["payment_id"], "payments")];
    // in the middle, so that every position behind it moves
    catalog.tables.insert(3, gifts);
    catalog
}

#[test]
fn only_what_changed_is_asked() {
    let earlier = extracted(Task::DataModel, catalogs::sample("shop"), 7, |_| false);
    let (now, stages, changes) = rerun(Task::DataModel, &earlier, edited(earlier.catalog.clone()), 3);
    check_whole(&now, &stages);
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    assert_eq!(
        changes,
        TableChanges {
            unchanged: 14,
            changed: names(&["payments"]),
            added: names(&["gifts"]),
            removed: names(&["audit_log"]),
        }
    );
    for draft in asked(&stages) {
        let tables = tables_of(&draft, &now.catalog);
        match draft.stage {
            // orders is at the other end of the changed table's key
            Stage::Relationship => {
                assert!(
                    tables.iter().all(|t| ["payments", "gifts", "orders"].contains(&t.as_str())),
                    "{tables:?}"
                );
            }
            _ => assert!(tables.iter().all(|t| ["payments", "gifts"].contains(&t.as_str())), "{tables:?}"),
        }
    }
    let items: Vec<usize> = stages.iter().map(|items| items.drafts.len()).collect();
    assert_eq!(items, [1, 1, 2], "one group, its keys, and each of the two tables' columns");
    // facts of other tables are what they were
    let old: HashSet<String> = earlier.model.attributes.iter().map(|a| json!(a).to_string()).collect();
    let others =
        now.model.attributes.iter().filter(|a| !["payments", "gifts"].contains(&a.source_table.as_str()));
    assert!(others.into_iter().all(|a| old.contains(&json!(a).to_string())));
}

#[test]
fn a_table_that_lost_its_references_is_judged_anew() {
    let mut catalog = Catalog {
        tables: vec![table("statuses", &["code", "label"]), orders(), table("customers", &["id"])],
    };
    catalog.tables[0].primary_key = vec!["code".into()];
    catalog.tables[2].primary_key = vec!["id".into()];
    let earlier = extracted(Task::Concept, catalog.clone(), 1, |_| false);
    // statuses was offered as a lookup because orders refers to it
    catalog.tables[1].foreign_keys.pop();
    let (_, stages, changes) = rerun(Task::Concept, &earlier, catalog.clone(), 1);
    assert_eq!(changes.changed, ["orders"]);
    let tables: Vec<String> = asked(&stages).iter().flat_map(|draft| tables_of(draft, &catalog)).collect();
    assert_eq!(tables, ["statuses", "orders"]);
}

#[test]
fn what_failed_before_is_asked_again() {
    let catalog = catalogs::sample("shop");
    let earlier = extracted(Task::DataModel, catalog.clone(), 7, |n| n % 3 == 0);
    let (now, stages, changes) = rerun(Task::DataModel, &earlier, catalog, 3);
    assert_eq!(changes.unchanged, 16);
    check_whole(&now, &stages);
    assert!(!asked(&stages).is_empty());
    assert!(stages.iter().any(|items| !items.carried.is_empty()));
    // and a job made from the second one has nothing to do
    let (third, stages, _) = rerun(Task::DataModel, &now, now.catalog.clone(), 9);
    assert!(asked(&stages).is_empty());
    let sorted = |model: &DataModel| {
        let mut facts: Vec<String> = model.relationships.iter().map(|fact| json!(fact).to_string()).collect();
        facts.sort();
        facts
    };
    assert_eq!(third.model.attributes, now.model.attributes);
    assert_eq!(sorted(&third.model), sorted(&now.model));
}

#[test]
fn links_that_were_looked_at_are_carried_whether_confirmed_or_not() {
    let catalog = catalogs::sample("legacy");
    let earlier = extracted(Task::Relationship, catalog.clone(), 7, |_| false);
    let mut edited = catalog;
    edited.tables[0].comment = Some("changed".into());
    let (now, stages, _) = rerun(Task::Relationship, &earlier, edited, 3);
    let name = &now.catalog.tables[0].name;
    for draft in asked(&stages) {
        let Item::Relationship(item) = Item::read(&draft, Some(&now.catalog)).unwrap() else { panic!() };
        assert!(item.links.iter().all(|link| link.from.0 == 0 || link.to.0 == 0), "{item:?}");
    }
    let of = |job: &Job| -> Vec<String> {
        let others =
            |fact: &&adit::domain::fact::Relationship| fact.from_table != *name && fact.to_table != *name;
        let mut facts: Vec<String> =
            job.model.relationships.iter().filter(others).map(|fact| json!(fact).to_string()).collect();
        facts.sort();
        facts
    };
    assert_eq!(of(&now), of(&earlier));
}

#[test]
fn an_estimate_counts_what_would_run() {
    let earlier = extracted(Task::DataModel, catalogs::sample("shop"), 7, |_| false);
    let spec = spec(Task::DataModel);
    let expected = |catalog: &Catalog| -> Vec<(Stage, usize)> {
        let carried = carry::carried(&Tables::new(&earlier.catalog, catalog), answers(&earlier)).unwrap();
        let stages = since::expected_items(&spec, catalog, &carried).unwrap();
        stages.into_iter().map(|(stage, drafts)| (stage, drafts.len())).collect()
    };
    assert!(expected(&earlier.catalog).is_empty());
    assert_eq!(
        expected(&edited(earlier.catalog.clone())),
        [(Stage::Concept, 1), (Stage::Relationship, 1), (Stage::Attribute, 2)]
    );
}

fn names(difference: &Difference) -> [Vec<String>; 4] {
    let name = |key: &adit::domain::difference::FactKey| {
        format!("{} {}.{}", key.kind.as_str(), key.tables.join("+"), key.columns.join("+"))
    };
    [
        difference.added.iter().map(|fact| name(&fact.key)).collect(),
        difference.removed.iter().map(|fact| name(&fact.key)).collect(),
        difference
            .changed
            .iter()
            .map(|fact| {
                let fields: Vec<&str> = fact.fields.iter().map(|field| field.field.as_str()).collect();
                format!("{}: {}", name(&fact.key), fields.join(", "))
            })
            .collect(),
        difference.unanswered.iter().map(|fact| name(&fact.key)).collect(),
    ]
}

#[test]
fn a_difference_names_facts_by_what_they_rest_on() {
    let mut catalog =
        Catalog { tables: vec![orders(), table("customers", &["id"]), table("statuses", &["code"])] };
    catalog.tables[1].primary_key = vec!["id".into()];
    catalog.tables[2].primary_key = vec!["code".into()];
    let before = extracted(Task::DataModel, catalog, 7, |_| false).model;
    assert!(names(&difference(&before, &before)).iter().all(Vec::is_empty));

    let mut now = before.clone();
    now.concepts[0].name = "Purchase".into();
    now.attributes[1].required = true;
    now.attributes.remove(0);
    now.relationships[0].to_table = "clients".into();
    let found = difference(&before, &now);
    let [added, removed, changed, unanswered] = names(&found);
    assert_eq!(added, ["relationship orders.customer_id"]);
    assert_eq!(removed, ["relationship orders.customer_id", "attribute orders.id"]);
    assert_eq!(changed, ["concept orders.: name", "attribute orders.customer_id: required"]);
    assert!(unanswered.is_empty());
    let field = &found.changed[1].fields[0];
    assert_eq!((&field.before, &field.now), (&json!(false), &json!(true)));
    assert_eq!(found.added[0].key.to_table.as_deref(), Some("clients"));
    assert_eq!(found.removed[1].fact, json!(before.attributes[0]));
    assert_eq!(
        found.unchanged,
        before.concepts.len() + before.attributes.len() + before.relationships.len() - 4
    );
}

#[test]
fn merged_and_split_concepts_are_changes_of_one() {
    let concept = |name: &str, tables: &[&str]| adit::domain::fact::Concept {
        name: name.into(),
        kind: adit::domain::fact::Kind::Entity,
        description: String::new(),
        source: adit::domain::fact::Source::Model,
        source_tables: tables.iter().map(|table| table.to_string()).collect(),
        confidence: None,
        review: false,
    };
    let model = |concepts: &[(&str, &[&str])]| DataModel {
        concepts: concepts.iter().map(|(name, tables)| concept(name, tables)).collect(),
        ..DataModel::default()
    };
    let merged = model(&[("A", &["a", "b"])]);
    let split = model(&[("A", &["a"]), ("B", &["b"])]);
    let found = difference(&merged, &split);
    assert_eq!((found.added.len(), found.removed.len(), found.changed.len()), (1, 0, 1));
    assert_eq!(found.added[0].key.kind, FactKind::Concept);
    let found = difference(&split, &merged);
    assert_eq!((found.added.len(), found.removed.len(), found.changed.len()), (0, 1, 1));
    // the first table is gone, the concept is not
    let found = difference(&merged, &model(&[("A", &["b"])]));
    assert_eq!((found.added.len(), found.removed.len(), found.changed.len()), (0, 0, 1));
}

#[test]
fn what_a_later_job_could_not_answer_is_not_said_to_be_gone() {
    let mut job = extracted(Task::DataModel, catalogs::sample("shop"), 7, |_| false);
    job.results[0].outcome = Outcome::Failed { code: Code::OutputTruncated, message: String::new() };
    let now = pipeline::assemble(&spec(Task::DataModel), &job.catalog, &job.results).unwrap();
    let found = difference(&job.model, &now);
    assert!(found.removed.is_empty(), "{:?}", names(&found)[1]);
    assert!(!found.unanswered.is_empty());
}

/// What is done to one table of a catalog.
#[derive(Clone, Debug)]
enum Edit {
    Drop,
    Comment,
    AddColumn,
    Reverse,
    AddKey(usize),
}

fn any_edits() -> impl Strategy<Value = Vec<(usize, Edit)>> {
    let edit = prop_oneof![
        Just(Edit::Drop),
        Just(Edit::Comment),
        Just(Edit::AddColumn),
        Just(Edit::Reverse),
        (0usize..12).prop_map(Edit::AddKey),
    ];
    prop::collection::vec((0usize..12, edit), 0..5)
}

fn apply(mut catalog: Catalog, edits: &[(usize, Edit)], turn: usize, add: bool) -> Catalog {
    for (at, edit) in edits {
        let at = at % catalog.tables.len();
        let names: Vec<String> = catalog.tables.iter().map(|table| table.name.clone()).collect();
        let table = &mut catalog.tables[at];
        match edit {
            Edit::Drop if names.len() > 1 => drop(catalog.tables.remove(at)),
            Edit::Drop => {}
            Edit::Comment => table.comment = Some(format!("{}!", table.comment.clone().unwrap_or_default())),
            Edit::AddColumn => {
                let name = format!("new{}", table.columns.len());
                table.columns.push(catalogs::table("x", &[name.as_str()]).columns[0].clone());
            }
            Edit::Reverse => table.columns.reverse(),
            Edit::AddKey(to) => {
                if let Some(column) = table.columns.first().map(|column| column.name.clone()) {
                    table.foreign_keys.push(key(&[column.as_str()], &names[to % names.len()]));
                }
            }
        }
    }
    if add {
        catalog.tables.push(table("brand new", &["id", "orders_id"]));
    }
    let turn = turn % catalog.tables.len();
    catalog.tables.rotate_left(turn);
    catalog
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_edit_of_any_catalog_gives_a_whole_model(
        catalog in catalogs::any_catalog(), edits in any_edits(), turn in 0usize..12, add: bool, seed: u64, fails: u64,
    ) {
        // not everything failed, or the earlier job has nothing to give and ended early
        let earlier = extracted(Task::DataModel, catalog, seed, |n| n > 0 && fails >> (n % 64) & 1 == 1);
        let after = apply(earlier.catalog.clone(), &edits, turn, add);
        let (now, stages, changes) = rerun(Task::DataModel, &earlier, after, seed ^ 1);
        check_whole(&now, &stages);
        let tables = changes.unchanged + changes.changed.len() + changes.added.len();
        prop_assert_eq!(tables, now.catalog.tables.len());
        let changed: HashSet<&String> = changes.changed.iter().chain(&changes.added).collect();
        for one in stages.iter().flat_map(|items| &items.carried) {
            for table in tables_of(&one.draft, &now.catalog) {
                prop_assert!(!changed.contains(&table), "{} was carried", table);
            }
        }
        // every fact is in exactly one list
        let found = difference(&earlier.model, &now.model);
        let count = |model: &DataModel| model.concepts.len() + model.relationships.len() + model.attributes.len();
        let both = found.unchanged + found.changed.len();
        prop_assert_eq!(both + found.added.len(), count(&now.model));
        prop_assert_eq!(both + found.removed.len() + found.unanswered.len(), count(&earlier.model));
    }

    #[test]
    fn nothing_changed_asks_nothing_of_any_catalog(catalog in catalogs::any_catalog(), seed: u64, turn in 0usize..12) {
        let earlier = extracted(Task::DataModel, catalog, seed, |_| false);
        let (now, stages, changes) = rerun(Task::DataModel, &earlier, earlier.catalog.clone(), 1);
        prop_assert!(asked(&stages).is_empty());
        prop_assert_eq!(&now.model, &earlier.model);
        prop_assert_eq!(changes.unchanged, now.catalog.tables.len());
        // in another order there is still nothing to ask about a table; a merged concept may get another's name
        let turned = apply(earlier.catalog.clone(), &[], turn, false);
        let (now, stages, _) = rerun(Task::DataModel, &earlier, turned, 1);
        check_whole(&now, &stages);
        prop_assert!(stages[0].drafts.is_empty());
    }
}
