//! What the card would take for a load if it did nothing but what must be done.

use serde::Serialize;

use super::shape::Load;
use crate::models::device::Ceilings;
use crate::nn::arch::ModelConfig;
use crate::nn::arch::names::Module;

/// Work that cannot be left out, and the times it takes at the measured rates.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limit {
    pub tflop: f64,
    pub tb: f64,
    pub compute_s: f64,
    pub traffic_s: f64,
    /// Arithmetic and traffic overlap perfectly, and not at all.
    pub overlapped_s: f64,
    pub apart_s: f64,
}

/// `output_tokens` were sampled in all; `concurrent` requests run at a time. A shared beginning is computed once, and
/// read once a step; weights are read once a step, and steps are as many as the answers of a wave are long.
pub fn limit(
    config: &ModelConfig,
    load: &Load,
    output_tokens: u64,
    concurrent: usize,
    card: &Ceilings,
) -> Limit {
    let weights: usize =
        Module::ALL.iter().map(|module| module.shape(config).iter().product::<usize>()).sum();
    let (weights, head) = ((weights * config.n_layers) as f64, (config.vocab * config.hidden) as f64);
    let (n, shared) = (load.requests as f64, load.shared_tokens as f64);
    let (prompt, sampled) = (load.prompt_tokens as f64, output_tokens as f64);
    let each = sampled / n;
    let rows = shared + n * (prompt - shared) + sampled - n;
    // positions that computed rows see
    let sum_to = |n: f64| n * (n + 1.0) / 2.0;
    let seen = sum_to(shared) + n * (sum_to(prompt + each - 1.0) - sum_to(shared));
    let attention = 4.0 * (config.n_layers * config.q_dim()) as f64;
    let flop = 2.0 * weights * rows + 2.0 * head * sampled + attention * seen;
    let kv = (config.n_layers * config.kv_dim() * 2 * 2) as f64;
    let steps = (n / concurrent.max(1) as f64).ceil() * each;
    let own = n * (sum_to(prompt + each) - sum_to(prompt) - each * shared);
    let bytes = steps * (2.0 * (weights + head) + kv * shared) + own * kv;
    let (compute_s, traffic_s) = (flop / (card.product_tflop_s * 1e12), bytes / (card.gb_s * 1e9));
    Limit {
        tflop: flop / 1e12,
        tb: bytes / 1e12,
        compute_s,
        traffic_s,
        overlapped_s: compute_s.max(traffic_s),
        apart_s: compute_s + traffic_s,
    }
}
