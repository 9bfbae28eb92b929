//! Facts → files: deterministic to the byte, escaped. Pure code over values.
//!
//! Each writer takes a whole [`DataModel`](crate::domain::fact::DataModel) and returns text. Never knows where
//! it goes. Names, descriptions and identifiers are hostile until a writer has escaped them for its format.

pub mod csv;
pub mod dbt;
pub mod dot;
pub mod json;
pub mod mermaid;
pub mod r2rml;
mod rdf;
pub mod shacl;
pub mod turtle;

use std::str::FromStr;

use crate::domain::fact::DataModel;

/// The formats of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Mermaid,
    Turtle,
    R2rml,
    Shacl,
    Csv,
    Dbt,
    Dot,
}

#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no export format: json, mermaid, turtle, r2rml, shacl, csv, dbt or dot")]
pub struct UnknownFormat(pub String);

impl Format {
    pub const ALL: [Format; 8] = [
        Format::Json,
        Format::Mermaid,
        Format::Turtle,
        Format::R2rml,
        Format::Shacl,
        Format::Csv,
        Format::Dbt,
        Format::Dot,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Mermaid => "mermaid",
            Format::Turtle => "turtle",
            Format::R2rml => "r2rml",
            Format::Shacl => "shacl",
            Format::Csv => "csv",
            Format::Dbt => "dbt",
            Format::Dot => "dot",
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Mermaid => "text/vnd.mermaid; charset=utf-8",
            Format::Turtle | Format::R2rml | Format::Shacl => "text/turtle; charset=utf-8",
            Format::Csv => "text/csv; charset=utf-8",
            Format::Dbt => "application/yaml",
            Format::Dot => "text/vnd.graphviz; charset=utf-8",
        }
    }

    pub fn write(self, model: &DataModel) -> String {
        match self {
            Format::Json => json::write(model),
            Format::Mermaid => mermaid::write(model),
            Format::Turtle => turtle::write(model),
            Format::R2rml => r2rml::write(model),
            Format::Shacl => shacl::write(model),
            Format::Csv => csv::write(model),
            Format::Dbt => dbt::write(model),
            Format::Dot => dot::write(model),
        }
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Format::ALL.into_iter().find(|f| f.as_str() == text).ok_or_else(|| UnknownFormat(text.into()))
    }
}
