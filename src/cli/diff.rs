//! `adit diff`: what a job found beside the job that it was made from.

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use super::args::Global;
use super::exit::Exit;
use super::jobs;
use super::output::{connect, print, print_json};
use super::report::{self, Style, rows};
use crate::wire::difference::{Difference, FactKey};
use crate::wire::job::Job;

pub async fn run(global: &Global, job: &str) -> Result<Exit> {
    let difference = connect(global)?.difference(jobs::parse(job)?).await?;
    if global.is_json() {
        print_json(&difference)?;
    } else {
        print(text(&difference, global.style()))?;
    }
    Ok(Exit::Done)
}

/// A job that was watched to its end, with the difference in the same document.
#[derive(Serialize)]
struct Compared<'a> {
    #[serde(flatten)]
    job: &'a Job,
    difference: &'a Difference,
}

pub fn show_with_job(global: &Global, job: &Job, difference: &Difference) -> Result<Exit> {
    if global.is_json() {
        print_json(&Compared { job, difference })?;
    } else {
        print(format_args!("{}{}", report::job(job), text(difference, global.style())))?;
    }
    Ok(jobs::verdict(job))
}

/// A row for each table and fact, and for each field of a changed fact. For people with the counts.
fn text(difference: &Difference, style: Style) -> String {
    let tables = &difference.tables;
    let named = [("added", &tables.added), ("removed", &tables.removed), ("changed", &tables.changed)];
    let of_tables = named.into_iter().flat_map(|(change, names)| {
        names.iter().map(move |name| row(change, "table", name.clone(), name.clone(), None))
    });
    let mut list: Vec<[String; 7]> = of_tables.collect();
    let whole = [
        ("added", &difference.added),
        ("removed", &difference.removed),
        ("unanswered", &difference.unanswered),
    ];
    for (change, facts) in whole {
        list.extend(facts.iter().map(|fact| of_fact(change, &fact.key, None)));
    }
    for fact in &difference.changed {
        let of_field = |field: &crate::wire::difference::FieldChange| {
            of_fact("changed", &fact.key, Some((&field.field, &field.before, &field.now)))
        };
        list.extend(fact.fields.iter().map(of_field));
    }
    if style == Style::Plain {
        return rows(style, &[], list.into_iter());
    }
    let counts = &difference.counts;
    let mut out = format!(
        "tables  {} unchanged, {} changed, {} added, {} removed\nfacts   {} unchanged, {} changed, {} added, {} removed",
        counts.tables_unchanged,
        counts.tables_changed,
        counts.tables_added,
        counts.tables_removed,
        counts.facts_unchanged,
        counts.facts_changed,
        counts.facts_added,
        counts.facts_removed,
    );
    if counts.facts_unanswered > 0 {
        out.push_str(&format!(", {} unanswered", counts.facts_unanswered));
    }
    out.push('\n');
    if !list.is_empty() {
        let head = ["change", "what", "name", "rests on", "field", "before", "now"];
        out.push_str(&rows(style, &head, list.into_iter()));
    }
    out
}

type FieldOf<'a> = Option<(&'a String, &'a Value, &'a Value)>;

fn of_fact(change: &str, key: &FactKey, field: FieldOf) -> [String; 7] {
    let end = |table: &str, columns: &[String]| match columns {
        [] => table.to_string(),
        [one] => format!("{table}.{one}"),
        many => format!("{table}({})", many.join(", ")),
    };
    let from = match key.tables.as_slice() {
        [one] => end(one, &key.columns),
        many => many.join(", "),
    };
    let rests_on = match &key.to_table {
        Some(to) => format!("{from} -> {}", end(to, &key.to_columns)),
        None => from,
    };
    row(change, key.kind.as_str(), key.name.clone(), rests_on, field)
}

fn row(change: &str, what: &str, name: String, rests_on: String, field: FieldOf) -> [String; 7] {
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), String::from);
    let (field, before, now) = match field {
        Some((field, before, now)) => (field.clone(), shown(before), shown(now)),
        None => Default::default(),
    };
    [change.into(), what.into(), name, rests_on, field, before, now]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::difference::{ChangedFact, DifferenceCounts, FactKind, FieldChange, TableChanges};
    use uuid::Uuid;

    #[test]
    fn plain_lines_hold_everything_and_nothing_else() {
        let key = FactKey {
            kind: FactKind::Relationship,
            name: "has customer".into(),
            tables: vec!["orders".into()],
            columns: vec!["customer_id".into()],
            to_table: Some("customers".into()),
            to_columns: vec!["id".into()],
        };
        let required =
            FieldChange { field: "required".into(), before: Value::Bool(false), now: Value::Bool(true) };
        let difference = Difference {
            job: Uuid::nil(),
            since: Uuid::nil(),
            counts: DifferenceCounts { tables_changed: 1, ..Default::default() },
            tables: TableChanges { changed: vec!["orders".into()], ..Default::default() },
            added: Vec::new(),
            removed: Vec::new(),
            changed: vec![ChangedFact { key, fields: vec![required] }],
            unanswered: Vec::new(),
        };
        assert_eq!(
            text(&difference, Style::Plain),
            "changed\ttable\torders\torders\t\t\t\n\
             changed\trelationship\thas customer\torders.customer_id -> customers.id\trequired\tfalse\ttrue\n"
        );
        assert!(text(&difference, Style::Table).contains("0 unchanged, 1 changed"));
    }
}
