//! JSON Schema keyword by keyword: what is held lets the valid through and nothing else, what is not held is
//! refused with its path. The table in the grammar's module head is checked word for word against this.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use adit::engine::grammar::{Choice, Compiler, Options, check_schema};
use serde_json::{Value, json};
use toktrie::ApproximateTokEnv;

static BYTES: LazyLock<Compiler> =
    LazyLock::new(|| Compiler::new(ApproximateTokEnv::single_byte_env(), Options::default()));

/// Whether an answer of these bytes can be given under the schema.
fn accepts(schema: &Value, text: &str) -> bool {
    let mut walk = BYTES.compile(schema, None).unwrap().start();
    for byte in text.bytes() {
        if walk.is_complete() {
            return false;
        }
        let Ok(Choice::Mask(mask)) = walk.choices(&[]) else { return false };
        if !mask.is_allowed(byte.into()) || walk.accept(byte.into()).is_err() {
            return false;
        }
    }
    let mask_has_end = |choice: Choice| match choice {
        Choice::Only(token) => token > 255,
        Choice::Mask(mask) => mask.to_list().iter().any(|&token| token > 255),
    };
    walk.is_complete() || walk.choices(&[]).is_ok_and(mask_has_end)
}

/// Keyword, a schema with it, an answer it lets through, an answer that only this keyword forbids.
fn held() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let open = |properties: Value| json!({"type": "object", "properties": properties, "required": ["a"], "additionalProperties": false});
    vec![
        ("type", json!({"type": "integer"}), "12", "\"12\""),
        ("type", json!({"type": ["null", "boolean"]}), "null", "1"),
        ("enum", json!({"enum": ["ab", 3, null]}), "3", "4"),
        ("const", json!({"const": {"a": [1]}}), r#"{"a":[1]}"#, r#"{"a":[2]}"#),
        ("properties", open(json!({"a": {"type": "integer"}})), r#"{"a":1}"#, r#"{"a":true}"#),
        (
            "required",
            open(json!({"a": {"type": "integer"}, "b": {"type": "integer"}})),
            r#"{"a":1}"#,
            r#"{"b":1}"#,
        ),
        ("additionalProperties", open(json!({"a": {"type": "integer"}})), r#"{"a":1}"#, r#"{"a":1,"c":1}"#),
        (
            "additionalProperties",
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            r#"{"x":1,"y":2}"#,
            r#"{"x":1,"y":""}"#,
        ),
        (
            "patternProperties",
            json!({"type": "object", "patternProperties": {"^n_": {"type": "integer"}}, "additionalProperties": false}),
            r#"{"n_a":1}"#,
            r#"{"n_a":"x"}"#,
        ),
        (
            "minProperties",
            json!({"type": "object", "additionalProperties": {"type": "null"}, "minProperties": 1}),
            r#"{"a":null}"#,
            "{}",
        ),
        (
            "maxProperties",
            json!({"type": "object", "additionalProperties": {"type": "null"}, "maxProperties": 1}),
            r#"{"a":null}"#,
            r#"{"a":null,"b":null}"#,
        ),
        ("items", json!({"type": "array", "items": {"type": "integer"}}), "[1,2]", "[1,true]"),
        (
            "prefixItems",
            json!({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "null"}], "items": false}),
            "[1,null]",
            "[null,1]",
        ),
        (
            "additionalItems",
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [{"type": "integer"}], "additionalItems": false}),
            "[1]",
            "[1,2]",
        ),
        (
            "minItems",
            json!({"type": "array", "items": {"type": "null"}, "minItems": 2}),
            "[null,null]",
            "[null]",
        ),
        (
            "maxItems",
            json!({"type": "array", "items": {"type": "null"}, "maxItems": 1}),
            "[null]",
            "[null,null]",
        ),
        ("minLength", json!({"type": "string", "minLength": 2}), "\"äb\"", "\"ä\""),
        ("maxLength", json!({"type": "string", "maxLength": 2}), "\"äb\"", "\"äbc\""),
        ("pattern", json!({"type": "string", "pattern": "^[a-c]+$"}), "\"abc\"", "\"abd\""),
        ("format", json!({"type": "string", "format": "date"}), "\"2024-02-29\"", "\"2024-02-30\""),
        ("minimum", json!({"type": "integer", "minimum": -3}), "-3", "-4"),
        ("maximum", json!({"type": "number", "maximum": 2.5}), "2.5", "2.6"),
        ("exclusiveMinimum", json!({"type": "integer", "exclusiveMinimum": 3}), "4", "3"),
        ("exclusiveMaximum", json!({"type": "integer", "exclusiveMaximum": 30}), "29", "30"),
        ("multipleOf", json!({"type": "integer", "multipleOf": 7, "minimum": 0}), "21", "22"),
        ("anyOf", json!({"anyOf": [{"const": 1}, {"const": "x"}]}), "\"x\"", "2"),
        (
            "allOf",
            json!({"allOf": [{"type": "string", "minLength": 2}, {"maxLength": 3}]}),
            "\"abc\"",
            "\"abcd\"",
        ),
        ("oneOf", json!({"oneOf": [{"type": "integer"}, {"type": "string"}]}), "7", "null"),
        ("$ref", json!({"$ref": "#/$defs/x", "$defs": {"x": {"const": 5}}}), "5", "6"),
        (
            "$defs",
            json!({"$defs": {"x": {"type": "null"}}, "type": "array", "items": {"$ref": "#/$defs/x"}}),
            "[null]",
            "[1]",
        ),
        (
            "definitions",
            json!({"definitions": {"x": {"type": "null"}}, "type": "array", "items": {"$ref": "#/definitions/x"}}),
            "[null]",
            "[1]",
        ),
    ]
}

const FORMATS: [(&str, &str, &str); 10] = [
    ("date-time", "2024-05-06T07:08:09Z", "2024-05-06 07:08"),
    ("time", "07:08:09Z", "25:08:09Z"),
    ("date", "2024-12-31", "2024-13-01"),
    ("duration", "P1DT2H", "1D"),
    ("email", "a.b@example.com", "a.b.example.com"),
    ("hostname", "a-b.example", "-a.example"),
    ("ipv4", "192.168.0.1", "256.1.1.1"),
    ("ipv6", "2001:db8::1", "2001:db8::g"),
    ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456"),
    ("uri", "https://example.com/a?b=c", "no uri"),
];

fn refused() -> Vec<(&'static str, Value)> {
    vec![
        ("not", json!({"type": "null"})),
        ("if", json!({"type": "null"})),
        ("then", json!({"type": "null"})),
        ("else", json!({"type": "null"})),
        ("uniqueItems", json!(true)),
        ("contains", json!({"type": "null"})),
        ("minContains", json!(1)),
        ("maxContains", json!(1)),
        ("unevaluatedItems", json!(false)),
        ("propertyNames", json!({"maxLength": 3})),
        ("dependencies", json!({"a": ["b"]})),
        ("dependentRequired", json!({"a": ["b"]})),
        ("dependentSchemas", json!({"a": {"required": ["b"]}})),
        ("unevaluatedProperties", json!(false)),
        ("$dynamicRef", json!("#x")),
        ("$dynamicAnchor", json!("x")),
        ("$recursiveRef", json!("#")),
        ("$recursiveAnchor", json!(true)),
        ("$vocabulary", json!({})),
        ("contentSchema", json!({"type": "object"})),
        ("divisibleBy", json!(2)),
        ("disallow", json!("null")),
        ("extends", json!({})),
    ]
}

const IGNORED: [&str; 10] = [
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$comment",
    "$schema",
    "$id",
];

#[test]
fn held_keywords_let_the_valid_through_and_nothing_else() {
    for (keyword, schema, valid, invalid) in held() {
        check_schema(&schema).unwrap_or_else(|error| panic!("{keyword}: {error}"));
        assert!(accepts(&schema, valid), "{keyword}: {valid} was not possible under {schema}");
        assert!(!accepts(&schema, invalid), "{keyword}: {invalid} was possible under {schema}");
        // an independent validator agrees with the case itself
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        assert!(validator.is_valid(&serde_json::from_str(valid).unwrap()), "{keyword}");
        assert!(!validator.is_valid(&serde_json::from_str(invalid).unwrap()), "{keyword}");
    }
    for (format, valid, invalid) in FORMATS {
        let schema = json!({"type": "string", "format": format});
        check_schema(&schema).unwrap();
        assert!(accepts(&schema, &json!(valid).to_string()), "{format}: {valid}");
        assert!(!accepts(&schema, &json!(invalid).to_string()), "{format}: {invalid}");
    }
}

#[test]
fn refused_keywords_are_named_with_their_path() {
    for (keyword, value) in refused() {
        let schema = json!({"type": "object", "properties": {"a": {keyword: value}}});
        let error = check_schema(&schema).expect_err(keyword).to_string();
        assert!(error.starts_with(&format!("/properties/a/{keyword}: ")), "{keyword}: {error}");
    }
    for (what, schema) in [
        ("branches that overlap", json!({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]})),
        ("another document", json!({"$ref": "other.json#/a"})),
        ("another format", json!({"type": "string", "format": "iri"})),
        ("a contradiction", json!({"allOf": [{"type": "string"}, {"type": "integer"}]})),
        ("look-around", json!({"type": "string", "pattern": "(?!a)b"})),
        (
            "optional properties counted",
            json!({"type": "object", "properties": {"a": {"type": "null"}}, "minProperties": 1}),
        ),
    ] {
        assert!(check_schema(&schema).is_err(), "{what} was accepted");
    }
}

#[test]
fn ignored_keywords_change_nothing() {
    for keyword in IGNORED {
        let value = match keyword {
            "examples" => json!([1]),
            "deprecated" | "readOnly" | "writeOnly" => json!(true),
            "$schema" => json!("https://json-schema.org/draft/2020-12/schema"),
            "$id" => json!("https://example.com/a.json"),
            _ => json!("a word"),
        };
        let schema = json!({keyword: value, "type": "integer", "minimum": 0});
        check_schema(&schema).unwrap_or_else(|error| panic!("{keyword}: {error}"));
        assert!(accepts(&schema, "5") && !accepts(&schema, "-5"), "{keyword}");
    }
}

#[test]
fn the_table_names_every_keyword_of_these_cases_and_no_other() {
    let head = include_str!("../../src/engine/grammar/mod.rs");
    let mut listed = BTreeSet::new();
    let mut outcome = std::collections::BTreeMap::new();
    for row in head.lines().filter_map(|line| line.strip_prefix("//! | `")) {
        let (words, what) = row.split_once('|').unwrap();
        for word in words.split(['`', ' ']).filter(|word| !word.is_empty()) {
            listed.insert(word);
            outcome.insert(word, what.split_whitespace().next().unwrap());
        }
    }
    let mut tested: BTreeSet<&str> = held().iter().map(|(keyword, ..)| *keyword).collect();
    tested.extend(refused().iter().map(|(keyword, _)| *keyword));
    tested.extend(IGNORED);
    assert_eq!(listed, tested);
    assert!(refused().iter().all(|(keyword, _)| outcome[keyword] == "refused"));
    let formats = head.lines().find(|line| line.starts_with("//! | `format`")).unwrap();
    assert!(FORMATS.iter().all(|(format, ..)| formats.contains(&format!("`{format}`"))));
}
