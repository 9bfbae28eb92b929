//! The house rules, read off the source text: layers, where crates may be named, heads, sizes.
#![allow(clippy::unwrap_used)]

#[path = "tidy/container.rs"]
mod container;
#[path = "tidy/grafana.rs"]
mod grafana;
#[path = "tidy/readme.rs"]
mod readme;

use std::fs;
use std::path::{Path, PathBuf};

/// Rows of the layer table, lowest first. A module may name modules of rows below its own.
const ROWS: [&[&str]; 9] = [
    &["domain", "clock", "shutdown", "telemetry"],
    &["config", "extract", "export", "nn", "wire"],
    &["store", "engine"],
    &["queue", "models"],
    &["worker"],
    &["api", "client"],
    &["app"],
    &["cli"],
    &["main"],
];

/// Crate → prefixes of the files that may name it.
const HOMES: [(&str, &[&str]); 19] = [
    ("opentelemetry", &["telemetry/trace.rs"]),
    ("ratatui", &["cli/"]),
    ("sqlx", &["store/"]),
    ("apalis", &["queue/"]),
    ("apalis_core", &["queue/"]),
    ("axum", &["api/"]),
    ("hyper", &["api/serve.rs"]),
    ("hyper_util", &["api/serve.rs"]),
    ("tower_http", &["api/"]),
    ("utoipa", &["api/", "wire/"]),
    ("candle_core", &["nn/", "engine/executor/", "models/"]),
    ("tokenizers", &["models/"]),
    ("hf_hub", &["models/"]),
    ("toktrie_hf_tokenizers", &["models/"]),
    ("llguidance", &["engine/grammar/"]),
    ("clap", &["cli/"]),
    ("reqwest", &["client/"]),
    ("sqlparser", &["extract/source/"]),
    ("anyhow", &["app/", "cli/", "main.rs"]),
];

/// What a module must not name although its row would let it.
const NEVER: [(&str, &[&str]); 6] = [
    ("api", &["engine", "nn"]),
    ("models", &["store"]),
    ("queue", &["engine", "nn"]),
    ("store", &["nn"]),
    ("client", &["store", "engine", "models", "queue", "worker", "nn"]),
    ("engine", &["wire", "extract", "export"]),
];

struct Source {
    /// Relative to `src/`, with `/`.
    path: String,
    /// Without comments, string contents and test modules.
    code: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    assert!(files.len() > 20, "the source tree was not found");
    files
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            let path = file.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
            Source { path, code: code_only(&text), text }
        })
        .collect()
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Drops line comments, blanks string literals, and ends at the file's own test module.
fn code_only(text: &str) -> String {
    let body = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text);
    let mut out = String::new();
    for line in body.lines() {
        let line = line.replace("'\"'", "' '");
        let mut chars = line.chars().peekable();
        let mut in_string = false;
        while let Some(c) = chars.next() {
            match c {
                '"' => in_string = !in_string,
                '\\' if in_string => {
                    chars.next();
                }
                '/' if !in_string && chars.peek() == Some(&'/') => break,
                _ if in_string => {}
                _ => out.push(c),
            }
        }
        out.push('\n');
    }
    out
}

fn module_of(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

fn row_of(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// Top-level modules of our own crate named in `code`.
fn modules_named(code: &str) -> Vec<String> {
    let mut named = Vec::new();
    for prefix in ["crate::", "adit::"] {
        for (at, _) in code.match_indices(prefix) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(group) => named.extend(heads_of_group(group)),
                None => named.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()),
            }
        }
    }
    named.retain(|word| row_of(word).is_some());
    named.sort();
    named.dedup();
    named
}

/// `domain::id, store::{Store, page}}…` → `domain`, `store`.
fn heads_of_group(group: &str) -> Vec<String> {
    let mut heads = vec![String::new()];
    let mut depth = 1;
    let mut in_head = true;
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && c == ',' {
            in_head = true;
            heads.push(String::new());
        } else if c.is_alphanumeric() || c == '_' {
            if in_head {
                heads.last_mut().unwrap().push(c);
            }
        } else if !c.is_whitespace() {
            in_head = false;
        }
    }
    heads
}

#[test]
fn modules_import_only_from_rows_below() {
    let mut wrong = Vec::new();
    for source in sources() {
        let module = module_of(&source.path);
        if module == "lib" {
            continue;
        }
        let row = row_of(module).unwrap_or_else(|| panic!("{}: no row in the layer table", source.path));
        for named in modules_named(&source.code) {
            let named_row = row_of(&named).unwrap();
            let sideways = named != module && named_row == row && row != 0;
            if named_row > row || sideways {
                wrong.push(format!("{} names {named}", source.path));
            }
            if NEVER.iter().any(|(who, what)| *who == module && what.contains(&named.as_str())) {
                wrong.push(format!("{} must never name {named}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn crates_are_named_only_at_home() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, homes) in HOMES {
            let named = source.code.match_indices(name).any(|(at, _)| {
                let before = source.code[..at].chars().next_back();
                let after = &source.code[at + name.len()..];
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '.')
                    && after.starts_with("::")
            });
            if named && !homes.iter().any(|home| source.path.starts_with(home)) {
                wrong.push(format!("{} names {name}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn doors_to_the_outside_are_few() {
    // what → the one place that may do it
    let doors: [(&str, &[&str]); 6] = [
        ("println!", &["cli/"]),
        ("print!(", &["cli/"]),
        // the search path belongs to finding PostgreSQL, not to the settings
        ("std::env::var", &["config/", "store/embedded/"]),
        ("tokio::spawn(", &["shutdown.rs"]),
        ("Utc::now()", &["clock.rs"]),
        ("process::exit", &["cli/"]),
    ];
    let mut wrong = Vec::new();
    for source in sources() {
        for (what, homes) in doors {
            let found = source.code.match_indices(what).any(|(at, _)| {
                !source.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.')
            });
            if found && !homes.iter().any(|home| source.path.starts_with(home)) {
                wrong.push(format!("{} uses {what}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_is_rare_and_explained() {
    let homes = ["nn/", "store/embedded"];
    let mut wrong = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap();
            if !["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|word| code.contains(word)) {
                continue;
            }
            if !homes.iter().any(|home| source.path.starts_with(home)) {
                wrong.push(format!("{}:{}: unsafe is not for this module", source.path, at + 1));
            }
            let explained = lines[at.saturating_sub(6)..=at]
                .iter()
                .any(|line| line.contains("SAFETY") || line.contains("# Safety"));
            if !explained {
                wrong.push(format!("{}:{}: unsafe without a SAFETY line", source.path, at + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut wrong = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//!") {
            wrong.push(format!("{}: no //! head", source.path));
        }
        let lines = source.text.lines().count();
        if lines > 800 {
            wrong.push(format!("{}: {lines} lines; is there a second noun in it?", source.path));
        }
        for part in source.path.trim_end_matches(".rs").split('/') {
            if ["util", "utils", "common", "helpers", "misc"].contains(&part) {
                wrong.push(format!("{}: '{part}' names nothing", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_checks_can_fail() {
    assert_eq!(modules_named("use crate::store::Store;"), ["store"]);
    assert_eq!(modules_named("use crate::{domain::id, api};"), ["api", "domain"]);
    assert!(modules_named("let x = other_crate::store;").is_empty());
    assert!(!code_only("let a = \"sqlx::query\"; // sqlx::x").contains("sqlx"));
    assert!(row_of("api") > row_of("store") && row_of("engine") > row_of("nn"));
}
