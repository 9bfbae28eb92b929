//! What a job extracts, and the stages it runs through.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// One entry per table: what kind of thing it is, its concept's name and description.
    Concept,
    /// Declared and undeclared relationships between concepts.
    Relationship,
    /// One entry per column.
    Attribute,
    /// The three above, chained: each stage's items are made from the stage before.
    DataModel,
    /// The client's own JSON Schema and instructions, one answer per input text.
    Custom,
    /// Raw chat messages, with or without a schema.
    Chat,
}

/// What one item asks of a model. A stage belongs to exactly one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Concept,
    Relationship,
    Attribute,
    Custom,
    Chat,
}

impl Task {
    pub const ALL: [Task; 6] =
        [Task::Concept, Task::Relationship, Task::Attribute, Task::DataModel, Task::Custom, Task::Chat];

    /// The stages of this task, in order.
    pub fn stages(self) -> &'static [Stage] {
        match self {
            Task::Concept => &[Stage::Concept],
            Task::Relationship => &[Stage::Relationship],
            Task::Attribute => &[Stage::Attribute],
            Task::DataModel => &[Stage::Concept, Stage::Relationship, Stage::Attribute],
            Task::Custom => &[Stage::Custom],
            Task::Chat => &[Stage::Chat],
        }
    }

    /// The stage that follows `stage` in this task.
    pub fn stage_after(self, stage: Stage) -> Option<Stage> {
        let stages = self.stages();
        let at = stages.iter().position(|s| *s == stage)?;
        stages.get(at + 1).copied()
    }

    /// Whether inputs are a database schema rather than texts or messages.
    pub fn reads_catalog(self) -> bool {
        !matches!(self, Task::Custom | Task::Chat)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Task::Concept => "concept",
            Task::Relationship => "relationship",
            Task::Attribute => "attribute",
            Task::DataModel => "data_model",
            Task::Custom => "custom",
            Task::Chat => "chat",
        }
    }
}

impl Stage {
    pub const ALL: [Stage; 5] =
        [Stage::Concept, Stage::Relationship, Stage::Attribute, Stage::Custom, Stage::Chat];

    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Concept => "concept",
            Stage::Relationship => "relationship",
            Stage::Attribute => "attribute",
            Stage::Custom => "custom",
            Stage::Chat => "chat",
        }
    }

    /// The model that serves this stage unless the job names one.
    pub fn default_model(self) -> &'static str {
        match self {
            Stage::Relationship => "relationship",
            Stage::Attribute => "attribute",
            Stage::Concept | Stage::Custom | Stage::Chat => "concept",
        }
    }
}

/// A word that names no task or stage.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not one of {1}")]
pub struct UnknownWord(pub String, pub &'static str);

impl FromStr for Task {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Task::ALL.into_iter().find(|t| t.as_str() == text).ok_or_else(|| {
            UnknownWord(text.into(), "concept, relationship, attribute, data_model, custom, chat")
        })
    }
}

impl FromStr for Stage {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Stage::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| UnknownWord(text.into(), "concept, relationship, attribute, custom, chat"))
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
