//! Answers that no model gave: any that an item's schema admits.

use adit::domain::catalog::Catalog;
use adit::domain::item::ItemDraft;
use adit::domain::job::JobSpec;
use adit::extract::{answer, prompt, schema};
use serde_json::{Value, json};

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

/// The result of an answer to an item, checked against the schema that it promises.
pub fn answered(spec: &JobSpec, catalog: &Catalog, draft: &ItemDraft, seed: &mut u64) -> Value {
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
