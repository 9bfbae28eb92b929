//! What the RDF exports share: the IRIs of classes and properties, so that all speak of the same things, and literals.

use std::collections::HashMap;
use std::fmt::Write;

use crate::domain::fact::{Attribute, DataModel, Meaning, Relationship};

/// Prefixes of every RDF export; `:` is the model itself.
pub(super) const PREFIXES: &str = "@prefix : <urn:adit:model#> .
@prefix adit: <urn:adit:vocabulary#> .
@prefix owl: <http://www.w3.org/2002/07/owl#> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
";

/// The model's terms as prefixed names.
pub(super) struct Vocabulary<'a> {
    model: &'a DataModel,
    classes: HashMap<&'a str, String>,
}

/// A relationship between two classes.
pub(super) struct ObjectProperty<'a> {
    pub(super) id: String,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) fact: &'a Relationship,
}

/// An attribute of a class.
pub(super) struct DatatypeProperty<'a> {
    pub(super) id: String,
    pub(super) class: &'a str,
    pub(super) range: &'static str,
    pub(super) fact: &'a Attribute,
}

impl<'a> Vocabulary<'a> {
    pub(super) fn of(model: &'a DataModel) -> Self {
        let class = |name: &'a str| (name, format!(":{}", local(&[name])));
        Self { model, classes: model.concepts.iter().map(|c| class(&c.name)).collect() }
    }

    /// Of a concept of the model.
    pub(super) fn class(&self, concept: &str) -> &str {
        self.classes.get(concept).map_or(":n-", String::as_str)
    }

    /// Relationships whose ends are concepts of the model, in its order.
    pub(super) fn object_properties(&self) -> impl Iterator<Item = ObjectProperty<'_>> {
        self.model.relationships.iter().enumerate().filter_map(|(at, fact)| {
            let (from, to) = (self.classes.get(fact.from.as_str())?, self.classes.get(fact.to.as_str())?);
            // the place keeps two keys of one name between the same tables apart
            let id = format!(":{}", local(&[&fact.from_table, &fact.name, &format!("r{}", at + 1)]));
            Some(ObjectProperty { id, from, to, fact })
        })
    }

    /// Attributes of concepts of the model, in its order.
    pub(super) fn datatype_properties(&self) -> impl Iterator<Item = DatatypeProperty<'_>> {
        self.model.attributes.iter().filter_map(|fact| {
            let class = self.classes.get(fact.concept.as_str())?;
            let id = format!(":{}", local(&[&fact.source_table, &fact.source_column]));
            Some(DatatypeProperty { id, class, range: range(fact), fact })
        })
    }
}

/// What the database's type says; the model's judgement where that is no more than a text, or unknown.
fn range(attribute: &Attribute) -> &'static str {
    let declared = attribute.data_type.to_ascii_lowercase();
    if declared.ends_with(']') {
        // an array has no literal of its own
        return "xsd:string";
    }
    let word: String = declared.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
    match word.as_str() {
        // a flag in MySQL
        "tinyint" if declared.starts_with("tinyint(1)") => "xsd:boolean",
        "int" | "integer" | "bigint" | "smallint" | "tinyint" | "mediumint" | "int2" | "int4" | "int8"
        | "serial" | "bigserial" | "smallserial" | "year" => "xsd:integer",
        "numeric" | "decimal" | "dec" | "money" | "smallmoney" | "number" => "xsd:decimal",
        "real" | "float" | "double" | "float4" | "float8" => "xsd:double",
        "bool" | "boolean" => "xsd:boolean",
        "bit" if declared == "bit" => "xsd:boolean",
        "date" => "xsd:date",
        "time" | "timetz" => "xsd:time",
        "timestamp" | "timestamptz" | "datetime" | "datetime2" | "smalldatetime" | "datetimeoffset" => {
            "xsd:dateTime"
        }
        "bytea" | "blob" | "tinyblob" | "mediumblob" | "longblob" | "binary" | "varbinary" | "image" => {
            "xsd:hexBinary"
        }
        "" => by_meaning(attribute.meaning),
        _ if attribute.meaning == Meaning::Url => "xsd:anyURI",
        _ => "xsd:string",
    }
}

fn by_meaning(meaning: Meaning) -> &'static str {
    match meaning {
        Meaning::Quantity | Meaning::Amount | Meaning::Percentage => "xsd:decimal",
        Meaning::Date => "xsd:date",
        Meaning::Timestamp => "xsd:dateTime",
        Meaning::Boolean => "xsd:boolean",
        Meaning::Url => "xsd:anyURI",
        Meaning::Binary => "xsd:hexBinary",
        _ => "xsd:string",
    }
}

/// A local name that is distinct for distinct parts: letters and digits as they are, all else as `_hex_`.
pub(super) fn local(parts: &[&str]) -> String {
    let mut out = String::from("n");
    for part in parts {
        out.push('-');
        for c in part.chars() {
            if c.is_ascii_alphanumeric() {
                out.push(c);
            } else {
                let _ = write!(out, "_{:x}_", c as u32);
            }
        }
    }
    out
}

pub(super) fn literal(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fact::Source;

    #[test]
    fn types_of_every_database_have_their_range() {
        for (data_type, meaning, expected) in [
            ("bigint(20) unsigned", Meaning::Amount, "xsd:integer"),
            ("numeric(10,2)", Meaning::Identifier, "xsd:decimal"),
            ("double precision", Meaning::Other, "xsd:double"),
            ("timestamp(3) with time zone", Meaning::Date, "xsd:dateTime"),
            ("tinyint(1)", Meaning::Quantity, "xsd:boolean"),
            ("bit(3)", Meaning::Quantity, "xsd:string"),
            ("integer[]", Meaning::Quantity, "xsd:string"),
            ("character varying(80)", Meaning::Quantity, "xsd:string"),
            ("text", Meaning::Url, "xsd:anyURI"),
            ("", Meaning::Quantity, "xsd:decimal"),
        ] {
            let attribute = Attribute {
                concept: String::new(),
                name: String::new(),
                meaning,
                description: String::new(),
                identifier: false,
                required: false,
                unique: false,
                source: Source::Catalog,
                source_table: String::new(),
                source_column: String::new(),
                data_type: data_type.into(),
                confidence: None,
                review: false,
            };
            assert_eq!(range(&attribute), expected, "{data_type}");
        }
    }
}
