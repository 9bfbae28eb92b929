//! The DOT export, read back by a parser of the format.

use std::collections::BTreeSet;

use adit::export;
use layout::gv::DotParser;
use layout::gv::parser::ast::Stmt;

use crate::export::models;

#[test]
fn dot_is_read_and_holds_every_concept_and_relationship() {
    for model in models() {
        let text = export::dot::write(&model);
        let graph = DotParser::new(&text).process().unwrap_or_else(|e| panic!("{e}\n{text}"));
        let (mut nodes, mut edges) = (BTreeSet::new(), 0);
        for statement in &graph.list.list {
            match statement {
                Stmt::Node(node) => {
                    let label = &node.list.list.iter().find(|(name, _)| name == "label").unwrap().1;
                    let at: usize = node.id.name.strip_prefix('c').unwrap().parse().unwrap();
                    let concept = &model.concepts[at - 1];
                    let lines = label.matches('\n').count();
                    assert_eq!(lines, model.attributes.iter().filter(|a| a.concept == concept.name).count());
                    assert!(label.starts_with('{') && label.ends_with('}'), "{label}");
                    assert!(nodes.insert(node.id.name.clone()));
                }
                Stmt::Edge(edge) => {
                    let ends = [&edge.from.name, &edge.to[0].0.name];
                    assert!(edge.to.len() == 1 && ends.iter().all(|end| nodes.contains(*end)), "{edge:?}");
                    edges += 1;
                }
                Stmt::Attribute(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((nodes.len(), edges), (model.concepts.len(), model.relationships.len()));
        // one statement per line, and nothing in a label that GraphViz would read as its own
        assert_eq!(text.lines().count(), 5 + nodes.len() + edges);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
        assert!(text.match_indices('&').all(|(at, _)| text[at..].starts_with("&amp;")));
    }
}
