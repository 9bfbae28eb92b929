//! Sequences of different adapters in one step.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit::engine::executor::fake::{FakeExecutor, FakeOptions};
use adit::engine::executor::{Executor, ExecutorError};
use adit::engine::handle::{Options, spawn};
use adit::nn::batch::Batch;
use adit::nn::weights::adapter::Adapter;
use adit::nn::weights::checkpoint::Checkpoint;

use crate::rig::{generate_all, is_whole, request, run};

/// Remembers the adapters of each step's spans, in order.
struct Watched {
    inner: FakeExecutor,
    steps: Arc<Mutex<Vec<Vec<Option<u32>>>>>,
}

impl Executor for Watched {
    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }
    fn block_tokens(&self) -> usize {
        self.inner.block_tokens()
    }
    fn n_blocks(&self) -> usize {
        self.inner.n_blocks()
    }
    fn context_tokens(&self) -> usize {
        self.inner.context_tokens()
    }
    fn max_rows(&self) -> usize {
        self.inner.max_rows()
    }
    fn forward(&mut self, batch: &Batch) -> Result<&[f32], ExecutorError> {
        self.steps.lock().unwrap().push(batch.spans.iter().map(|span| span.adapter).collect());
        self.inner.forward(batch)
    }
    fn add_adapter(&mut self, adapter: Arc<Adapter>) -> Result<u32, ExecutorError> {
        self.inner.add_adapter(adapter)
    }
    fn remove_adapter(&mut self, slot: u32) {
        self.inner.remove_adapter(slot);
    }
}

fn concept() -> Arc<Adapter> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama");
    let base = Checkpoint::open(&fixture.join("base")).unwrap();
    Arc::new(Adapter::load(&fixture.join("adapter_concept"), base.config()).unwrap())
}

#[test]
fn sequences_of_one_adapter_lie_side_by_side() {
    run(async {
        let adapter = concept();
        // long enough, and slow enough, that all of them run together
        let step_cost = Duration::from_millis(2);
        let fake = FakeOptions { vocab_size: 64, step_cost, ..FakeOptions::default() };
        let steps = Arc::new(Mutex::new(Vec::new()));
        let executor = Watched { inner: FakeExecutor::new(fake.clone()), steps: steps.clone() };
        let handle = spawn(Box::new(executor), Options::default());
        let mut adapters = vec![None];
        for _ in 0..2 {
            adapters.push(Some(handle.add_adapter(adapter.clone()).await.unwrap()));
        }
        let calls = (0..9_u32).map(|n| {
            let adapter = adapters[n as usize % 3];
            handle.generate(adit::engine::request::Request { adapter, ..request(&[n, 1, 2], 60) })
        });
        for (n, answer) in futures::future::join_all(calls).await.into_iter().enumerate() {
            let slot = [None, Some(0), Some(1)][n % 3];
            let expected = FakeExecutor::expected(&fake, &[n as u32, 1, 2], slot, 60);
            assert_eq!(answer.unwrap().tokens, expected, "sequence {n}");
        }
        is_whole(&handle).await;
        let steps = steps.lock().unwrap();
        let mixed = |step: &Vec<Option<u32>>| {
            step.len() > 3 && [None, Some(0), Some(1)].iter().all(|a| step.contains(a))
        };
        assert!(steps.iter().any(mixed), "some step had several of each: {steps:?}");
        assert!(steps.iter().all(|step| step.is_sorted()), "{steps:?}");
    });
}

/// Rows of a job that is alone move to the merged copy, those of a mixed batch do not, and the copy goes with its
/// adapter. Off, nothing is merged.
#[test]
fn an_adapter_that_runs_alone_is_merged() {
    run(async {
        let fake = FakeOptions { vocab_size: 64, n_blocks: 256, ..FakeOptions::default() };
        for merge_adapters in [true, false] {
            let options = Options { merge_adapters, ..Options::default() };
            let handle = spawn(Box::new(FakeExecutor::new(fake.clone())), options);
            let first = handle.add_adapter(concept()).await.unwrap();
            let second = handle.add_adapter(concept()).await.unwrap();
            let job = |adapter, n_items: u32| {
                let prompts = (0..n_items).map(|n| [n % 64, n / 64, 7].repeat(40));
                let requests =
                    prompts.map(|prompt| adit::engine::request::Request { adapter, ..request(&prompt, 4) });
                let requests = requests.collect();
                // rows on the copy so far, once all that the job did is counted
                async {
                    generate_all(&handle, requests).await;
                    is_whole(&handle).await;
                    handle.stats().merged_rows
                }
            };
            assert_eq!(job(Some(first), 40).await, 0, "too short to pay");
            let after = job(Some(first), 200).await;
            assert_eq!(after > 0, merge_adapters, "{after} rows on the copy");
            assert_eq!(job(Some(second), 20).await, after, "others do not run on it");
            assert_eq!(job(None, 20).await, after, "nor does the base");
            let later = job(Some(first), 20).await;
            assert_eq!(later > after, merge_adapters, "it is still there");
            handle.remove_adapter(first).await.unwrap();
            assert_eq!(job(Some(second), 20).await, later, "gone with its adapter");
        }
    });
}
