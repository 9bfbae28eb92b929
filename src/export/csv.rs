//! One row per fact, RFC 4180, one header. A cell that a spreadsheet would run as a formula gets a leading
//! apostrophe.

use ::csv::{Terminator, WriterBuilder};

use crate::domain::confidence::Confidence;
use crate::domain::fact::DataModel;

const HEADER: [&str; 15] = [
    "fact",
    "name",
    "concept",
    "type",
    "to",
    "cardinality",
    "required",
    "source_table",
    "source_columns",
    "to_table",
    "to_columns",
    "source",
    "confidence",
    "review",
    "description",
];

pub fn write(model: &DataModel) -> String {
    let mut rows: Vec<[String; 15]> = vec![HEADER.map(String::from)];
    for c in &model.concepts {
        rows.push(row(&[
            "concept",
            &c.name,
            &c.name,
            c.kind.as_str(),
            "",
            "",
            "",
            &list(&c.source_tables),
            "",
            "",
            "",
            c.source.as_str(),
            &confidence(c.confidence),
            yes(c.review),
            &c.description,
        ]));
    }
    for r in &model.relationships {
        rows.push(row(&[
            "relationship",
            &r.name,
            &r.from,
            "",
            &r.to,
            r.cardinality.as_str(),
            yes(r.required),
            &r.from_table,
            &list(&r.from_columns),
            &r.to_table,
            &list(&r.to_columns),
            r.source.as_str(),
            &confidence(r.confidence),
            yes(r.review),
            &r.description,
        ]));
    }
    for a in &model.attributes {
        rows.push(row(&[
            "attribute",
            &a.name,
            &a.concept,
            a.meaning.as_str(),
            "",
            "",
            yes(a.required),
            &a.source_table,
            &a.source_column,
            "",
            "",
            a.source.as_str(),
            &confidence(a.confidence),
            yes(a.review),
            &a.description,
        ]));
    }
    for u in &model.uncovered {
        let reason = match u.code {
            Some(code) => format!("{} ({code})", u.reason.as_str()),
            None => u.reason.as_str().to_string(),
        };
        rows.push(row(&[
            "uncovered",
            "",
            "",
            u.what.as_str(),
            "",
            "",
            "",
            &u.table,
            &list(&u.columns),
            "",
            "",
            "",
            "",
            "",
            &reason,
        ]));
    }
    let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
    for row in rows {
        writer.write_record(&row).expect("rows of one length go to memory");
    }
    let bytes = writer.into_inner().expect("memory takes every write");
    String::from_utf8(bytes).expect("cells are UTF-8")
}

fn confidence(confidence: Option<Confidence>) -> String {
    confidence.map(|known| known.to_string()).unwrap_or_default()
}

fn row(cells: &[&str; 15]) -> [String; 15] {
    cells.map(|cell| {
        let runs = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
        if runs { format!("'{cell}") } else { cell.to_string() }
    })
}

/// Names in one cell, as a JSON list where there are several: a name may hold any separator.
fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        many => serde_json::to_string(many).expect("strings are JSON"),
    }
}

fn yes(flag: bool) -> &'static str {
    if flag { "true" } else { "false" }
}
