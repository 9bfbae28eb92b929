//! Chat templates of published checkpoints, rendered as transformers renders them
//! (`tests/golden/make_chat.py`). `ADIT_TEST_CHAT` names another file of that script's, for templates whose
//! licence keeps them out of the repository.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::{Path, PathBuf};

use adit::clock::Clock;
use adit::domain::message::Message;
use adit::models::chat::{ChatTemplate, Source};
use serde_json::Value;

fn check(file: &Path) {
    let templates: Vec<Value> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert!(!templates.is_empty());
    for golden in templates {
        let text = |key: &str| golden[key].as_str().unwrap().to_string();
        let source = Source {
            template: Some(text("template")),
            origin: text("name"),
            bos_token: text("bos"),
            eos_token: text("eos"),
        };
        let template = ChatTemplate::new(source, Clock::default()).unwrap();
        for case in golden["cases"].as_array().unwrap() {
            let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
            let rendered = template.render(&messages);
            let what = format!("{} of {}", text("name"), case["messages"]);
            match case["text"].as_str() {
                Some(expected) => assert_eq!(rendered.unwrap(), expected, "{what}"),
                None => assert!(rendered.is_err(), "{what}: the reference refuses it"),
            }
        }
    }
}

#[test]
fn templates_render_as_the_reference_renders_them() {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/chat.json"));
}

#[test]
#[ignore = "needs templates that are not in the repository"]
fn other_templates_render_as_the_reference_renders_them() {
    check(&PathBuf::from(std::env::var_os("ADIT_TEST_CHAT").expect("ADIT_TEST_CHAT names a file")));
}
