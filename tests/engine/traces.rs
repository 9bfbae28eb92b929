//! Random traces through a whole engine. The fake executor's tokens depend on everything its block tables lead
//! to, so each answer is compared with one computed without any cache.

use adit::config::settings::PromptLookup;
use adit::engine::executor::fake::{FakeExecutor, FakeOptions, Fault};
use adit::engine::handle::Options;
use adit::engine::request::{Finish, Request};

use crate::rig::{Rng, engine, eventually, generate_all, is_whole, request, run};

fn check_answers(fake: &FakeOptions, requests: &[Request], answers: &[adit::engine::request::Completion]) {
    for (request, answer) in requests.iter().zip(answers) {
        let room = (fake.context_tokens.min(fake.n_blocks * fake.block_tokens) - request.prompt.len())
            .min(request.max_tokens as usize);
        let mut expected = FakeExecutor::expected(fake, &request.prompt, None, room);
        let end = expected.iter().position(|token| request.stop.contains(token));
        let finish = if end.is_some() { Finish::Stop } else { Finish::Length };
        expected.truncate(end.unwrap_or(expected.len()));
        assert_eq!(answer.tokens, expected);
        assert_eq!(answer.finish, finish);
        assert_eq!(answer.usage.prompt_tokens, request.prompt.len() as u64);
        assert_eq!(answer.usage.output_tokens, expected.len() as u64);
        assert!(answer.usage.prefix_hit_tokens < answer.usage.prompt_tokens);
    }
}

/// Small pools, shared heads, several groups and priorities, steps that run out of memory: every sequence
/// ends with the right tokens and nothing stays behind.
#[test]
fn every_sequence_ends_with_the_tokens_it_would_have_alone() {
    let (mut preemptions, mut hits, mut splits) = (0, 0, 0);
    for seed in 0..300 {
        let mut rng = Rng(seed);
        let block_tokens = rng.within(1, 6);
        let mut fake = FakeOptions {
            vocab_size: 64,
            block_tokens,
            n_blocks: rng.within(80, 200) / block_tokens,
            context_tokens: rng.within(60, 120),
            max_rows: rng.within(4, 64),
            seed,
            ..FakeOptions::default()
        };
        if rng.chance(30) {
            fake.rows_that_fit = rng.within(1, 8);
        }
        fake.chooses = rng.chance(50);
        if rng.chance(30) {
            fake.faults.insert(rng.within(0, 20) as u64, Fault::OutOfMemory);
        }
        let options = Options {
            max_step_tokens: rng.within(1, 64),
            max_sequences: rng.within(1, 12),
            prefix_cache: rng.chance(80),
            mask_threads: rng.within(0, 1),
            ..Options::default()
        };
        let head_tokens = rng.within(1, 30);
        let heads = [rng.tokens(head_tokens, 64), rng.tokens(12, 64)];
        let longest = fake.context_tokens.min(fake.n_blocks * fake.block_tokens) - 1;
        let requests: Vec<Request> = (0..rng.within(1, 20))
            .map(|_| {
                let mut prompt = if rng.chance(70) { heads[rng.within(0, 1)].clone() } else { Vec::new() };
                let n_own = rng.within(1, 20);
                prompt.extend(rng.tokens(n_own, 64));
                prompt.truncate(longest);
                let mut request = request(&prompt, rng.within(1, 60) as u32);
                request.group = rng.within(0, 3) as u64;
                request.priority = rng.within(0, 2) as u8;
                request.stop = [rng.within(0, 63) as u32].into();
                request
            })
            .collect();
        run(async {
            let handle = engine(fake.clone(), options.clone());
            let answers = generate_all(&handle, requests.clone()).await;
            check_answers(&fake, &requests, &answers);
            // an answer is delivered before the step's statistics are published
            let n_requests = requests.len() as u64;
            eventually("the ended are counted", || handle.stats().completed == n_requests).await;
            is_whole(&handle).await;
            let stats = handle.stats();
            assert_eq!((stats.completed, stats.failed), (n_requests, 0), "seed {seed}");
            assert!(stats.rows_last <= options.max_step_tokens.min(fake.max_rows));
            preemptions += stats.preemptions;
            hits += stats.prefix_hit_tokens;
            splits += stats.splits;
            handle.close().await;
        });
    }
    assert!(preemptions > 100 && hits > 1_000 && splits > 10, "{preemptions} {hits} {splits}: too tame");
}

/// Callers that go away at random leave the others' answers and the pool alone.
#[test]
fn dropped_callers_leave_nothing_behind() {
    for seed in 0..60 {
        let mut rng = Rng(1_000 + seed);
        let fake =
            FakeOptions { vocab_size: 64, n_blocks: 40, context_tokens: 150, seed, ..FakeOptions::default() };
        let options = Options { max_sequences: 5, max_step_tokens: 16, ..Options::default() };
        let head = rng.tokens(20, 64);
        let requests: Vec<Request> = (0..16)
            .map(|_| {
                let mut prompt = head.clone();
                prompt.extend(rng.tokens(5, 64));
                request(&prompt, rng.within(5, 60) as u32)
            })
            .collect();
        let patience: Vec<Option<u64>> =
            (0..16).map(|_| rng.chance(50).then(|| rng.within(0, 3) as u64)).collect();
        run(async {
            let handle = engine(fake.clone(), options);
            let calls = requests.iter().zip(&patience).map(|(request, patience)| {
                let call = handle.generate(request.clone());
                async move {
                    match patience {
                        None => Some(call.await.unwrap()),
                        Some(ms) => tokio::time::timeout(std::time::Duration::from_millis(*ms), call)
                            .await
                            .ok()
                            .map(Result::unwrap),
                    }
                }
            });
            let answers = futures::future::join_all(calls).await;
            for (request, answer) in requests.iter().zip(answers) {
                if let Some(answer) = answer {
                    check_answers(&fake, std::slice::from_ref(request), &[answer]);
                }
            }
            is_whole(&handle).await;
            handle.close().await;
        });
    }
}

#[test]
fn a_head_is_computed_once_for_all_who_share_it() {
    run(async {
        let fake = FakeOptions { vocab_size: 64, n_blocks: 400, ..FakeOptions::default() };
        let options = Options { max_step_tokens: 32, prompt_lookup: PromptLookup::Off, ..Options::default() };
        let handle = engine(fake.clone(), options);
        let mut rng = Rng(5);
        let head = rng.tokens(100, 64);
        let requests: Vec<Request> = (0..20)
            .map(|_| {
                let mut prompt = head.clone();
                prompt.extend(rng.tokens(6, 64));
                request(&prompt, 4)
            })
            .collect();
        let answers = generate_all(&handle, requests.clone()).await;
        check_answers(&fake, &requests, &answers);
        let hits: Vec<u64> = answers.iter().map(|answer| answer.usage.prefix_hit_tokens).collect();
        assert_eq!(hits.iter().filter(|&&hit| hit == 0).count(), 1, "{hits:?}");
        assert!(hits.iter().all(|&hit| hit == 0 || hit == 100), "{hits:?}");
        is_whole(&handle).await;
        // the head once, each tail once, each answer but its last token once
        assert_eq!(handle.stats().rows, 100 + 20 * (6 + 3));
    });
}

/// The `head` workload's shape: of what could come from the cache, at least 95 % has to, whatever the batches.
/// Here all of it does; one head computed twice would be 0.4 % less.
#[test]
fn nearly_all_of_a_shared_head_is_hit() {
    const ITEMS: usize = 256;
    let mut rng = Rng(6);
    for (max_step_tokens, max_sequences, n_blocks, n_heads) in
        [(512, 64, 2_048, 1), (512, 64, 2_048, 2), (128, 8, 2_048, 1), (512, 64, 600, 3)]
    {
        let fake = FakeOptions {
            vocab_size: 1_000,
            block_tokens: 16,
            n_blocks,
            context_tokens: 2_048,
            ..FakeOptions::default()
        };
        let heads: Vec<Vec<u32>> = (0..n_heads).map(|_| rng.tokens(400, 1_000)).collect();
        let requests: Vec<Request> = (0..ITEMS)
            .map(|n| {
                let mut prompt = heads[n % n_heads].clone();
                let n_own = rng.within(80, 120);
                prompt.extend(rng.tokens(n_own, 1_000));
                let mut one = request(&prompt, 20);
                one.group = (n % n_heads) as u64;
                one
            })
            .collect();
        run(async {
            let options = Options { max_step_tokens, max_sequences, ..Options::default() };
            let handle = engine(fake, options);
            let answers = generate_all(&handle, requests).await;
            let hits: u64 = answers.iter().map(|answer| answer.usage.prefix_hit_tokens).sum();
            // each head has to be computed once; a head is 25 whole blocks
            let possible = ((ITEMS - n_heads) * 400) as u64;
            let share = hits as f64 / possible as f64;
            println!(
                "{n_heads} heads, {max_sequences} sequences, {n_blocks} blocks: {:.2} % of what is possible",
                100.0 * share
            );
            assert!(share >= 0.999, "{hits} of {possible} tokens");
            is_whole(&handle).await;
        });
    }
}

/// With one place, requests that wait together begin by priority and then by age.
#[test]
fn order_is_by_priority_then_age() {
    for seed in 0..60 {
        let mut rng = Rng(seed);
        let fake = FakeOptions { vocab_size: 64, n_blocks: 400, seed, ..FakeOptions::default() };
        let begun = fake.begun.clone();
        let priorities: Vec<u8> =
            // the first runs at once, and into the lock
            (0..30).map(|n| if n == 0 { 9 } else { rng.within(0, 3) as u8 }).collect();
        run(async {
            let handle =
                engine(fake, Options { max_sequences: 1, prefix_cache: false, ..Options::default() });
            let calls = priorities.iter().enumerate().map(|(n, &priority)| {
                let mut one = request(&[n as u32, 3, 4], rng.within(2, 9) as u32);
                one.priority = priority;
                handle.generate(one)
            });
            let closed = begun.lock().unwrap();
            // polled in this order: all are sent before the lock is released
            futures::future::join(futures::future::join_all(calls), async move { drop(closed) }).await;
        });
        let begun = begun.lock().unwrap();
        let order: Vec<_> = begun.iter().map(|&n| (std::cmp::Reverse(priorities[n as usize]), n)).collect();
        assert_eq!(order.len(), 30);
        assert!(order.is_sorted(), "seed {seed}: {order:?}");
    }
}

#[test]
fn adapters_do_not_share_a_prefix() {
    // adapters are told apart by the hash's root; the pool's own test shows that. Here: none is known.
    run(async {
        let handle = engine(FakeOptions::default(), Options::default());
        let mut one = request(&[1, 2, 3], 2);
        one.adapter = Some(adit::engine::request::AdapterId(0));
        let error = handle.generate(one).await.unwrap_err();
        assert!(matches!(error, adit::engine::request::EngineError::UnknownAdapter(_)));
    });
}

#[test]
fn a_lone_request_starts_within_a_few_steps_behind_a_huge_group() {
    run(async {
        let fake = FakeOptions {
            vocab_size: 64,
            n_blocks: 2_000,
            step_cost: std::time::Duration::from_micros(300),
            ..FakeOptions::default()
        };
        let handle = engine(fake, Options { max_sequences: 8, ..Options::default() });
        let crowd: Vec<_> = (0..400)
            .map(|n| {
                let handle = handle.clone();
                let mut one = request(&[n % 64, 1, 2, 3, 4], 200);
                one.group = 1;
                async move { handle.generate(one).await }
            })
            .collect();
        let crowd = futures::future::join_all(crowd);
        let lone = async {
            eventually("the crowd runs", || handle.stats().running == 8 && handle.stats().steps > 20).await;
            let before = handle.stats().steps;
            let mut one = request(&[9, 9, 9], 3);
            one.group = 2;
            handle.generate(one).await.unwrap();
            handle.stats().steps - before
        };
        let steps = tokio::select! {
            steps = lone => steps,
            _ = crowd => panic!("the crowd ended first"),
        };
        assert!(steps <= 3 + 12, "{steps} steps for three tokens");
        is_whole(&handle).await;
    });
}

#[test]
fn dropping_the_future_frees_the_blocks_at_once() {
    run(async {
        let fake = FakeOptions {
            vocab_size: 64,
            context_tokens: 4_000,
            n_blocks: 1_000,
            step_cost: std::time::Duration::from_millis(2),
            ..FakeOptions::default()
        };
        let handle = engine(fake, Options::default());
        {
            let call = handle.generate(request(&[1; 40], 3_000));
            tokio::pin!(call);
            tokio::select! {
                _ = &mut call => panic!("it cannot be done yet"),
                () = eventually("it runs", || handle.stats().kv_blocks_used > 10) => {}
            }
        }
        let at_drop = handle.stats().steps;
        is_whole(&handle).await;
        let stats = handle.stats();
        assert!(stats.steps <= at_drop + 2, "{} steps after the drop", stats.steps - at_drop);
        assert_eq!(stats.cancelled, 1);
    });
}
