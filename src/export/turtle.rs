//! An OWL ontology in Turtle: a class per concept, an object property per relationship, a datatype property
//! per attribute, each with the tables and columns it came from.

use std::fmt::Write;

use super::rdf::{DatatypeProperty, ObjectProperty, PREFIXES, Vocabulary, literal};
use crate::domain::confidence::Confidence;
use crate::domain::fact::{Cardinality, DataModel};

const HEAD: &str = "
<urn:adit:model> a owl:Ontology .
adit:kind a owl:AnnotationProperty .
adit:meaning a owl:AnnotationProperty .
adit:source a owl:AnnotationProperty .
adit:sourceTable a owl:AnnotationProperty .
adit:sourceColumn a owl:AnnotationProperty .
adit:confidence a owl:AnnotationProperty .
adit:review a owl:AnnotationProperty .
";

pub fn write(model: &DataModel) -> String {
    let mut text = format!("{PREFIXES}{HEAD}");
    let vocabulary = Vocabulary::of(model);
    for concept in &model.concepts {
        let class = vocabulary.class(&concept.name);
        let _ = write!(text, "\n{class} a owl:Class ;\n    rdfs:label {}", literal(&concept.name));
        comment(&mut text, &concept.description);
        let _ = write!(text, " ;\n    adit:kind {}", literal(concept.kind.as_str()));
        let _ = write!(text, " ;\n    adit:source {}", literal(concept.source.as_str()));
        for table in &concept.source_tables {
            let _ = write!(text, " ;\n    adit:sourceTable {}", literal(table));
        }
        certainty(&mut text, concept.confidence, concept.review);
        text.push_str(" .\n");
    }
    vocabulary.object_properties().for_each(|property| object_property(&mut text, &property));
    vocabulary.datatype_properties().for_each(|property| datatype_property(&mut text, &property));
    text
}

fn object_property(text: &mut String, property: &ObjectProperty<'_>) {
    let ObjectProperty { id, from, to, fact } = property;
    let _ = write!(text, "\n{id} a owl:ObjectProperty");
    if fact.cardinality != Cardinality::Unknown {
        text.push_str(" , owl:FunctionalProperty");
    }
    if fact.cardinality == Cardinality::OneToOne {
        text.push_str(" , owl:InverseFunctionalProperty");
    }
    let _ = write!(text, " ;\n    rdfs:label {}", literal(&fact.name));
    comment(text, &fact.description);
    let _ = write!(text, " ;\n    rdfs:domain {from} ;\n    rdfs:range {to}");
    let _ = write!(text, " ;\n    adit:source {}", literal(fact.source.as_str()));
    let _ = write!(text, " ;\n    adit:sourceTable {}", literal(&fact.from_table));
    for column in &fact.from_columns {
        let _ = write!(text, " ;\n    adit:sourceColumn {}", literal(column));
    }
    certainty(text, fact.confidence, fact.review);
    text.push_str(" .\n");
}

fn datatype_property(text: &mut String, property: &DatatypeProperty<'_>) {
    let DatatypeProperty { id, class, range, fact } = property;
    let _ = write!(text, "\n{id} a owl:DatatypeProperty , owl:FunctionalProperty");
    let _ = write!(text, " ;\n    rdfs:label {}", literal(&fact.name));
    comment(text, &fact.description);
    let _ = write!(text, " ;\n    rdfs:domain {class} ;\n    rdfs:range {range}");
    let _ = write!(text, " ;\n    adit:meaning {}", literal(fact.meaning.as_str()));
    let _ = write!(text, " ;\n    adit:source {}", literal(fact.source.as_str()));
    let _ = write!(text, " ;\n    adit:sourceTable {}", literal(&fact.source_table));
    let _ = write!(text, " ;\n    adit:sourceColumn {}", literal(&fact.source_column));
    certainty(text, fact.confidence, fact.review);
    text.push_str(" .\n");
}

/// How sure the model was, a decimal, and whether somebody should look.
fn certainty(text: &mut String, confidence: Option<Confidence>, review: bool) {
    if let Some(confidence) = confidence {
        let _ = write!(text, " ;\n    adit:confidence {confidence}");
    }
    if review {
        text.push_str(" ;\n    adit:review true");
    }
}

fn comment(text: &mut String, description: &str) {
    if !description.is_empty() {
        let _ = write!(text, " ;\n    rdfs:comment {}", literal(description));
    }
}
