//! Varied schemas whose answers come to an end, for walks under random logits.

use serde_json::{Value, json};

/// With a name for messages. Together they use every keyword we accept.
pub fn all() -> Vec<(&'static str, Value)> {
    let object = |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    vec![
        ("string", json!({"type": "string"})),
        ("integer", json!({"type": "integer", "minimum": -5, "maximum": 1200})),
        ("number", json!({"type": "number", "minimum": 0, "exclusiveMaximum": 10})),
        ("enum", json!({"enum": ["order", "order_line", "Größe", "a\"quote", 3, null, true]})),
        ("const", json!({"const": {"version": 2, "tags": ["a", "b"]}})),
        (
            "array",
            json!({"type": "array", "items": {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 500}, "minItems": 2, "maxItems": 4}),
        ),
        (
            "tuple",
            json!({"type": "array", "prefixItems": [{"type": "string", "maxLength": 4}, {"type": "boolean"}], "items": false, "minItems": 2}),
        ),
        (
            "object",
            object(
                json!({"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150}}),
                json!(["name", "age"]),
            ),
        ),
        (
            "optional",
            object(
                json!({"a": {"type": "string"}, "b": {"type": "boolean"}, "c": {"type": "null"}}),
                json!(["b"]),
            ),
        ),
        (
            "nested",
            object(
                json!({"outer": object(json!({"inner": object(json!({"leaf": {"type": "string"}}), json!(["leaf"]))}), json!(["inner"]))}),
                json!(["outer"]),
            ),
        ),
        (
            "anyOf",
            json!({"anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, object(json!({"x": {"type": "string"}}), json!(["x"]))]}),
        ),
        (
            "oneOf",
            json!({"oneOf": [object(json!({"kind": {"const": "a"}, "value": {"type": "string"}}), json!(["kind", "value"])), object(json!({"kind": {"const": "b"}, "flag": {"type": "boolean"}}), json!(["kind", "flag"]))]}),
        ),
        ("allOf", json!({"allOf": [{"type": "string", "minLength": 3}, {"maxLength": 8}]})),
        ("pattern", json!({"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"})),
        (
            "formats",
            object(
                json!({"day": {"type": "string", "format": "date"}, "id": {"type": "string", "format": "uuid"}}),
                json!(["day", "id"]),
            ),
        ),
        (
            "reference",
            json!({"$defs": {"point": {"type": "array", "items": {"type": "integer", "minimum": -9, "maximum": 9}, "minItems": 2, "maxItems": 2}}, "type": "array", "items": {"$ref": "#/$defs/point"}, "maxItems": 3}),
        ),
        ("nullable", object(json!({"note": {"type": ["string", "null"]}}), json!(["note"]))),
        ("map", json!({"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 2})),
        (
            "unicode",
            object(
                json!({"straße": {"enum": ["Öl", "日本", "naïve \\ slash"]}, "emoji 😀": {"type": "string"}}),
                json!(["straße", "emoji 😀"]),
            ),
        ),
        ("concept", concept(&["customer", "order", "order_line"])),
        ("relationship", relationship()),
        ("attribute", attribute(&["id", "e_mail", "created at"])),
    ]
}

pub fn concept(tables: &[&str]) -> Value {
    let entries: Vec<Value> = tables
        .iter()
        .map(|table| {
            json!({"type": "object", "additionalProperties": false,
                "properties": {
                    "table": {"const": table},
                    "kind": {"enum": ["entity", "association", "lookup", "event", "technical"]},
                    "concept": {"type": "string", "minLength": 1},
                    "description": {"type": "string"}
                },
                "required": ["table", "kind", "concept", "description"]})
        })
        .collect();
    let n = entries.len();
    json!({"type": "object", "additionalProperties": false, "required": ["concepts"],
        "properties": {"concepts": {"type": "array", "prefixItems": entries, "items": false, "minItems": n, "maxItems": n}}})
}

pub fn relationship() -> Value {
    json!({"type": "object", "additionalProperties": false, "required": ["declared", "inferred"],
        "properties": {
            "declared": {"type": "array", "minItems": 1, "maxItems": 1, "items": false, "prefixItems": [
                {"type": "object", "additionalProperties": false, "required": ["from", "to", "name"],
                 "properties": {"from": {"const": "order"}, "to": {"const": "customer"}, "name": {"type": "string", "minLength": 1}}}]},
            "inferred": {"type": "array", "maxItems": 2, "items":
                {"type": "object", "additionalProperties": false, "required": ["from", "to", "via", "cardinality"],
                 "properties": {
                    "from": {"enum": ["order", "order_line", "customer"]},
                    "to": {"enum": ["order", "order_line", "customer"]},
                    "via": {"enum": ["order_id", "customer_id", "sku"]},
                    "cardinality": {"enum": ["one_to_one", "many_to_one", "many_to_many"]}}}}}})
}

pub fn attribute(columns: &[&str]) -> Value {
    let entries: Vec<Value> = columns
        .iter()
        .map(|column| {
            json!({"type": "object", "additionalProperties": false,
                "properties": {
                    "column": {"const": column},
                    "attribute": {"type": "string", "minLength": 1},
                    "type": {"enum": ["identifier", "name", "amount", "date", "text", "code", "flag"]},
                    "description": {"type": "string"}
                },
                "required": ["column", "attribute", "type", "description"]})
        })
        .collect();
    let n = entries.len();
    json!({"type": "object", "additionalProperties": false, "required": ["attributes"],
        "properties": {"attributes": {"type": "array", "prefixItems": entries, "items": false, "minItems": n, "maxItems": n}}})
}
