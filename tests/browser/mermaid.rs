//! Mermaid itself reads and draws our exports: every golden one, and one whose names are Mermaid's own syntax.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use adit::domain::fact::{Attribute, Concept, DataModel, Relationship};
use adit::export::Format;
use serde_json::json;
use tempfile::TempDir;

use crate::chrome::Chrome;
use crate::page::Page;
use crate::server::alone;

/// Pinned, so that a failure here is ours.
const PACKAGE: &str = "mermaid@12.3.0";

const EMPTY: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Mermaid</title>
<link rel=\"icon\" href=\"data:,\"><script src=\"/mermaid.js\"></script><body></body></html>";

/// Names that Mermaid takes for something else unless they are escaped.
const MARKED: [&str; 17] = [
    "*emphasis*",
    "**strong**",
    "__init__",
    "_private",
    "snake_case",
    "~strange~",
    "~~gone~~",
    "$$x^2$$",
    "fa:fa-car",
    "direction LR",
    "Direction\u{a0}tb",
    "style a:b#c;",
    "1. first",
    "- item",
    "![image](x)",
    "a\"] { x y }",
    "%%{init: {}}%%",
];

/// The package's one file that needs no other, fetched once and kept under the target folder.
fn script() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_adit")).parent().unwrap().parent().unwrap();
    let script = target.join(format!("{}.min.js", PACKAGE.replace('@', "-")));
    if !script.exists() {
        let dir = TempDir::new_in(target).unwrap();
        run(dir.path(), "npm", &["pack", "--silent", "--ignore-scripts", PACKAGE]);
        let archive = format!("{}.tgz", PACKAGE.replace('@', "-"));
        run(dir.path(), "tar", &["-xzf", &archive, "package/dist/mermaid.min.js"]);
        // whole or not at all
        std::fs::rename(dir.path().join("package/dist/mermaid.min.js"), &script).unwrap();
    }
    script
}

fn run(dir: &Path, program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).current_dir(dir).output().unwrap_or_else(|error| {
        panic!("the test of Mermaid needs {program} on PATH (Debian: apt-get install {program}): {error}")
    });
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}\n{out}\n{err}");
}

/// Serves an empty page with Mermaid in it, until the tests end; its address.
fn serve() -> String {
    let script = std::fs::read_to_string(script()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let script = script.clone();
            // a browser opens connections in advance, and says nothing on them
            std::thread::spawn(move || answer(&stream, &script));
        }
    });
    format!("http://{address}/")
}

fn answer(mut stream: &TcpStream, script: &str) {
    let head: Vec<String> =
        BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let Some(request) = head.first() else { return };
    let (kind, body) = if request.starts_with("GET /mermaid.js ") {
        ("text/javascript; charset=utf-8", script)
    } else {
        ("text/html; charset=utf-8", EMPTY)
    };
    let length = body.len();
    // a browser that is gone does not mind
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
}

/// The names that a diagram shows, each list sorted.
#[derive(Debug, PartialEq)]
struct Shown {
    entities: Vec<String>,
    attributes: Vec<String>,
    relationships: Vec<String>,
}

impl Shown {
    fn new<'a>(
        entities: impl Iterator<Item = &'a str>,
        attributes: impl Iterator<Item = &'a str>,
        relationships: impl Iterator<Item = &'a str>,
    ) -> Self {
        Self { entities: plain(entities), attributes: plain(attributes), relationships: plain(relationships) }
    }

    fn of_model(model: &DataModel) -> Self {
        Self::new(
            model.concepts.iter().map(|concept| concept.name.as_str()),
            model.attributes.iter().map(|attribute| attribute.name.as_str()),
            model.relationships.iter().map(|relationship| relationship.name.as_str()),
        )
    }

    /// By the lines of an export, its entity codes put back: what has no twin in JSON.
    fn of_text(text: &str) -> Self {
        let label = |line: &str| {
            let (from, to) = (line.find('"').unwrap() + 1, line.rfind('"').unwrap());
            decoded(&line[from..to])
        };
        let labelled = |which: fn(&str) -> bool| -> Vec<String> {
            text.lines().filter(|line| line.contains('"') && which(line)).map(label).collect()
        };
        let entities = labelled(|line| line.contains("[\""));
        let attributes = labelled(|line| line.starts_with("        "));
        let relationships = labelled(|line| line.contains("--") && line.contains(" : \""));
        Self::new(
            entities.iter().map(String::as_str),
            attributes.iter().map(String::as_str),
            relationships.iter().map(String::as_str),
        )
    }
}

fn decoded(label: &str) -> String {
    let mut parts = label.split('#');
    let mut text = parts.next().unwrap().to_string();
    for part in parts {
        let (code, rest) = part.split_once(';').unwrap();
        text.push(char::from_u32(code.parse().unwrap()).unwrap());
        text.push_str(rest);
    }
    text
}

/// Blanks are not compared: a drawing may break lines, an export has no control characters.
fn plain<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let name = |name: &str| {
        let name = name.replace(char::is_control, " ");
        name.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let mut names: Vec<String> =
        names.map(name).map(|name| if name.is_empty() { "-".into() } else { name }).collect();
    names.sort();
    names
}

/// What Mermaid draws, or why it refuses.
async fn drawn(page: &Page, text: &str) -> Result<Shown, String> {
    let expression = format!(
        "(async () => {{ try {{
           const text = {};
           const {{ diagramType }} = await mermaid.parse(text);
           if (diagramType !== 'er') return {{ refused: `it is a diagram of type ${{diagramType}}` }};
           const {{ svg }} = await mermaid.render('drawing', text);
           document.body.innerHTML = svg;
           const texts = (nodes) => [...nodes].map((node) => node.textContent);
           return {{
             entities: [...document.querySelectorAll('svg g.node')].map((node) =>
               (node.querySelector('.label.name') ?? node.querySelector('.label')).textContent),
             attributes: texts(document.querySelectorAll('svg .attribute-comment')),
             relationships: texts(document.querySelectorAll('svg .edgeLabel .label')),
             strange: [...document.querySelectorAll('svg :is(a, em, strong, del, code, i, img, image, math, script)')]
               .map((node) => node.outerHTML),
           }};
         }} catch (error) {{ return {{ refused: String(error.message ?? error) }}; }} }})()",
        json!(text)
    );
    let answer = page.eval(&expression).await;
    if let Some(refused) = answer["refused"].as_str() {
        return Err(refused.to_string());
    }
    assert_eq!(answer["strange"], json!([]), "a name has become markup");
    let list =
        |what: &str| answer[what].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned());
    let (entities, attributes, relationships): (Vec<_>, Vec<_>, Vec<_>) =
        (list("entities").collect(), list("attributes").collect(), list("relationships").collect());
    Ok(Shown::new(
        entities.iter().map(String::as_str),
        attributes.iter().map(String::as_str),
        relationships.iter().map(String::as_str),
    ))
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/exports")
}

fn model(path: &Path) -> DataModel {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Every name is one of `MARKED`, at each of the three places where a name can stand.
fn marked() -> DataModel {
    let tame = model(&golden().join("library.json"));
    let next = MARKED.iter().cycle().skip(1);
    let concept = |name: &str| Concept { name: name.into(), ..tame.concepts[0].clone() };
    let attribute = |name: &str| Attribute {
        concept: name.into(),
        name: name.into(),
        source_column: name.into(),
        ..tame.attributes[0].clone()
    };
    let relationship = |(from, to): (&&str, &&str)| Relationship {
        name: from.to_string(),
        from: from.to_string(),
        to: to.to_string(),
        ..tame.relationships[0].clone()
    };
    DataModel {
        concepts: MARKED.iter().map(|name| concept(name)).collect(),
        attributes: MARKED.iter().map(|name| attribute(name)).collect(),
        relationships: MARKED.iter().zip(next).map(relationship).collect(),
        ..tame.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mermaid_draws_what_is_exported() {
    let url = tokio::task::spawn_blocking(serve).await.unwrap();
    let _alone = alone().await;
    let chrome = Chrome::start().await;
    let page = Page::open(&chrome, &url).await;
    page.eval("mermaid.initialize({ startOnLoad: false })").await;

    let mut files: Vec<PathBuf> =
        std::fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "mmd"));
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = Shown::of_text(&text);
        assert!(!expected.entities.is_empty() && !expected.relationships.is_empty());
        let twin = path.with_extension("json");
        if twin.exists() {
            assert_eq!(Shown::of_model(&model(&twin)), expected, "{}", path.display());
        }
        assert_eq!(drawn(&page, &text).await, Ok(expected), "{}", path.display());
    }

    let mut model = marked();
    let text = Format::Mermaid.write(&model);
    assert_eq!(drawn(&page, &text).await, Ok(Shown::of_model(&model)), "{text}");
    // without attributes an entity is drawn in another way
    model.attributes.clear();
    let text = Format::Mermaid.write(&model);
    assert_eq!(drawn(&page, &text).await, Ok(Shown::of_model(&model)), "{text}");

    let own = |request: &String| request.starts_with(&url) || request.starts_with("data:");
    assert!(page.requests().iter().all(own), "{:?}", page.requests());
    assert_eq!(page.errors(), Vec::<String>::new());

    // it can refuse: an entity that is never closed, a label that ends early, what is no diagram at all
    let refused = [
        "erDiagram\n    c1_A[\"A\"] {\n        text a_x \"x\"\n",
        "erDiagram\n    c1_A[\"A\" B\"]\n",
        "erDiagram\n    c1_A[\"direction LR\"] {\n        text a_x \"x\"\n    }\n",
        "no diagram\n",
    ];
    for text in refused {
        let answer = drawn(&page, text).await;
        assert!(answer.is_err(), "{text}{answer:?}");
    }
}
