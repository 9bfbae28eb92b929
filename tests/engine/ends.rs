//! How things end: refusals, faults of the device, a panic, a close. No caller may hang.

use std::collections::HashMap;
use std::time::Duration;

use adit::engine::executor::fake::{FakeExecutor, FakeOptions, Fault};
use adit::engine::handle::Options;
use adit::engine::request::{EngineError, Finish, Sampling};

use crate::rig::{engine, eventually, generate_all, is_whole, request, run};

fn slow(faults: HashMap<u64, Fault>) -> FakeOptions {
    FakeOptions { vocab_size: 64, faults, step_cost: Duration::from_millis(1), ..FakeOptions::default() }
}

#[test]
fn a_device_error_fails_the_steps_sequences_and_no_other() {
    run(async {
        let fake = slow(HashMap::from([(3, Fault::Device)]));
        let handle = engine(fake.clone(), Options { max_sequences: 2, ..Options::default() });
        let calls = (0..6_u32).map(|n| handle.generate(request(&[n, 1, 2], 10)));
        let answers = futures::future::join_all(calls).await;
        let failed: Vec<_> = answers.iter().filter(|answer| answer.is_err()).collect();
        assert_eq!(failed.len(), 2);
        assert!(failed.iter().all(|answer| matches!(answer, Err(EngineError::Device(_)))));
        for (n, answer) in answers.iter().enumerate() {
            if let Ok(answer) = answer {
                assert_eq!(answer.tokens, FakeExecutor::expected(&fake, &[n as u32, 1, 2], None, 10));
            }
        }
        is_whole(&handle).await;
        assert_eq!(handle.stats().failed, 2);
    });
}

#[test]
fn logits_that_are_not_numbers_are_an_error() {
    run(async {
        let handle = engine(slow(HashMap::from([(1, Fault::NotFinite)])), Options::default());
        let error = handle.generate(request(&[1, 2], 5)).await.unwrap_err();
        assert!(matches!(error, EngineError::Device(_)), "{error}");
        assert!(handle.generate(request(&[1, 2], 5)).await.is_ok());
    });
}

#[test]
fn a_step_that_does_not_fit_is_split_until_it_does() {
    run(async {
        let fake = FakeOptions { rows_that_fit: 3, ..slow(HashMap::new()) };
        let handle = engine(fake.clone(), Options::default());
        let prompts: Vec<Vec<u32>> = (0..5).map(|n| vec![n; 17]).collect();
        let answers = generate_all(&handle, prompts.iter().map(|prompt| request(prompt, 6)).collect()).await;
        for (prompt, answer) in prompts.iter().zip(answers) {
            assert_eq!(answer.tokens, FakeExecutor::expected(&fake, prompt, None, 6));
        }
        assert!(handle.stats().splits > 0);
    });
}

#[test]
fn one_row_without_memory_is_a_device_error() {
    run(async {
        let handle = engine(FakeOptions { rows_that_fit: 0, ..slow(HashMap::new()) }, Options::default());
        let error = handle.generate(request(&[1, 2, 3], 6)).await.unwrap_err();
        assert!(matches!(error, EngineError::Device(_)), "{error}");
        is_whole(&handle).await;
    });
}

#[test]
fn a_panic_closes_whoever_waits() {
    run(async {
        let handle = engine(
            slow(HashMap::from([(4, Fault::Panic)])),
            Options { max_sequences: 2, ..Options::default() },
        );
        let calls = (0..8_u32).map(|n| handle.generate(request(&[n], 50)));
        for answer in futures::future::join_all(calls).await {
            assert!(matches!(answer, Err(EngineError::Closed)));
        }
        assert!(matches!(handle.generate(request(&[1], 5)).await, Err(EngineError::Closed)));
        handle.close().await;
        assert!(handle.is_closed());
    });
}

/// Tells when it is dropped.
struct Watched(FakeExecutor, std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.1.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

impl adit::engine::executor::Executor for Watched {
    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }
    fn block_tokens(&self) -> usize {
        self.0.block_tokens()
    }
    fn n_blocks(&self) -> usize {
        self.0.n_blocks()
    }
    fn context_tokens(&self) -> usize {
        self.0.context_tokens()
    }
    fn max_rows(&self) -> usize {
        self.0.max_rows()
    }
    fn forward(
        &mut self,
        batch: &adit::nn::batch::Batch,
    ) -> Result<&[f32], adit::engine::executor::ExecutorError> {
        self.0.forward(batch)
    }
    fn add_adapter(
        &mut self,
        adapter: std::sync::Arc<adit::nn::weights::adapter::Adapter>,
    ) -> Result<u32, adit::engine::executor::ExecutorError> {
        self.0.add_adapter(adapter)
    }
    fn remove_adapter(&mut self, slot: u32) {
        self.0.remove_adapter(slot);
    }
}

#[test]
fn close_returns_when_the_executor_is_gone() {
    run(async {
        let is_dropped = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let executor = Watched(FakeExecutor::new(slow(HashMap::new())), is_dropped.clone());
        let handle = adit::engine::handle::spawn(Box::new(executor), Options::default());
        let call = {
            let handle = handle.clone();
            async move { handle.generate(request(&[1], 400)).await }
        };
        let close = async {
            eventually("it runs", || handle.stats().running == 1).await;
            assert!(!is_dropped.load(std::sync::atomic::Ordering::SeqCst));
            handle.close().await;
            assert!(is_dropped.load(std::sync::atomic::Ordering::SeqCst));
        };
        let (answer, ()) = futures::future::join(call, close).await;
        assert!(matches!(answer, Err(EngineError::Closed)));
        handle.close().await;
    });
}

#[test]
fn the_last_handle_ends_the_thread() {
    run(async {
        let is_dropped = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let executor = Watched(FakeExecutor::new(slow(HashMap::new())), is_dropped.clone());
        drop(adit::engine::handle::spawn(Box::new(executor), Options::default()));
        eventually("the executor is dropped", || is_dropped.load(std::sync::atomic::Ordering::SeqCst)).await;
    });
}

#[test]
fn the_queue_is_bounded() {
    run(async {
        let handle =
            engine(slow(HashMap::new()), Options { max_sequences: 1, max_queued: 3, ..Options::default() });
        let calls = (0..10).map(|_| handle.generate(request(&[1, 2], 20)));
        let answers = futures::future::join_all(calls).await;
        let refused =
            answers.iter().filter(|answer| matches!(answer, Err(EngineError::QueueFull { queued: 3 })));
        assert!((6..=7).contains(&refused.count()));
        assert!(handle.generate(request(&[1], 1)).await.is_ok(), "places come back");
    });
}

#[test]
fn what_cannot_run_is_refused_at_once() {
    run(async {
        let fake = FakeOptions { context_tokens: 32, ..slow(HashMap::new()) };
        let handle = engine(fake, Options::default());
        let long = handle.generate(request(&[1; 32], 1)).await.unwrap_err();
        assert!(matches!(long, EngineError::PromptTooLong { prompt_tokens: 32, context_tokens: 32, .. }));
        for bad in [request(&[], 1), request(&[1], 0), request(&[64], 1)] {
            assert!(matches!(handle.generate(bad).await, Err(EngineError::InvalidRequest(_))));
        }
        let mut bad = request(&[1], 1);
        bad.sampling = Sampling { temperature: f32::NAN, ..Sampling::default() };
        assert!(matches!(handle.generate(bad).await, Err(EngineError::InvalidRequest(_))));
        let end = handle.generate(request(&[1; 30], 100)).await.unwrap();
        assert_eq!((end.tokens.len(), end.finish), (2, Finish::Length), "the context ends");
    });
}

#[test]
fn samples_depend_on_the_request_alone() {
    run(async {
        let handle = engine(slow(HashMap::new()), Options::default());
        let sampled = |seed: u64| {
            let mut one = request(&[5, 6, 7], 30);
            one.sampling = Sampling { temperature: 1.5, top_k: 20, top_p: 0.9, min_p: 0.01, seed };
            one
        };
        let alone = generate_all(&handle, vec![sampled(1)]).await;
        let mut crowd: Vec<_> = (0..20).map(|n| request(&[n, 3], 25)).collect();
        crowd.push(sampled(1));
        crowd.push(sampled(2));
        let together = generate_all(&handle, crowd).await;
        assert_eq!(alone[0].tokens, together[20].tokens);
        assert_ne!(alone[0].tokens, together[21].tokens, "the seed matters");
    });
}
