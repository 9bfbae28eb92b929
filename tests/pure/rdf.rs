//! The RDF exports together: all parse, and SHACL and R2RML speak of what the OWL export declares, and of all of it.

use std::collections::{BTreeMap, BTreeSet};

use adit::domain::fact::{Cardinality, DataModel};
use adit::domain::task::Task;
use adit::export;
use oxrdf::{Graph, NamedNode, NamedNodeRef, NamedOrBlankNode, Term, TermRef};
use oxttl::TurtleParser;
use proptest::prelude::*;

use crate::catalogs;
use crate::export::{models, poisoned};
use crate::pipeline::run;

const OWL: &str = "http://www.w3.org/2002/07/owl#";
const RDFS: &str = "http://www.w3.org/2000/01/rdf-schema#";
const SH: &str = "http://www.w3.org/ns/shacl#";
const RR: &str = "http://www.w3.org/ns/r2rml#";
const TYPE: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type";

fn graph(text: &str) -> Graph {
    TurtleParser::new()
        .for_slice(text.as_bytes())
        .map(|triple| triple.unwrap_or_else(|e| panic!("{e}\n{text}")))
        .collect()
}

fn iri(base: &str, name: &str) -> NamedNode {
    NamedNode::new(format!("{base}{name}")).unwrap()
}

fn of_type(graph: &Graph, base: &str, name: &str) -> BTreeSet<String> {
    let class = iri(base, name);
    let subjects = graph.subjects_for_predicate_object(NamedNodeRef::new(TYPE).unwrap(), &class);
    subjects.map(|subject| subject.to_string()).collect()
}

fn objects(graph: &Graph, subject: &NamedOrBlankNode, predicate: &NamedNode) -> Vec<Term> {
    graph.objects_for_subject_predicate(subject, predicate).map(TermRef::into_owned).collect()
}

fn one(graph: &Graph, subject: &NamedOrBlankNode, predicate: &NamedNode) -> Option<Term> {
    let found = objects(graph, subject, predicate);
    assert!(found.len() < 2, "{subject} {predicate} {found:?}");
    found.into_iter().next()
}

fn node(term: &Term) -> NamedOrBlankNode {
    match term {
        Term::NamedNode(node) => node.clone().into(),
        Term::BlankNode(node) => node.clone().into(),
        Term::Literal(literal) => panic!("{literal} is no node"),
    }
}

fn text(term: &Term) -> String {
    let Term::Literal(literal) = term else { panic!("{term} is no literal") };
    literal.value().to_string()
}

/// What the OWL export says of a property: domain and range.
fn declared(owl: &Graph) -> BTreeMap<String, (Term, Term)> {
    let kinds = [of_type(owl, OWL, "ObjectProperty"), of_type(owl, OWL, "DatatypeProperty")];
    let properties = kinds.into_iter().flatten().map(|name| {
        let subject: NamedOrBlankNode = NamedNode::new(name.trim_matches(['<', '>'])).unwrap().into();
        let of = |word: &str| one(owl, &subject, &iri(RDFS, word)).unwrap();
        (name.clone(), (of("domain"), of("range")))
    });
    properties.collect()
}

#[test]
fn shapes_are_over_declared_properties_and_over_all_of_them() {
    models().iter().for_each(check_shapes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_model_is_mapped_and_shaped_whole(catalog in catalogs::any_catalog(), seed in any::<u64>(), fails in 0usize..4) {
        let model = run(Task::DataModel, &catalog, seed, |n| n == fails).0;
        check_shapes(&model);
        check_mapping(&model);
        check_shapes(&poisoned(model.clone()));
        check_mapping(&poisoned(model));
    }
}

fn check_shapes(model: &DataModel) {
    let (owl, shapes) = (graph(&export::turtle::write(model)), graph(&export::shacl::write(model)));
    let (declared, classes) = (declared(&owl), of_type(&owl, OWL, "Class"));
    let sh = |word: &str| iri(SH, word);
    let nodes = of_type(&shapes, SH, "NodeShape");
    assert_eq!(nodes.len(), model.concepts.len());
    let (mut paths, mut inverse, mut required) = (BTreeSet::new(), 0, 0);
    let targets: BTreeSet<String> = nodes
        .iter()
        .map(|name| {
            let shape: NamedOrBlankNode = NamedNode::new(name.trim_matches(['<', '>'])).unwrap().into();
            let target = one(&shapes, &shape, &sh("targetClass")).unwrap();
            for property in objects(&shapes, &shape, &sh("property")) {
                let property = node(&property);
                let path = one(&shapes, &property, &sh("path")).unwrap();
                let number = |word: &str| one(&shapes, &property, &sh(word)).map(|n| text(&n));
                assert!([None, Some("1".into())].contains(&number("maxCount")));
                required += usize::from(number("minCount").is_some());
                if let Term::BlankNode(path) = &path {
                    let of = one(&shapes, &path.clone().into(), &sh("inversePath")).unwrap();
                    assert_eq!(declared[&of.to_string()].1, target);
                    inverse += 1;
                    continue;
                }
                let (domain, range) = &declared[&path.to_string()];
                assert_eq!(domain, &target);
                let constraint = one(&shapes, &property, &sh("datatype"))
                    .or_else(|| one(&shapes, &property, &sh("class")));
                assert_eq!(constraint.as_ref(), Some(range));
                assert!(paths.insert(path.to_string()), "{path} twice");
            }
            target.to_string()
        })
        .collect();
    assert_eq!(targets, classes);
    assert_eq!(paths, declared.keys().cloned().collect());
    assert_eq!(
        inverse,
        model.relationships.iter().filter(|r| r.cardinality == Cardinality::OneToOne).count()
    );
    assert_eq!(required, must_have(model));
}

/// Attributes and relationships that every instance of a concept of one table has.
fn must_have(model: &DataModel) -> usize {
    let single = |name: &str| model.concepts.iter().any(|c| c.name == name && c.source_tables.len() == 1);
    model.attributes.iter().filter(|a| a.required && single(&a.concept)).count()
        + model.relationships.iter().filter(|r| r.required && single(&r.from)).count()
}

#[test]
fn the_mapping_is_onto_declared_terms_and_names_real_columns() {
    let full = models().iter().filter(|model| check_mapping(model)).count();
    assert!(full > 3, "no model was mapped whole");
}

/// Whether every relationship of a model of some size is mapped.
fn check_mapping(model: &DataModel) -> bool {
    let (owl, mapping) = (graph(&export::turtle::write(model)), graph(&export::r2rml::write(model)));
    let (declared, classes) = (declared(&owl), of_type(&owl, OWL, "Class"));
    let rr = |word: &str| iri(RR, word);
    let maps = of_type(&mapping, RR, "TriplesMap");
    let mut columns: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    for a in &model.attributes {
        columns.entry(a.source_table.clone()).or_default().insert(quoted(&a.source_column));
    }
    for r in &model.relationships {
        columns.entry(r.from_table.clone()).or_default().extend(r.from_columns.iter().map(|c| quoted(c)));
        columns.entry(r.to_table.clone()).or_default().extend(r.to_columns.iter().map(|c| quoted(c)));
    }
    let known: BTreeSet<&String> = columns.values().flatten().collect();
    let (mut attributes, mut links, mut tables) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for name in &maps {
        let map: NamedOrBlankNode = NamedNode::new(name.trim_matches(['<', '>'])).unwrap().into();
        let table = node(&one(&mapping, &map, &rr("logicalTable")).unwrap());
        assert!(tables.insert(text(&one(&mapping, &table, &rr("tableName")).unwrap())), "{name}");
        let subject = node(&one(&mapping, &map, &rr("subjectMap")).unwrap());
        let class = one(&mapping, &subject, &rr("class")).unwrap();
        assert!(classes.contains(&class.to_string()));
        let template = text(&one(&mapping, &subject, &rr("template")).unwrap());
        for column in template_columns(&template) {
            assert!(known.contains(&column), "{column} of {template}");
        }
        for pair in objects(&mapping, &map, &rr("predicateObjectMap")) {
            let pair = node(&pair);
            let predicate = one(&mapping, &pair, &rr("predicate")).unwrap().to_string();
            let (domain, range) = &declared[&predicate];
            assert_eq!(domain, &class);
            let object = node(&one(&mapping, &pair, &rr("objectMap")).unwrap());
            if let Some(column) = one(&mapping, &object, &rr("column")) {
                assert!(known.contains(&text(&column)));
                assert_eq!(&one(&mapping, &object, &rr("datatype")).unwrap(), range);
                assert!(attributes.insert(predicate));
                continue;
            }
            let parent = one(&mapping, &object, &rr("parentTriplesMap")).unwrap();
            assert!(maps.contains(&parent.to_string()));
            let theirs = node(&one(&mapping, &node(&parent), &rr("subjectMap")).unwrap());
            assert_eq!(&one(&mapping, &theirs, &rr("class")).unwrap(), range);
            let joins = objects(&mapping, &object, &rr("joinCondition"));
            assert!(!joins.is_empty());
            for join in joins {
                for end in ["child", "parent"] {
                    let column = text(&one(&mapping, &node(&join), &rr(end)).unwrap());
                    assert!(known.contains(&column), "{column}");
                }
            }
            assert!(links.insert(predicate));
        }
    }
    assert_eq!(attributes, of_type(&owl, OWL, "DatatypeProperty"), "every attribute is mapped");
    let with_columns = |r: &&adit::domain::fact::Relationship| {
        !r.from_columns.is_empty() && r.from_columns.len() == r.to_columns.len()
    };
    let expected = model.relationships.iter().filter(with_columns).count();
    assert_eq!(links.len(), expected, "every relationship of known columns is mapped");
    links.len() == model.relationships.len() && maps.len() > 5
}

/// Column names in the braces of a template, read by its own rules.
fn template_columns(template: &str) -> Vec<String> {
    let (mut columns, mut open) = (Vec::new(), None);
    let mut chars = template.chars();
    while let Some(c) = chars.next() {
        match (c, &mut open) {
            ('\\', Some(name)) => String::push(name, chars.next().unwrap()),
            ('{', None) => open = Some(String::new()),
            ('}', Some(_)) => columns.extend(open.take()),
            ('{', Some(_)) | ('}', None) => panic!("{template}"),
            (c, Some(name)) => name.push(c),
            (_, None) => {}
        }
    }
    assert!(open.is_none() && !columns.is_empty(), "{template}");
    columns
}
