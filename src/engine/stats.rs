//! What the engine has done and holds, as one value.

use crate::config::settings::PromptLookup;

/// What the engine may use to do less work, as it was started. None but `merge_adapters` changes an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levers {
    /// A head that several prompts share is computed once.
    pub prefix_cache: bool,
    /// Tokens that the schema forces are appended without sampling.
    pub jump_forward: bool,
    /// Drafts found in the prompt are read along and verified.
    pub prompt_lookup: PromptLookup,
    /// An adapter that runs alone for long is merged into a copy of the base. Rounds otherwise than the adapter
    /// beside the base does.
    pub merge_adapters: bool,
    /// Sequences that may run at once.
    pub max_sequences: usize,
}

/// Counters since the engine started, and gauges as of the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    pub levers: Levers,
    // counters
    pub steps: u64,
    /// Rows (tokens) that went through the forward pass, recomputed ones included.
    pub rows: u64,
    /// Rows of batches that ran on a copy of the base with their adapter merged in.
    pub merged_rows: u64,
    pub prompt_tokens: u64,
    pub prefix_hit_tokens: u64,
    pub output_tokens: u64,
    pub forced_tokens: u64,
    /// Draft tokens that were read along, and those of them that were chosen indeed.
    pub drafted_tokens: u64,
    pub accepted_tokens: u64,
    /// Sequences that ended with a completion, with an error, and because nobody waited any more.
    pub completed: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub preemptions: u64,
    /// Steps that were split because the device had no memory for them.
    pub splits: u64,
    /// Time in forward passes, of whole steps (masks, sampling and bookkeeping included), and of steps in
    /// which nothing but masks was worked on: `mask_ms_sum / step_ms_sum` is what masks cost.
    pub forward_ms_sum: f64,
    pub step_ms_sum: f64,
    pub mask_ms_sum: f64,
    /// Time in which chosen tokens were taken in: grammars move on and say what they force next.
    pub advance_ms_sum: f64,
    // gauges
    pub step_ms_last: f64,
    pub step_ms_max: f64,
    /// Rows of the last step.
    pub rows_last: usize,
    pub running: usize,
    pub queued: usize,
    /// Blocks that sequences hold.
    pub kv_blocks_used: usize,
    /// Blocks that nobody holds and the prefix cache can still use.
    pub kv_blocks_cached: usize,
    pub kv_blocks_total: usize,
}
