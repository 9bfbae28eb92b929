//! Exports read back by parsers of their formats, for tame and hostile models.

use std::collections::BTreeMap;

use adit::domain::fact::DataModel;
use adit::domain::task::Task;
use adit::export::{self, Format};
use oxrdf::Term;
use oxttl::TurtleParser;
use saphyr::{LoadableYamlNode, Yaml};

use crate::catalogs;
use crate::pipeline::run;

/// Tame models, hostile ones, and tame ones with hostile texts.
pub fn models() -> Vec<DataModel> {
    let mut models: Vec<DataModel> = ["shop", "library", "clinic", "legacy"]
        .map(|name| run(Task::DataModel, &catalogs::sample(name), 3, |_| false).0)
        .to_vec();
    models.push(run(Task::Attribute, &catalogs::hostile(), 3, |_| false).0);
    models.push(run(Task::Relationship, &catalogs::hostile(), 3, |n| n == 0).0);
    models.push(run(Task::DataModel, &catalogs::hostile(), 3, |n| n == 1).0);
    let tame = models.clone();
    models.extend(tame.into_iter().map(poisoned));
    models
}

/// Everything that a model may say freely is hostile; what links the facts stays.
pub fn poisoned(mut model: DataModel) -> DataModel {
    let mut texts = catalogs::HOSTILE_NAMES.iter().cycle().map(|text| text.to_string());
    let mut next = || texts.next().unwrap();
    for concept in &mut model.concepts {
        concept.description = next();
    }
    for relationship in &mut model.relationships {
        (relationship.name, relationship.description) = (next(), next());
    }
    for attribute in &mut model.attributes {
        (attribute.name, attribute.description) = (next(), next());
    }
    model
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

/// A spreadsheet's guard aside, every cell is what the model says.
#[test]
fn csv_cells_are_the_facts() {
    for model in models() {
        let text = export::csv::write(&model);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        let cell = |row: &csv::StringRecord, at: usize| match row[at].strip_prefix('\'') {
            Some(rest) if rest.starts_with(['=', '+', '-', '@', '\t', '\r']) => rest.to_string(),
            _ => row[at].to_string(),
        };
        let of = |fact: &str| rows.iter().filter(|row| &row[0] == fact).collect::<Vec<_>>();
        for (row, concept) in of("concept").into_iter().zip(&model.concepts) {
            assert_eq!((cell(row, 1), cell(row, 12)), (concept.name.clone(), concept.description.clone()));
        }
        for (row, attribute) in of("attribute").into_iter().zip(&model.attributes) {
            let expected = (attribute.source_table.clone(), attribute.source_column.clone());
            assert_eq!((cell(row, 7), cell(row, 8)), expected);
        }
    }
}

/// The part of Mermaid's grammar that is ours: an entity, its attributes, a relationship; each on one line.
#[test]
fn mermaid_obeys_its_grammar() {
    for model in models() {
        let text = export::mermaid::write(&model);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("erDiagram"));
        let (mut entities, mut attributes, mut links, mut inside) = (Vec::new(), 0, 0, false);
        for line in lines {
            let words: Vec<&str> = line.trim_start().splitn(4, ' ').collect();
            if inside && line == "    }" {
                inside = false;
            } else if inside {
                let rest = line.strip_prefix("        ").unwrap();
                let (head, label) = rest.split_once(" \"").unwrap();
                check_label(label.strip_suffix('"').unwrap());
                let head: Vec<&str> = head.split(' ').collect();
                assert!(head.len() == 2 || (head.len() == 3 && ["PK", "UK"].contains(&head[2])), "{line}");
                assert!(head[..2].iter().all(|word| is_word(word)), "{line}");
                attributes += 1;
            } else if let Some((id, rest)) = line.trim_start().split_once("[\"") {
                assert!(is_word(id), "{line}");
                let (label, rest) = rest.rsplit_once("\"]").unwrap();
                check_label(label);
                inside = rest == " {";
                assert!(inside || rest.is_empty(), "{line}");
                entities.push(id);
            } else {
                let [from, arrow, to, label] = words[..] else { panic!("{line}") };
                assert!(["|o--||", "|o--o|", "}o--||", "}o--o|"].contains(&arrow), "{line}");
                assert!(entities.contains(&from) && entities.contains(&to), "{line}");
                check_label(label.strip_prefix(": \"").unwrap().strip_suffix('"').unwrap());
                links += 1;
            }
        }
        assert!(!inside);
        assert_eq!(
            (entities.len(), attributes, links),
            (model.concepts.len(), model.attributes.len(), model.relationships.len())
        );
    }
}

fn is_word(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Not empty, and nothing that Mermaid or HTML would read as syntax but entity codes.
fn check_label(label: &str) {
    assert!(!label.trim().is_empty());
    let mut rest = label;
    while let Some((before, after)) = rest.split_once('#') {
        assert!(!before.contains(';'), "{label}");
        let (code, after) = after.split_once(';').unwrap();
        assert!(code.parse::<u32>().is_ok(), "{label}");
        rest = after;
    }
    let known = |c: char| !c.is_control() && !"\"<>&;%{}[]\\`*~$:\u{2028}\u{2029}".contains(c);
    assert!(
        rest.chars().all(|c| c != ';' && known(c)) && label.chars().all(|c| c == ';' || known(c)),
        "{label}"
    );
}

/// A scalar as dbt shows it: read by a YAML parser, then rendered as a Jinja template.
fn shown(node: &Yaml) -> String {
    let text = node.as_str().unwrap();
    // dbt leaves alone what has nothing to render
    if !["{{", "{%", "{#"].iter().any(|begin| text.contains(begin)) {
        return text.to_string();
    }
    let env = minijinja::Environment::new();
    env.render_str(text, ()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn dbt_is_yaml_and_renders_to_the_facts() {
    for model in models() {
        let text = export::dbt::write(&model);
        let documents = Yaml::load_from_str(&text).unwrap();
        assert_eq!((documents.len(), documents[0]["version"].as_integer()), (1, Some(2)));
        let list = documents[0]["models"].as_vec().unwrap();
        let (mut at, mut columns, mut references) = (0, 0, 0);
        for concept in &model.concepts {
            for table in &concept.source_tables {
                let entry = &list[at];
                at += 1;
                assert_eq!(&shown(&entry["name"]), table);
                assert_eq!(shown(&entry["description"]), concept.description);
                assert_eq!(shown(&entry["meta"]["concept"]), concept.name);
                let expected: Vec<_> = model.attributes.iter().filter(|a| a.source_table == *table).collect();
                let found = entry.as_mapping_get("columns").and_then(Yaml::as_vec);
                let found = found.map(Vec::as_slice).unwrap_or_default();
                assert_eq!(found.len(), expected.len());
                columns += found.len();
                for (column, attribute) in found.iter().zip(expected) {
                    assert_eq!(shown(&column["name"]), attribute.source_column);
                    assert_eq!(shown(&column["description"]), attribute.description);
                    assert_eq!(shown(&column["meta"]["attribute"]), attribute.name);
                    let tests = column.as_mapping_get("data_tests").and_then(Yaml::as_vec);
                    for test in tests.map(Vec::as_slice).unwrap_or_default() {
                        let Some(test) = test.as_mapping_get("relationships") else { continue };
                        let to = test["to"].as_str().unwrap();
                        assert!(!to.contains(['{', '}', '%', '#']), "{to}");
                        let target = minijinja_value(to);
                        assert!(
                            model
                                .relationships
                                .iter()
                                .any(|r| r.from_table == *table && r.to_table == target)
                        );
                        references += 1;
                    }
                }
            }
        }
        assert_eq!((at, columns), (list.len(), model.attributes.len()));
        let simple =
            model.relationships.iter().filter(|r| r.from_columns.len() == 1 && r.to_columns.len() == 1);
        let simple = simple.filter(|r| {
            model
                .attributes
                .iter()
                .any(|a| a.source_table == r.from_table && a.source_column == r.from_columns[0])
        });
        assert_eq!(references, simple.count());
    }
}

/// `ref('…')` as dbt evaluates it.
fn minijinja_value(expression: &str) -> String {
    let mut env = minijinja::Environment::new();
    env.add_function("ref", |name: String| name);
    let value = env.compile_expression(expression).unwrap().eval(()).unwrap();
    value.as_str().unwrap().to_string()
}

#[test]
fn turtle_is_read_and_labels_are_the_facts() {
    for model in models() {
        let text = export::turtle::write(&model);
        let (mut labels, mut comments, mut types) = (Vec::new(), Vec::new(), BTreeMap::new());
        for triple in TurtleParser::new().for_slice(text.as_bytes()) {
            let triple = triple.unwrap();
            let object = match triple.object {
                Term::Literal(literal) => literal.value().to_string(),
                other => other.to_string(),
            };
            match triple.predicate.as_str().rsplit(['#', '/']).next().unwrap() {
                "label" => labels.push(object),
                "comment" => comments.push(object),
                "type" => *types.entry(object).or_insert(0) += 1,
                _ => {}
            }
        }
        let names = model.concepts.iter().map(|c| (&c.name, &c.description));
        let names = names.chain(model.relationships.iter().map(|r| (&r.name, &r.description)));
        let (names, texts): (Vec<_>, Vec<_>) =
            names.chain(model.attributes.iter().map(|a| (&a.name, &a.description))).unzip();
        assert_eq!(labels.iter().collect::<Vec<_>>(), names);
        let texts: Vec<_> = texts.into_iter().filter(|text| !text.is_empty()).collect();
        assert_eq!(comments.iter().collect::<Vec<_>>(), texts);
        let count = |class: &str| {
            types.get(&format!("<http://www.w3.org/2002/07/owl#{class}>")).copied().unwrap_or(0)
        };
        assert_eq!(
            (count("Class"), count("ObjectProperty"), count("DatatypeProperty")),
            (model.concepts.len(), model.relationships.len(), model.attributes.len())
        );
    }
}
