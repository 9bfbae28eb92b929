//! Workloads of whole extraction tasks: prompts and schemas are the service's own.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::domain::job::Class;
use crate::domain::task::Task;
use crate::wire::submit::{Format, Generation, JobRequest, Source};

/// Columns of each table of the `attribute` workload, hence of each of its items.
const COLUMNS: usize = 8;

/// Describe `n` tables' columns under schemas that name them.
pub fn attribute(n: usize, model: Option<&str>) -> JobRequest {
    request(Task::Attribute, Format::Catalog, catalog(n).to_string(), model)
}

/// Extract from `n` short letters.
pub fn custom(n: usize, model: Option<&str>) -> JobRequest {
    let instructions =
        "Read the letter. Say what the customer wants, how urgent it is, and name the product.";
    JobRequest {
        schema: Some(letter_schema()),
        instructions: Some(instructions.to_string()),
        ..request(Task::Custom, Format::Jsonl, letters(n), model)
    }
}

fn request(task: Task, format: Format, text: String, model: Option<&str>) -> JobRequest {
    JobRequest {
        task,
        model: model.map(Into::into),
        schema: None,
        instructions: None,
        generation: Generation::default(),
        class: Class::Normal,
        weight: None,
        expires_in_s: None,
        review_below: None,
        inputs: None,
        source: Some(Source { format, text, dialect: None, lenient: false }),
    }
}

const NOUNS: [&str; 12] = [
    "order", "invoice", "shipment", "customer", "payment", "product", "supplier", "ticket", "contract",
    "visit", "device", "reading",
];
const FIELDS: [(&str, &str); 12] = [
    ("name", "varchar(80)"),
    ("created_at", "timestamptz"),
    ("total_cents", "integer"),
    ("status", "varchar(16)"),
    ("email", "varchar(120)"),
    ("is_active", "boolean"),
    ("weight_kg", "numeric(8,3)"),
    ("country_code", "char(2)"),
    ("note", "text"),
    ("due_on", "date"),
    ("quantity", "integer"),
    ("reference_no", "varchar(24)"),
];

/// `n` tables of [`COLUMNS`] columns each, no two alike.
fn catalog(n: usize) -> Value {
    let tables: Vec<Value> = (0..n)
        .map(|at| {
            let name = format!("{}_{:04}", NOUNS[at % NOUNS.len()], at);
            let id = json!({"name": format!("{}_id", NOUNS[at % NOUNS.len()]), "data_type": "bigint", "nullable": false});
            let rest = (1..COLUMNS).map(|c| {
                let (field, data_type) = FIELDS[(at * 5 + c) % FIELDS.len()];
                json!({"name": field, "data_type": data_type, "nullable": (at + c) % 3 == 0})
            });
            json!({"name": name, "columns": std::iter::once(id).chain(rest).collect::<Vec<_>>(),
                   "primary_key": [format!("{}_id", NOUNS[at % NOUNS.len()])]})
        })
        .collect();
    json!({"tables": tables})
}

fn letters(n: usize) -> String {
    let products = ["desk lamp", "oak shelf", "bread maker", "rain jacket", "travel adapter"];
    let wishes = [
        "arrived with a crack and I would like another one",
        "has not arrived after three weeks, please say where it is",
        "works well, and I want to order two more of the same kind",
        "is not what I expected, so I am sending it back for a refund",
    ];
    (0..n).fold(String::new(), |mut out, at| {
        let text = format!(
            "Letter {at}. Good day, the {} I ordered on day {} {}. Kind regards, customer {}.",
            products[at % products.len()],
            at % 28 + 1,
            wishes[at % wishes.len()],
            1000 + at
        );
        let _ = writeln!(out, "{}", json!({ "text": text }));
        out
    })
}

fn letter_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "intent": {"enum": ["replacement", "tracking", "reorder", "refund"]},
            "urgency": {"enum": ["low", "normal", "high"]},
            "product": {"type": "string"},
            "summary": {"type": "string"}
        },
        "required": ["intent", "urgency", "product", "summary"],
        "additionalProperties": false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_have_as_many_items_as_asked_for() {
        assert_eq!(letters(7).lines().count(), 7);
        let catalog: crate::domain::catalog::Catalog = serde_json::from_value(catalog(9)).unwrap();
        assert_eq!(catalog.tables.len(), 9);
        assert!(catalog.tables.iter().all(|table| table.columns.len() == COLUMNS));
        let mut names: Vec<_> = catalog.tables.iter().map(|table| &table.name).collect();
        names.dedup();
        assert_eq!(names.len(), 9);
    }
}
