//! Items cover everything once; any answer under the schema becomes a valid result; the rest is refused.

use std::collections::HashMap;

use adit::domain::catalog::Catalog;
use adit::domain::code::Code;
use adit::domain::fact::{DataModel, Reason, Source};
use adit::domain::item::{ItemDraft, Outcome};
use adit::domain::job::{Generation, JobSpec};
use adit::domain::task::{Stage, Task};
use adit::extract::item::Item;
use adit::extract::pipeline::{self, Finished};
use adit::extract::{answer, prompt, schema};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::catalogs;

pub fn spec(task: Task) -> JobSpec {
    JobSpec {
        task,
        model: None,
        schema: None,
        instructions: None,
        generation: Generation::default(),
        review_below: None,
    }
}

/// Walks a schema and makes an answer; `seed` decides what is free.
pub fn instance(schema: &Value, seed: &mut u64) -> Value {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    let pick = (*seed >> 33) as usize;
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return values[pick % values.len()].clone();
    }
    match schema["type"].as_str().unwrap() {
        "string" => {
            let texts =
                ["", "Customer", "  two\n words ", "\"q\\uote\u{1}", "日本語の説明", "!!", &"x".repeat(300)];
            json!(texts[pick % texts.len()])
        }
        "object" => {
            let properties = schema["properties"].as_object().unwrap();
            Value::Object(properties.iter().map(|(k, v)| (k.clone(), instance(v, seed))).collect())
        }
        "array" => {
            let fixed = schema.get("prefixItems").and_then(Value::as_array).cloned().unwrap_or_default();
            let most = schema["maxItems"].as_u64().unwrap() as usize;
            let mut list: Vec<Value> = fixed.iter().map(|s| instance(s, seed)).collect();
            while list.len() < most && schema["items"].is_object() {
                list.push(instance(&schema["items"], seed));
            }
            Value::Array(list)
        }
        other => panic!("{other}"),
    }
}

fn answered(spec: &JobSpec, catalog: &Catalog, draft: &ItemDraft, seed: &mut u64) -> Value {
    let prompt = prompt::prompt(spec, Some(catalog), draft).unwrap();
    let text = instance(prompt.schema.as_ref().unwrap(), seed).to_string();
    let result = answer::check(spec, Some(catalog), draft, &text, None).unwrap().output;
    let schema = schema::result_schema(spec, Some(catalog), draft).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    jsonschema::draft202012::meta::validate(prompt.schema.as_ref().unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    if let Err(error) = validator.validate(&result) {
        panic!("{error} at {}\n{result:#}", error.instance_path());
    }
    result
}

/// Runs a job with made-up answers; items whose number `fails` names end without one.
pub fn run(
    task: Task,
    catalog: &Catalog,
    mut seed: u64,
    fails: impl Fn(usize) -> bool,
) -> (DataModel, Vec<Finished>) {
    let spec = spec(task);
    let mut results: Vec<Finished> = Vec::new();
    let mut stage = spec.task.stages()[0];
    let mut items = pipeline::first_items(&spec, Some(catalog)).unwrap();
    loop {
        for draft in items {
            let outcome = if fails(results.len()) {
                Outcome::Failed { code: Code::OutputTruncated, message: String::new() }
            } else {
                Outcome::Succeeded { output: answered(&spec, catalog, &draft, &mut seed) }
            };
            results.push(Finished { draft, outcome });
        }
        match pipeline::next_stage(&spec, catalog, stage, &results) {
            Ok(Some((next, more))) => (stage, items) = (next, more),
            Ok(None) => break,
            Err(error) => {
                assert_eq!(error.code(), Code::StageFailed);
                break;
            }
        }
    }
    (pipeline::assemble(&spec, catalog, &results).unwrap(), results)
}

fn check_complete(catalog: &Catalog, seed: u64) -> DataModel {
    let (model, results) = run(Task::DataModel, catalog, seed, |_| false);
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut heads: HashMap<Stage, String> = HashMap::new();
    for result in &results {
        let draft = &result.draft;
        let prompt = prompt::prompt(&spec(Task::DataModel), Some(catalog), draft).unwrap();
        let head = prompt.messages[0].content.clone();
        assert_eq!(*heads.entry(draft.stage).or_insert(head.clone()), head);
        assert!(
            prompt.max_tokens < 6_000 || catalog.tables.iter().any(|t| t.name.len() > 40),
            "{}",
            prompt.max_tokens
        );
        match Item::read(draft, Some(catalog)).unwrap() {
            Item::Concept(item) => {
                item.tables.iter().for_each(|t| *seen.entry(format!("t{t}")).or_default() += 1)
            }
            Item::Relationship(item) => {
                item.keys.iter().for_each(|k| *seen.entry(format!("k{k:?}")).or_default() += 1);
            }
            Item::Attribute(item) => {
                (item.from..item.to)
                    .for_each(|c| *seen.entry(format!("c{}.{c}", item.table)).or_default() += 1);
            }
            _ => panic!("not of this task"),
        }
    }
    let known_keys = catalog.keys().iter().filter(|k| k.target.is_some()).count();
    assert_eq!(seen.len(), catalog.tables.len() + known_keys + catalog.column_count());
    assert!(seen.values().all(|n| *n == 1));
    let coverage = model.coverage;
    assert!(coverage.adds_up(), "{coverage:?}");
    assert_eq!(coverage.tables_covered, catalog.tables.len());
    assert_eq!(coverage.keys_covered, known_keys);
    assert_eq!(coverage.columns_covered, catalog.column_count());
    assert!(model.uncovered.iter().all(|u| u.reason == Reason::UnknownTarget));
    model
}

#[test]
fn every_part_of_every_sample_is_answered_once() {
    for name in ["shop", "library", "clinic", "legacy"] {
        check_complete(&catalogs::sample(name), 7);
    }
}

#[test]
fn hostile_and_large_schemas_are_answered_once() {
    check_complete(&catalogs::hostile(), 1);
    check_complete(&catalogs::large(), 2);
    check_complete(&catalogs::long(), 2);
    check_complete(&catalogs::sample("hostile"), 2);
    check_complete(&catalogs::names_only(), 3);
}

/// Bytes of prompt and answer at their largest: a token is at least a byte.
#[test]
fn items_fit_a_context_whatever_the_names_are() {
    const CONTEXT: usize = 8_192;
    for catalog in [catalogs::long(), catalogs::hostile(), catalogs::sample("hostile")] {
        let (_, results) = run(Task::DataModel, &catalog, 1, |_| false);
        assert!(!results.is_empty());
        for result in results {
            let prompt = prompt::prompt(&spec(Task::DataModel), Some(&catalog), &result.draft).unwrap();
            let own = prompt.messages[1].content.len();
            let forced = schema::max_answer_bytes(prompt.schema.as_ref().unwrap(), 0).unwrap();
            // the head is plain English: some four bytes a token
            let head = prompt.messages[0].content.len() / 3;
            assert!(head + own + forced <= CONTEXT, "{:?}: {head} + {own} + {forced}", result.draft);
        }
    }
}

#[test]
fn the_grammar_takes_every_schema_we_make() {
    for catalog in [
        catalogs::sample("shop"),
        catalogs::sample("hostile"),
        catalogs::hostile(),
        catalogs::long(),
        catalogs::names_only(),
    ] {
        let (_, results) = run(Task::DataModel, &catalog, 1, |_| false);
        for result in results {
            let schema =
                schema::answer_schema(&spec(Task::DataModel), Some(&catalog), &result.draft).unwrap();
            if let Err(error) = adit::engine::grammar::check_schema(&schema.unwrap()) {
                panic!("{error}: {:?}", result.draft);
            }
        }
    }
}

#[test]
fn the_same_answers_give_the_same_model() {
    let catalog = catalogs::hostile();
    assert_eq!(check_complete(&catalog, 5), check_complete(&catalog, 5));
}

#[test]
fn failed_concepts_are_listed_and_failed_keys_and_columns_come_from_the_catalog() {
    let catalog = catalogs::sample("shop");
    let (model, results) = run(Task::DataModel, &catalog, 1, |n| n == 0);
    let Item::Concept(item) = Item::read(&results[0].draft, Some(&catalog)).unwrap() else { panic!() };
    assert_eq!(model.coverage.tables_uncovered, item.tables.len());
    assert!(model.coverage.adds_up());
    let listed = model.uncovered.iter().find(|u| u.table == catalog.tables[item.tables[0]].name).unwrap();
    assert_eq!((listed.reason, listed.code), (Reason::ItemFailed, Some(Code::OutputTruncated)));

    let concepts = results.iter().filter(|r| r.draft.stage == Stage::Concept).count();
    let (model, _) = run(Task::DataModel, &catalog, 1, |n| n >= concepts);
    assert_eq!(model.coverage.columns_covered, catalog.column_count());
    assert!(model.attributes.iter().all(|a| a.source == Source::Catalog));
    assert!(model.relationships.iter().all(|r| r.source == Source::Catalog && !r.name.is_empty()));
}

#[test]
fn a_job_without_any_concept_cannot_go_on() {
    let (model, _) = run(Task::DataModel, &catalogs::sample("clinic"), 1, |_| true);
    assert_eq!(model.coverage.tables_covered, 0);
    assert!(model.coverage.adds_up());
}

#[test]
fn single_tasks_work_without_a_concept_stage() {
    let catalog = catalogs::sample("library");
    let (model, _) = run(Task::Relationship, &catalog, 1, |_| false);
    assert_eq!((model.coverage.keys, model.coverage.keys_uncovered), (7, 0));
    assert!(model.relationships.iter().any(|r| r.from == "loans" && r.to == "members"));
    let (model, _) = run(Task::Attribute, &catalog, 1, |_| false);
    assert_eq!(model.coverage.columns_covered, catalog.column_count());
}

#[test]
fn answers_about_other_things_are_refused() {
    let catalog = catalogs::sample("clinic");
    let spec = spec(Task::Concept);
    let draft = &pipeline::first_items(&spec, Some(&catalog)).unwrap()[0];
    let schema = prompt::prompt(&spec, Some(&catalog), draft).unwrap().schema.unwrap();
    let good = instance(&schema, &mut 1);
    let refused = |answer: &Value| {
        let error = answer::check(&spec, Some(&catalog), draft, &answer.to_string(), None).unwrap_err();
        assert_eq!(error.code(), Code::InvalidAnswer, "{error}");
    };
    let mut wrong = good.clone();
    wrong["concepts"][0]["table"] = json!("invented");
    refused(&wrong);
    let mut wrong = good.clone();
    wrong["concepts"].as_array_mut().unwrap().swap(0, 1);
    refused(&wrong);
    let mut wrong = good.clone();
    wrong["concepts"].as_array_mut().unwrap().pop();
    refused(&wrong);
    let mut wrong = good.clone();
    wrong["concepts"][0]["kind"] = json!("thing");
    refused(&wrong);
    let mut wrong = good.clone();
    wrong["concepts"][0]["more"] = json!(1);
    refused(&wrong);
    assert!(answer::check(&spec, Some(&catalog), draft, &good.to_string()[..40], None).is_err());
}

#[test]
fn undeclared_links_of_a_legacy_schema_are_found_as_candidates() {
    let catalog = catalogs::sample("legacy");
    let items = pipeline::first_items(&spec(Task::Relationship), Some(&catalog)).unwrap();
    let links: Vec<String> = items
        .iter()
        .flat_map(|draft| match Item::read(draft, Some(&catalog)).unwrap() {
            Item::Relationship(item) => item.links,
            _ => panic!(),
        })
        .map(|link| link.text(&catalog))
        .collect();
    for wanted in ["TBL_CUST.REP_NO -> TBL_REP.REP_NO", "TBL_ORD.CUST_NO -> TBL_CUST.CUST_NO"] {
        assert!(links.iter().any(|l| l == wanted), "{wanted} is not in {links:?}");
    }
}

#[test]
fn custom_answers_are_validated() {
    let mut spec = spec(Task::Custom);
    spec.schema = Some(
        json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}, "required": ["n"]}),
    );
    spec.instructions = Some("Find the number.".into());
    let draft = pipeline::input_item(&spec, json!({"text": "five"})).unwrap();
    assert_eq!(draft, pipeline::input_item(&spec, json!("five")).unwrap());
    let prompt = prompt::prompt(&spec, None, &draft).unwrap();
    assert!(prompt.messages[0].content.contains("Find the number."));
    assert_eq!(prompt.messages[1].content, "five");
    assert_eq!(answer::check(&spec, None, &draft, "{\"n\":5}", None).unwrap().output, json!({"n": 5}));
    assert_eq!(
        answer::check(&spec, None, &draft, "{\"n\":2}", None).unwrap_err().code(),
        Code::InvalidAnswer
    );
    assert!(pipeline::input_item(&spec, json!({"txt": "five"})).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_catalog_is_answered_once(catalog in catalogs::any_catalog(), seed: u64) {
        check_complete(&catalog, seed);
    }

    #[test]
    fn counts_add_up_whatever_fails(catalog in catalogs::any_catalog(), seed: u64, fails: u64) {
        let (model, _) = run(Task::DataModel, &catalog, seed, |n| fails >> (n % 64) & 1 == 1);
        prop_assert!(model.coverage.adds_up());
    }
}
