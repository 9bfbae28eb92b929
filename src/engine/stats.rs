//! What the engine has done and holds, as one value.

/// Counters since the engine started, and gauges as of the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    // counters
    pub steps: u64,
    /// Rows (tokens) that went through the forward pass, recomputed ones included.
    pub rows: u64,
    pub prompt_tokens: u64,
    pub prefix_hit_tokens: u64,
    pub output_tokens: u64,
    pub forced_tokens: u64,
    /// Sequences that ended with a completion, with an error, and because nobody waited any more.
    pub completed: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub preemptions: u64,
    /// Steps that were split because the device had no memory for them.
    pub splits: u64,
    /// Time in forward passes, and of whole steps (masks, sampling and bookkeeping included).
    pub forward_ms_sum: f64,
    pub step_ms_sum: f64,
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
