//! How sure a model was, from the choices in an answer's text to marks in the exports.

use adit::domain::confidence::Confidence;
use adit::domain::fact::{DataModel, Source};
use adit::domain::item::{ItemDraft, Outcome};
use adit::domain::job::JobSpec;
use adit::domain::task::Task;
use adit::export::Format;
use adit::extract::answer;
use adit::extract::confidence::Decision;
use adit::extract::pipeline::{self, Finished};
use adit::extract::{item::Item, prompt};
use serde_json::{Value, json};

use crate::catalogs;
use crate::pipeline::{instance, spec};

/// An answer's text with one free choice in each value of `field` and one closed choice in each `type` and `kind`.
fn decisions(text: &str, sure: &[(&str, f32, u32)]) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for (field, probability, n_allowed) in sure {
        let key = format!("\"{field}\":");
        for (at, _) in text.match_indices(&key) {
            // the first byte behind the quote
            let start = at + key.len() + 1;
            decisions.push(Decision {
                bytes: start..start + 1,
                logprob: probability.ln(),
                n_allowed: *n_allowed,
            });
        }
    }
    decisions
}

/// A data model whose concepts are 0.9 sure, relationships 0.6 and attributes 0.3, but for the second item of the
/// attribute stage, which failed.
fn model(review_below: Option<f64>) -> DataModel {
    let catalog = catalogs::sample("shop");
    let spec = JobSpec { review_below: review_below.and_then(Confidence::new), ..spec(Task::DataModel) };
    let mut seed = 5;
    let mut results: Vec<Finished> = Vec::new();
    let mut stage = spec.task.stages()[0];
    let mut items = pipeline::first_items(&spec, Some(&catalog)).unwrap();
    loop {
        for (at, draft) in items.into_iter().enumerate() {
            let outcome = match Item::read(&draft, Some(&catalog)).unwrap() {
                Item::Attribute(_) if at == 1 => {
                    Outcome::Failed { code: adit::domain::code::Code::EngineFailed, message: String::new() }
                }
                _ => Outcome::Succeeded { output: answered(&spec, &draft, &mut seed) },
            };
            results.push(Finished { draft, outcome });
        }
        match pipeline::next_stage(&spec, &catalog, stage, &results).unwrap() {
            Some((next, more)) => (stage, items) = (next, more),
            None => return pipeline::assemble(&spec, &catalog, &results).unwrap(),
        }
    }
}

fn answered(spec: &JobSpec, draft: &ItemDraft, seed: &mut u64) -> Value {
    let catalog = catalogs::sample("shop");
    let prompt = prompt::prompt(spec, Some(&catalog), draft).unwrap();
    assert!(prompt.confidence);
    let mut answer = instance(prompt.schema.as_ref().unwrap(), seed);
    // names that are the model's own
    for entry in answer.as_object_mut().unwrap().values_mut().flat_map(|list| list.as_array_mut().unwrap()) {
        for field in ["concept", "name", "attribute"] {
            if entry.get(field).is_some() {
                entry[field] = if field == "concept" { entry["table"].clone() } else { json!("belongs to") };
            }
        }
    }
    let text = answer.to_string();
    let sure = [
        ("concept", 0.95, 40_000),
        ("kind", 0.9, 5),
        ("name", 0.6, 40_000),
        ("attribute", 0.3, 40_000),
        ("type", 0.9, 20),
    ];
    let checked = answer::check(spec, Some(&catalog), draft, &text, Some(&decisions(&text, &sure))).unwrap();
    let least = checked.confidence.expect("its choices are known").least;
    let entries: Vec<Value> = checked
        .output
        .as_object()
        .unwrap()
        .values()
        .flat_map(|list| list.as_array().unwrap().clone())
        .collect();
    let lowest = entries.iter().filter_map(|entry| entry["confidence"].as_f64()).fold(1.0, f64::min);
    assert_eq!(least.as_f64(), lowest, "an item is as sure as its least sure entry");
    checked.output
}

#[test]
fn facts_carry_what_their_judgements_were_worth() {
    let model = model(None);
    let sure = |probability: f64| Confidence::new(probability);
    assert!(model.concepts.len() > 5 && model.relationships.len() > 5 && model.attributes.len() > 20);
    for concept in &model.concepts {
        assert_eq!((concept.confidence, concept.review), (sure(0.9), false), "{concept:?}");
    }
    for relationship in &model.relationships {
        assert_eq!((relationship.confidence, relationship.review), (sure(0.6), false), "{relationship:?}");
    }
    let (judged, derived): (Vec<_>, Vec<_>) =
        model.attributes.iter().partition(|attribute| attribute.source == Source::Model);
    assert!(!judged.is_empty() && !derived.is_empty());
    for attribute in judged {
        assert_eq!((attribute.confidence, attribute.review), (sure(0.3), true), "{attribute:?}");
    }
    for attribute in derived {
        assert_eq!((attribute.confidence, attribute.review), (None, true), "{attribute:?}");
    }
    let review = model.review;
    assert_eq!((review.concepts, review.relationships, review.attributes), (0, 0, model.attributes.len()));
    assert_eq!(review.below, Confidence::DEFAULT_REVIEW_BELOW);
}

#[test]
fn a_job_draws_its_own_line() {
    let strict = model(Some(0.7));
    assert_eq!((strict.review.concepts, strict.review.relationships), (0, strict.relationships.len()));
    let lax = model(Some(0.0));
    let derived = lax.attributes.iter().filter(|attribute| attribute.source == Source::Catalog).count();
    assert_eq!((lax.review.relationships, lax.review.attributes), (0, derived));
}

#[test]
fn without_known_choices_nothing_is_vouched_for() {
    let catalog = catalogs::sample("shop");
    let spec = spec(Task::Concept);
    let draft = &pipeline::first_items(&spec, Some(&catalog)).unwrap()[0];
    let schema = prompt::prompt(&spec, Some(&catalog), draft).unwrap().schema.unwrap();
    let text = instance(&schema, &mut 3).to_string();
    let checked = answer::check(&spec, Some(&catalog), draft, &text, None).unwrap();
    assert_eq!(checked.confidence, None);
    assert!(checked.output["concepts"].as_array().unwrap().iter().all(|entry| entry["confidence"].is_null()));
}

#[test]
fn a_custom_answer_has_a_confidence_for_each_value() {
    let schema =
        json!({"type": "object", "properties": {"kind": {"enum": ["a", "b"]}, "n": {"type": "integer"}}});
    let spec = JobSpec { schema: Some(schema), ..spec(Task::Custom) };
    let draft = pipeline::input_item(&spec, json!("text")).unwrap();
    let text = r#"{"kind":"a","n":5}"#;
    let decisions = [("a", 0.75_f32, 2), ("5", 0.5, 10)].map(|(piece, probability, n_allowed)| {
        let start = text.find(&format!("{piece}{}", if piece == "a" { "\"" } else { "}" })).unwrap();
        Decision { bytes: start..start + 1, logprob: probability.ln(), n_allowed }
    });
    let checked = answer::check(&spec, None, &draft, text, Some(&decisions)).unwrap();
    assert_eq!(checked.output, json!({"kind": "a", "n": 5}), "the client's schema is left alone");
    let confidence = checked.confidence.unwrap();
    assert_eq!(confidence.least, Confidence::new(0.5).unwrap());
    assert_eq!(json!(confidence.fields), json!({"/kind": 0.75, "/n": 0.5}));
}

/// Confidences and marks are in the exports that have a place for them.
#[test]
fn exports_say_how_sure_and_what_to_review() {
    let model = model(None);
    let doubtful = model.attributes.len();
    let count = |format: Format, piece: &str| format.write(&model).matches(piece).count();
    let judged = model.attributes.iter().filter(|attribute| attribute.confidence.is_some()).count();
    assert_eq!(count(Format::Turtle, "adit:review true"), doubtful);
    assert_eq!(count(Format::Turtle, "adit:confidence 0.3000"), judged);
    assert_eq!(count(Format::Dbt, "review: true"), doubtful);
    assert_eq!(
        count(Format::Dbt, "confidence: 0.9000"),
        model.concepts.iter().map(|c| c.source_tables.len()).sum::<usize>()
    );
    assert_eq!(count(Format::Dot, " ?\\l"), doubtful);
    assert_eq!(count(Format::Dot, "style=dashed"), 0);
    let csv = Format::Csv.write(&model);
    let mut rows = csv::Reader::from_reader(csv.as_bytes());
    let columns = rows.headers().unwrap().clone();
    let at = |name: &str| columns.iter().position(|column| column == name).unwrap();
    let (confidence, review) = (at("confidence"), at("review"));
    let rows: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
    assert_eq!(rows.iter().filter(|row| &row[review] == "true").count(), doubtful);
    assert_eq!(rows.iter().filter(|row| &row[confidence] == "0.3000").count(), judged);
    let json: Value = serde_json::from_str(&Format::Json.write(&model)).unwrap();
    assert_eq!(
        json["review"],
        json!({"below": 0.5, "concepts": 0, "relationships": 0, "attributes": doubtful})
    );
    assert_eq!(json["concepts"][0]["confidence"], 0.9);
}
