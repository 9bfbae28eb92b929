//! SHACL shapes over the classes and properties of the OWL export: a node shape per concept, a property shape per
//! attribute and relationship.
//!
//! What the schema guarantees becomes a constraint: types, at most one value, at least one where the column is
//! required. A concept of several tables has instances of each of them, which have the columns of their own table
//! only; there nothing is required.

use std::collections::HashMap;
use std::fmt::Write;

use super::rdf::{DatatypeProperty, ObjectProperty, PREFIXES, Vocabulary, literal, local};
use crate::domain::fact::{Cardinality, DataModel};

const HEAD: &str = "@prefix sh: <http://www.w3.org/ns/shacl#> .
@prefix shape: <urn:adit:shape#> .

<urn:adit:shape> a owl:Ontology ;
    owl:imports <urn:adit:model> .
";

pub fn write(model: &DataModel) -> String {
    let vocabulary = Vocabulary::of(model);
    let mut shapes: HashMap<&str, Vec<String>> = HashMap::new();
    let one_table = |concept: &str| {
        model.concepts.iter().find(|c| c.name == concept).is_some_and(|c| c.source_tables.len() == 1)
    };
    let single: HashMap<&str, bool> =
        model.concepts.iter().map(|c| (vocabulary.class(&c.name), one_table(&c.name))).collect();
    let attributes: Vec<DatatypeProperty<'_>> = vocabulary.datatype_properties().collect();
    let relationships: Vec<ObjectProperty<'_>> = vocabulary.object_properties().collect();
    for attribute in &attributes {
        let required = attribute.fact.required && single[attribute.class];
        shapes.entry(attribute.class).or_default().push(of_attribute(attribute, required));
    }
    for relationship in &relationships {
        let required = relationship.fact.required && single[relationship.from];
        shapes.entry(relationship.from).or_default().push(of_relationship(relationship, required));
        if relationship.fact.cardinality == Cardinality::OneToOne {
            let path = format!("[ sh:inversePath {} ]", relationship.id);
            let shape = format!("        sh:path {path} ;\n        sh:maxCount 1");
            shapes.entry(relationship.to).or_default().push(shape);
        }
    }
    let mut text = format!("{PREFIXES}{HEAD}");
    for concept in &model.concepts {
        let class = vocabulary.class(&concept.name);
        let _ = write!(text, "\nshape:{} a sh:NodeShape", local(&[&concept.name]));
        let _ = write!(text, " ;\n    sh:targetClass {class} ;\n    rdfs:label {}", literal(&concept.name));
        for shape in shapes.remove(class).unwrap_or_default() {
            let _ = write!(text, " ;\n    sh:property [\n{shape}\n    ]");
        }
        text.push_str(" .\n");
    }
    text
}

fn of_attribute(property: &DatatypeProperty<'_>, required: bool) -> String {
    let mut shape = named(&property.id, &property.fact.name, &property.fact.description);
    let _ = write!(shape, " ;\n        sh:datatype {}", property.range);
    count(&mut shape, required, true);
    shape
}

fn of_relationship(property: &ObjectProperty<'_>, required: bool) -> String {
    let mut shape = named(&property.id, &property.fact.name, &property.fact.description);
    let _ = write!(shape, " ;\n        sh:class {} ;\n        sh:nodeKind sh:BlankNodeOrIRI", property.to);
    count(&mut shape, required, property.fact.cardinality != Cardinality::Unknown);
    shape
}

fn named(path: &str, name: &str, description: &str) -> String {
    let mut shape = format!("        sh:path {path} ;\n        sh:name {}", literal(name));
    if !description.is_empty() {
        let _ = write!(shape, " ;\n        sh:description {}", literal(description));
    }
    shape
}

fn count(shape: &mut String, required: bool, single: bool) {
    if required {
        shape.push_str(" ;\n        sh:minCount 1");
    }
    if single {
        shape.push_str(" ;\n        sh:maxCount 1");
    }
}
