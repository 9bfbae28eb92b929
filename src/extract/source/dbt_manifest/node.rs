//! The part of the manifest's format that is read. dbt writes `null` where it has nothing to say.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::extract::source::json::Entries;

#[derive(Deserialize)]
pub(super) struct Node<'a> {
    pub resource_type: String,
    pub name: String,
    #[serde(default)]
    pub alias: Option<String>,
    #[serde(default)]
    pub schema: Option<String>,
    #[serde(default)]
    pub database: Option<String>,
    #[serde(default)]
    pub relation_name: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub description: String,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub columns: Entries<'a>,
    #[serde(default, deserialize_with = "or_default")]
    pub constraints: Vec<Constraint>,
    #[serde(default, deserialize_with = "or_default")]
    pub primary_key: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    config: Config,
}

impl Node<'_> {
    pub fn is_table(&self) -> bool {
        self.config.enabled != Some(false) && self.config.materialized.as_deref() != Some("ephemeral")
    }
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    materialized: Option<String>,
    /// Of a test: it looks at some rows only.
    #[serde(default, rename = "where")]
    filter: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Source<'a> {
    pub name: String,
    #[serde(default)]
    pub identifier: Option<String>,
    #[serde(default)]
    pub schema: Option<String>,
    #[serde(default)]
    pub database: Option<String>,
    #[serde(default)]
    pub relation_name: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub description: String,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub columns: Entries<'a>,
}

#[derive(Deserialize)]
pub(super) struct ColumnNode {
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub description: String,
    #[serde(default)]
    pub data_type: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub constraints: Vec<Constraint>,
}

/// Of a column or of a model; only a model's names its columns.
#[derive(Default, Deserialize)]
pub(super) struct Constraint {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, deserialize_with = "or_default")]
    pub columns: Vec<String>,
    /// Of a foreign key: `ref('…')`, or the relation as the database names it.
    #[serde(default)]
    pub to: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub to_columns: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct Test {
    /// Absent of a test that is a query of its own.
    #[serde(default, rename = "test_metadata")]
    metadata: Option<Metadata>,
    #[serde(default)]
    pub column_name: Option<String>,
    #[serde(default)]
    pub attached_node: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    depends_on: DependsOn,
    #[serde(default, deserialize_with = "or_default")]
    config: Config,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    kwargs: serde_json::Map<String, Value>,
}

#[derive(Default, Deserialize)]
struct DependsOn {
    #[serde(default, deserialize_with = "or_default")]
    nodes: Vec<String>,
}

impl Test {
    /// The test's name if it holds for all rows.
    pub fn name(&self) -> Option<&str> {
        let all = self.config.enabled != Some(false) && self.config.filter.is_none();
        self.metadata.as_ref().filter(|_| all).map(|metadata| metadata.name.as_str())
    }

    pub fn argument(&self, name: &str) -> Option<&Value> {
        let arguments = &self.metadata.as_ref()?.kwargs;
        arguments.get(name).or_else(|| arguments.get("arguments")?.get(name))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.argument(name)?.as_str()
    }

    pub fn texts(&self, name: &str) -> Vec<String> {
        let list = self.argument(name).and_then(Value::as_array);
        let texts = list.into_iter().flatten().map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        texts.collect()
    }

    pub fn nodes(&self) -> &[String] {
        &self.depends_on.nodes
    }
}

pub(super) fn text_of(text: String) -> Option<String> {
    Some(text).filter(|text| !text.trim().is_empty())
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
