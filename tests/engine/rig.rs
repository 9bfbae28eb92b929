//! What the tests share: an engine over a fake executor, requests, a small generator of randomness.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use adit::engine::executor::fake::{FakeExecutor, FakeOptions};
use adit::engine::handle::{Handle, Options, spawn};
use adit::engine::request::{Completion, Request, Sampling};

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// From `low` to `high`, both possible.
    pub fn within(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub fn tokens(&mut self, n: usize, vocab_size: usize) -> Vec<u32> {
        (0..n).map(|_| (self.next() % vocab_size as u64) as u32).collect()
    }
}

pub fn request(prompt: &[u32], max_tokens: u32) -> Request {
    Request {
        prompt: Arc::from(prompt),
        adapter: None,
        grammar: None,
        sampling: Sampling::default(),
        max_tokens,
        stop: Arc::from([]),
        priority: 0,
        group: 0,
        logprobs: None,
        branches: false,
    }
}

pub fn engine(fake: FakeOptions, options: Options) -> Handle {
    spawn(Box::new(FakeExecutor::new(fake)), options)
}

/// Runs a test's future; a caller that hangs fails the test.
pub fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await })
        .expect("the test hangs")
}

/// Waits until `is_true` holds; the engine publishes its figures once a step.
pub async fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    for _ in 0..5_000 {
        if is_true() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never: {what}");
}

/// Nothing runs, waits or holds a block.
pub async fn is_whole(handle: &Handle) {
    eventually("the pool is whole", || {
        let stats = handle.stats();
        stats.running == 0 && stats.queued == 0 && stats.kv_blocks_used == 0
    })
    .await;
}

pub async fn generate_all(handle: &Handle, requests: Vec<Request>) -> Vec<Completion> {
    let answers = requests.into_iter().map(|request| handle.generate(request));
    futures::future::join_all(answers).await.into_iter().map(|answer| answer.unwrap()).collect()
}
