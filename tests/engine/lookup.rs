//! Prompt lookup over the fake executor: drafts change the steps and not the answers.

use adit::config::settings::PromptLookup;
use adit::engine::executor::fake::{FakeExecutor, FakeOptions, Fault};
use adit::engine::handle::Options;
use adit::engine::request::{Finish, Request, Sampling};

use crate::rig::{Rng, engine, eventually, generate_all, is_whole, request, run};

/// A vocabulary of a few tokens makes drafts that often come true.
#[test]
fn random_traces_with_drafts_give_the_tokens_they_give_without() {
    let (mut drafted, mut accepted, mut preemptions, mut splits) = (0, 0, 0, 0);
    for seed in 0..700 {
        let mut rng = Rng(50_000 + seed);
        let vocab_size = rng.within(2, 12);
        let block_tokens = rng.within(1, 5);
        let mut fake = FakeOptions {
            vocab_size,
            block_tokens,
            n_blocks: rng.within(60, 150) / block_tokens,
            context_tokens: rng.within(30, 90),
            max_rows: rng.within(3, 64),
            seed,
            ..FakeOptions::default()
        };
        if rng.chance(20) {
            fake.rows_that_fit = rng.within(1, 10);
        }
        if rng.chance(20) {
            fake.faults.insert(rng.within(0, 15) as u64, Fault::OutOfMemory);
        }
        let options = Options {
            max_step_tokens: rng.within(1, 64),
            max_sequences: rng.within(1, 8),
            prefix_cache: rng.chance(70),
            prompt_lookup: if rng.chance(80) { PromptLookup::On } else { PromptLookup::Auto },
            ..Options::default()
        };
        let longest = fake.context_tokens.min(fake.n_blocks * fake.block_tokens) - 1;
        let requests: Vec<Request> = (0..rng.within(1, 10))
            .map(|_| {
                let n_tokens = rng.within(1, longest.min(30));
                let mut one = request(&rng.tokens(n_tokens, vocab_size), rng.within(1, 50) as u32);
                one.group = rng.within(0, 2) as u64;
                one.priority = rng.within(0, 1) as u8;
                one
            })
            .collect();
        run(async {
            let handle = engine(fake.clone(), options.clone());
            let answers = generate_all(&handle, requests.clone()).await;
            for (one, answer) in requests.iter().zip(&answers) {
                let room = (longest + 1 - one.prompt.len()).min(one.max_tokens as usize);
                let expected = FakeExecutor::expected(&fake, &one.prompt, None, room);
                assert_eq!((&answer.tokens, answer.finish), (&expected, Finish::Length), "seed {seed}");
                assert_eq!(answer.usage.output_tokens, room as u64);
            }
            let n_requests = requests.len() as u64;
            eventually("the ended are counted", || handle.stats().completed == n_requests).await;
            is_whole(&handle).await;
            let stats = handle.stats();
            assert!(stats.rows_last <= options.max_step_tokens.min(fake.max_rows), "the budget holds");
            assert!(stats.accepted_tokens <= stats.drafted_tokens);
            drafted += stats.drafted_tokens;
            accepted += stats.accepted_tokens;
            preemptions += stats.preemptions;
            splits += stats.splits;
            handle.close().await;
        });
    }
    println!("{accepted} of {drafted} draft tokens kept, {preemptions} preemptions, {splits} splits");
    assert!(drafted > 10_000 && accepted > 2_000, "{accepted} of {drafted}: too tame");
    assert!(preemptions > 50 && splits > 10, "{preemptions} {splits}: too tame");
}

#[test]
fn what_is_sampled_is_the_same_with_drafts() {
    run(async {
        let mut answers = Vec::new();
        for prompt_lookup in [PromptLookup::Off, PromptLookup::On] {
            let fake = FakeOptions { vocab_size: 3, n_blocks: 2_000, ..FakeOptions::default() };
            let handle = engine(fake, Options { prompt_lookup, ..Options::default() });
            let requests = (0..20_u32)
                .map(|n| {
                    let mut one = request(&[n % 3, 1, 2, 0, 1, 2], 60);
                    one.sampling = Sampling { temperature: 1.3, seed: n.into(), ..Sampling::default() };
                    one
                })
                .collect();
            answers.push(generate_all(&handle, requests).await);
            is_whole(&handle).await;
            assert_eq!(handle.stats().accepted_tokens > 50, prompt_lookup == PromptLookup::On);
        }
        assert_eq!(answers[0], answers[1]);
    });
}

/// Answers that repeat themselves are read several tokens a step; `auto` gets there by measuring, and where
/// rows are what costs it stays away from drafts.
#[test]
fn drafts_are_run_where_they_save_steps() {
    let repeating = |step_us: u64, row_us: u64| FakeOptions {
        vocab_size: 8,
        context_tokens: 4_000,
        n_blocks: 4_000,
        step_cost: std::time::Duration::from_micros(step_us),
        row_cost: std::time::Duration::from_micros(row_us),
        // one token is always the best
        bias: vec![(5, 1e6)],
        ..FakeOptions::default()
    };
    let stats = |fake: FakeOptions, prompt_lookup, n: u32| {
        let mut stats = None;
        run(async {
            let handle = engine(fake, Options { prompt_lookup, ..Options::default() });
            generate_all(&handle, (0..n).map(|n| request(&[n % 8, 1, 2], 400)).collect()).await;
            is_whole(&handle).await;
            stats = Some(handle.stats());
        });
        stats.unwrap()
    };
    let off = stats(repeating(0, 0), PromptLookup::Off, 1);
    let on = stats(repeating(0, 0), PromptLookup::On, 1);
    assert!(on.steps * 6 < off.steps, "{} steps with drafts, {} without", on.steps, off.steps);
    assert!(on.accepted_tokens > 300);
    let auto = stats(repeating(2_000, 1), PromptLookup::Auto, 4);
    assert!(auto.accepted_tokens > 300, "{} tokens were kept", auto.accepted_tokens);
    let dear = stats(repeating(0, 300), PromptLookup::Auto, 8);
    assert!(
        dear.drafted_tokens * 20 < dear.output_tokens,
        "{} draft tokens for {} tokens",
        dear.drafted_tokens,
        dear.output_tokens
    );
}
