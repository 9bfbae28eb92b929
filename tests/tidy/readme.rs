//! The README's tables against the code: settings, error codes, metrics, names in the environment.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use adit::config::settings::Settings;
use adit::domain::code::Code;
use adit::telemetry::metric::Metric;
use serde_json::Value;

pub fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// `section.key` and its default, for everything but the list of models.
fn defaults() -> Vec<(String, String)> {
    let mut found = Vec::new();
    flatten("", &serde_json::to_value(Settings::default()).unwrap(), &mut found);
    assert!(found.len() > 40, "{found:?}");
    found
}

fn flatten(prefix: &str, value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{key}"), value, found);
            }
        }
        Value::Array(_) => {}
        Value::Null => found.push((prefix.into(), "none".into())),
        Value::String(text) => found.push((prefix.into(), text.clone())),
        other => found.push((prefix.into(), other.to_string())),
    }
}

/// First cells of the table under `heading`.
fn first_cells<'a>(readme: &'a str, heading: &str) -> Vec<&'a str> {
    let (_, section) = readme.split_once(heading).unwrap_or_else(|| panic!("no '{heading}'"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split_once('`').map(|(cell, _)| cell)).collect()
}

/// Names that the program reads from its environment, from the places that read it.
pub fn environment_names() -> BTreeSet<String> {
    let (load, args) = (read("src/config/load.rs"), read("src/cli/args.rs"));
    let load = load.split("#[cfg(test)]").next().unwrap();
    let between = |text: &str, open: &str| -> Vec<String> {
        text.split(open).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_string())).collect()
    };
    let mut names: BTreeSet<String> = between(load, "get(\"").into_iter().collect();
    names.extend(between(&args, "env = \""));
    for prefix in ["CONCEPT", "RELATIONSHIP", "ATTRIBUTE"] {
        assert!(load.contains(&format!("\"{prefix}\"")));
        names.extend([format!("{prefix}_MODEL_PATH"), format!("{prefix}_ADAPTER_PATH")]);
    }
    assert!(names.len() > 15 && names.contains("DATABASE_URL"), "{names:?}");
    names
}

pub fn is_variable(word: &str) -> bool {
    word.len() > 3
        && word.contains('_')
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

#[test]
fn every_setting_stands_in_the_readme_with_its_default() {
    let readme = read("README.md");
    let known = defaults();
    let rows = known.iter().map(|(key, default)| format!("| `{key}` | `{default}` |"));
    let missing: Vec<String> = rows.filter(|row| !readme.contains(row)).collect();
    assert!(missing.is_empty(), "rows that README.md lacks:\n{}", missing.join("\n"));
    let odd = first_cells(&readme, "## Settings");
    let odd: Vec<&&str> = odd.iter().filter(|key| !known.iter().any(|(name, _)| name == **key)).collect();
    assert!(odd.is_empty(), "no such setting: {odd:?}");
}

#[test]
fn every_error_code_stands_in_the_readme_with_its_status() {
    let readme = read("README.md");
    let row = |code: &Code| {
        let again = if code.is_retryable() { "yes" } else { "no" };
        format!("| `{code}` | {} | {again} | {} |", code.status(), code.about())
    };
    let missing: Vec<String> = Code::ALL.iter().map(row).filter(|row| !readme.contains(row)).collect();
    assert!(missing.is_empty(), "rows that README.md lacks:\n{}", missing.join("\n"));
    let listed = first_cells(&readme, "## HTTP");
    let odd: Vec<&&str> = listed.iter().filter(|word| word.parse::<Code>().is_err()).collect();
    assert!(odd.is_empty(), "no such code: {odd:?}");
}

#[test]
fn every_metric_stands_in_the_readme() {
    let readme = read("README.md");
    let row = |metric: &Metric| format!("| `{}` | {} |", metric.name(), metric.about());
    let missing: Vec<String> = Metric::ALL.iter().map(row).filter(|row| !readme.contains(row)).collect();
    assert!(missing.is_empty(), "rows that README.md lacks:\n{}", missing.join("\n"));
}

#[test]
fn names_in_the_environment_are_those_that_are_read() {
    let readme = read("README.md");
    let names = environment_names();
    let missing: Vec<&String> = names.iter().filter(|name| !readme.contains(&format!("`{name}"))).collect();
    assert!(missing.is_empty(), "not in README.md: {missing:?}");
    let words = readme.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let said: BTreeSet<&str> = words.filter(|word| is_variable(word)).collect();
    // read by others, and by build/lazy.h
    let others = ["POSTGRES_PASSWORD", "ADIT_CUDA_LIBRARIES"];
    let odd: Vec<&&str> =
        said.iter().filter(|word| !names.contains(**word) && !others.contains(word)).collect();
    assert!(odd.is_empty(), "nobody reads {odd:?}");
}
