//! Exports read back by parsers of their formats, for tame and hostile models.

use adit::domain::fact::DataModel;
use adit::domain::task::Task;
use adit::export::{self, Format};

use crate::catalogs;
use crate::pipeline::run;

fn models() -> Vec<DataModel> {
    let mut models: Vec<DataModel> = ["shop", "library", "clinic", "legacy"]
        .map(|name| run(Task::DataModel, &catalogs::sample(name), 3, |_| false).0)
        .to_vec();
    models.push(run(Task::Attribute, &catalogs::hostile(), 3, |_| false).0);
    models.push(run(Task::Relationship, &catalogs::hostile(), 3, |n| n == 0).0);
    models.push(run(Task::DataModel, &catalogs::hostile(), 3, |n| n == 1).0);
    models
}

#[test]
fn exports_are_deterministic() {
    for (a, b) in models().iter().zip(models()) {
        for format in Format::ALL {
            assert_eq!(format.write(a), format.write(&b), "{}", format.as_str());
        }
    }
}

#[test]
fn json_reads_back() {
    for model in models() {
        assert_eq!(serde_json::from_str::<DataModel>(&export::json::write(&model)).unwrap(), model);
    }
}

#[test]
fn csv_reads_back_and_runs_no_formula() {
    for model in models() {
        let text = export::csv::write(&model);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        let facts =
            model.concepts.len() + model.relationships.len() + model.attributes.len() + model.uncovered.len();
        assert_eq!(rows.len(), facts);
        assert!(rows.iter().flatten().all(|cell| !cell.starts_with(['=', '+', '-', '@'])));
    }
}

/// One line per statement, and quotes only around labels.
#[test]
fn mermaid_lines_are_of_known_form() {
    for model in models() {
        let text = export::mermaid::write(&model);
        assert!(text.starts_with("erDiagram\n"));
        let links = text.lines().filter(|l| l.contains("--")).count();
        assert!(links >= model.relationships.len());
        for line in text.lines().skip(1).filter(|l| l.trim() != "}") {
            assert_eq!(line.matches('"').count(), 2, "{line}");
            let outside: String = line.split('"').step_by(2).collect();
            let known = |c: char| c.is_ascii_alphanumeric() || " _[]{}|o-:".contains(c);
            assert!(outside.chars().all(known), "{line}");
        }
    }
}

/// Every scalar that is not a word of ours is a JSON string, and nothing else breaks a line.
#[test]
fn dbt_scalars_are_quoted() {
    for model in models() {
        let text = export::dbt::write(&model);
        for line in text.lines() {
            let line = line.trim_start().trim_start_matches("- ");
            let value = line.split_once(": ").map_or("", |(_, value)| value);
            let ours =
                value.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '2' || c == '[' || c == ']');
            assert!(ours || serde_json::from_str::<String>(value).is_ok(), "{line}");
        }
        assert_eq!(text.matches("  - name: ").count() - text.matches("      - name: ").count(), {
            model.concepts.iter().map(|c| c.source_tables.len()).sum::<usize>()
        });
    }
}

#[test]
fn turtle_literals_are_closed_on_their_line() {
    for model in models() {
        let text = export::turtle::write(&model);
        assert_eq!(text.matches("a owl:Class").count(), model.concepts.len());
        for line in text.lines() {
            let mut inside = false;
            let mut escaped = false;
            for c in line.chars() {
                match c {
                    _ if escaped => escaped = false,
                    '\\' => escaped = true,
                    '"' => inside = !inside,
                    _ => {}
                }
            }
            assert!(!inside && !escaped, "{line}");
        }
    }
}
