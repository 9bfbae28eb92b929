//! Token counts of one answer, and their sum over many.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the rendered prompt.
    pub prompt_tokens: u64,
    /// Of those, tokens whose KV was found in the prefix cache.
    pub prefix_hit_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// Of those, tokens that the schema left no choice about and that were not sampled.
    pub forced_tokens: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.prompt_tokens += other.prompt_tokens;
        self.prefix_hit_tokens += other.prefix_hit_tokens;
        self.output_tokens += other.output_tokens;
        self.forced_tokens += other.forced_tokens;
    }
}
