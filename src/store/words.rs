//! Words and numbers of rows, turned into the domain's. What does not fit is [`StoreError::Corrupt`].

use std::fmt::Display;
use std::str::FromStr;

use serde::de::DeserializeOwned;

use super::StoreError;
use crate::domain::batch::FileRole;
use crate::domain::code::Code;
use crate::domain::job::{Class, JobState, Weight};
use crate::domain::task::{Stage, Task};

/// Names the place of a value for the error.
#[derive(Clone, Copy)]
pub(super) struct At<'a, R: Display> {
    pub table: &'static str,
    pub column: &'static str,
    pub row: &'a R,
}

impl<R: Display> At<'_, R> {
    fn corrupt(&self, cause: impl Display) -> StoreError {
        StoreError::Corrupt {
            table: self.table,
            column: self.column,
            row: self.row.to_string(),
            cause: cause.to_string(),
        }
    }

    pub fn parse<T: FromStr<Err: Display>>(&self, text: &str) -> Result<T, StoreError> {
        text.parse().map_err(|cause| self.corrupt(cause))
    }

    pub fn json<T: DeserializeOwned>(&self, text: &str) -> Result<T, StoreError> {
        serde_json::from_str(text).map_err(|cause| self.corrupt(cause))
    }

    pub fn stage(&self, text: &str) -> Result<Stage, StoreError> {
        self.parse(text)
    }

    pub fn task(&self, text: &str) -> Result<Task, StoreError> {
        self.parse(text)
    }

    pub fn code(&self, text: &str) -> Result<Code, StoreError> {
        self.parse(text)
    }

    pub fn job_state(&self, text: &str) -> Result<JobState, StoreError> {
        JobState::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| self.corrupt(format!("'{text}' is no state of a job")))
    }

    pub fn file_role(&self, text: &str) -> Result<FileRole, StoreError> {
        FileRole::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| self.corrupt(format!("'{text}' is no role of a file")))
    }

    pub fn class(&self, number: i16) -> Result<Class, StoreError> {
        match number {
            0 => Ok(Class::Bulk),
            1 => Ok(Class::Normal),
            2 => Ok(Class::Interactive),
            other => Err(self.corrupt(format!("{other} is no class"))),
        }
    }

    pub fn weight(&self, percent: i16) -> Result<Weight, StoreError> {
        Weight::new(percent).ok_or_else(|| self.corrupt(format!("{percent} is no weight")))
    }
}

/// A value as the text of a `json` column. Values of ours always have one.
pub(super) fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("domain values have string keys and finite numbers")
}
