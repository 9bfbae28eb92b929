//! Facts → files: deterministic to the byte, escaped. Pure code over values.
//!
//! Each writer takes a whole [`DataModel`](crate::domain::fact::DataModel) and returns text. Never knows where
//! it goes. Names, descriptions and identifiers are hostile until a writer has escaped them for its format.

pub mod csv;
pub mod dbt;
pub mod json;
pub mod mermaid;
pub mod turtle;

use std::str::FromStr;

use crate::domain::fact::DataModel;

/// The formats of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Mermaid,
    Turtle,
    Csv,
    Dbt,
}

#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no export format: json, mermaid, turtle, csv or dbt")]
pub struct UnknownFormat(pub String);

impl Format {
    pub const ALL: [Format; 5] = [Format::Json, Format::Mermaid, Format::Turtle, Format::Csv, Format::Dbt];

    pub fn as_str(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Mermaid => "mermaid",
            Format::Turtle => "turtle",
            Format::Csv => "csv",
            Format::Dbt => "dbt",
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Mermaid => "text/vnd.mermaid; charset=utf-8",
            Format::Turtle => "text/turtle; charset=utf-8",
            Format::Csv => "text/csv; charset=utf-8",
            Format::Dbt => "application/yaml",
        }
    }

    pub fn write(self, model: &DataModel) -> String {
        match self {
            Format::Json => json::write(model),
            Format::Mermaid => mermaid::write(model),
            Format::Turtle => turtle::write(model),
            Format::Csv => csv::write(model),
            Format::Dbt => dbt::write(model),
        }
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Format::ALL.into_iter().find(|f| f.as_str() == text).ok_or_else(|| UnknownFormat(text.into()))
    }
}
