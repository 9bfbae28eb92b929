//! Parts of a source that could not be read, and were left out because the client asked for that.

use serde::{Deserialize, Serialize};

/// One part, by its place. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omission {
    pub line: u64,
    pub column: u64,
    pub message: String,
}

/// How many there were, and the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omissions {
    pub total: u64,
    pub listed: Vec<Omission>,
}

impl Omissions {
    /// Of more than these only the number is kept: a source of nothing but errors is no reason to keep it twice.
    pub const MAX_LISTED: usize = 1_000;

    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    pub fn push(&mut self, omission: Omission) {
        self.total += 1;
        if self.listed.len() < Self::MAX_LISTED {
            self.listed.push(omission);
        }
    }
}
