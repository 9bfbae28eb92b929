//! Exports byte for byte, as they were when somebody last looked at them: `tests/golden/exports/`.
//!
//! `ADIT_BLESS=1 cargo test --test pure golden` writes them anew. Mermaid itself draws the `.mmd` among
//! them in a browser test; every name and text in `hostile.mmd` tries to be something else.

use std::path::PathBuf;

use adit::domain::fact::DataModel;
use adit::domain::task::Task;
use adit::export::Format;

use crate::catalogs;
use crate::export::poisoned;
use crate::pipeline::run;

fn ending(format: Format) -> &'static str {
    match format {
        Format::Json => "json",
        Format::Mermaid => "mmd",
        Format::Turtle => "owl.ttl",
        Format::R2rml => "r2rml.ttl",
        Format::Shacl => "shacl.ttl",
        Format::Csv => "csv",
        Format::Dbt => "yml",
        Format::Dot => "dot",
    }
}

fn check(name: &str, model: &DataModel, formats: &[Format]) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/exports");
    for format in formats {
        let path = folder.join(format!("{name}.{}", ending(*format)));
        let text = format.write(model);
        if std::env::var_os("ADIT_BLESS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = golden.lines().zip(text.lines()).position(|(a, b)| a != b);
        assert!(golden == text, "{} differs from line {:?} on", path.display(), differs.map(|at| at + 1));
    }
}

#[test]
fn exports_are_the_golden_ones() {
    let tame = run(Task::DataModel, &catalogs::sample("library"), 3, |_| false).0;
    check("library", &tame, &Format::ALL);
    let texts = run(Task::DataModel, &catalogs::sample("clinic"), 3, |_| false).0;
    check("poisoned", &poisoned(texts), &Format::ALL);
    let names = run(Task::DataModel, &catalogs::hostile(), 3, |_| false).0;
    check("hostile", &poisoned(names), &[Format::Mermaid]);
}
