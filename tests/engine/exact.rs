//! What the engine does to save work changes no token: a small real model, real grammars, 500 items.

use std::path::Path;

use adit::config::settings::PromptLookup;
use adit::engine::executor::cpu::CpuExecutor;
use adit::engine::handle::{Handle, Options, spawn};
use adit::engine::request::{Completion, Request, Sampling};
use adit::engine::stats::Stats;
use adit::nn::model::{LoadOptions, Model};
use adit::nn::weights::checkpoint::Checkpoint;

use crate::grammar::{STOP, compile, encode};
use crate::rig::{Rng, generate_all, is_whole, request, run};
use crate::schemas;
use crate::tiny::{Arch, tiny_model};

const N_ITEMS: usize = 500;

fn engine(path: &Path, options: Options) -> Handle {
    let checkpoint = Checkpoint::open(path).unwrap();
    let load = LoadOptions {
        threads: 1,
        block_tokens: 16,
        kv_tokens: 16_384,
        max_rows: options.max_step_tokens,
        context_tokens: 2_048,
        ..LoadOptions::default()
    };
    let model = Model::load(&checkpoint, &load, &mut |_| {}).unwrap();
    spawn(Box::new(CpuExecutor::new(model)), options)
}

/// Items of many schemas behind a shared head. Own texts repeat words, so that some answers copy.
fn items() -> Vec<Request> {
    let schemas: Vec<_> = schemas::all().into_iter().map(|(_, schema)| compile(&schema, Some(14))).collect();
    let head = encode("Describe each column of the table: what it holds, and of which type it is.\n");
    (0..N_ITEMS)
        .map(|n| {
            let mut prompt = head.clone();
            let text = format!("Table {n}: order customer order customer, note {} {}.", n % 7, n * n % 31);
            prompt.extend(encode(&text));
            let mut one = request(&prompt, if n % 9 == 8 { 19 } else { 90 });
            // without a grammar, a random model soon goes round in circles: that is what drafts are for
            one.grammar = (n % 5 != 4).then(|| schemas[n % schemas.len()].clone());
            one.stop = [STOP].into();
            one.group = (n % 3) as u64;
            if n % 4 == 3 {
                one.sampling = Sampling { temperature: 0.7, seed: n as u64, ..Sampling::default() };
            }
            one
        })
        .collect()
}

fn answers(path: &Path, options: Options) -> (Vec<Completion>, Stats) {
    let mut rng = Rng(3);
    let mut found = None;
    run(async {
        let handle = engine(path, options);
        // the same items in another order each time make other batches
        let mut order: Vec<usize> = (0..N_ITEMS).collect();
        order.sort_by_cached_key(|_| rng.next());
        let items = items();
        let shuffled = order.iter().map(|&n| items[n].clone()).collect();
        let mut answers: Vec<_> = order.into_iter().zip(generate_all(&handle, shuffled).await).collect();
        is_whole(&handle).await;
        answers.sort_by_key(|(n, _)| *n);
        found = Some((answers.into_iter().map(|(_, answer)| answer).collect(), handle.stats()));
        handle.close().await;
    });
    found.unwrap()
}

#[test]
fn five_hundred_items_have_the_same_tokens_with_every_lever() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny_model(dir.path(), Arch::Llama, 11);
    let plain = Options {
        jump_forward: false,
        prefix_cache: false,
        prompt_lookup: PromptLookup::Off,
        max_sequences: 16,
        ..Options::default()
    };
    let (expected, base) = answers(&path, plain.clone());
    assert_eq!((base.forced_tokens, base.drafted_tokens, base.prefix_hit_tokens), (0, 0, 0));
    let jump = Options { jump_forward: true, ..plain.clone() };
    let lookup = Options { prompt_lookup: PromptLookup::On, ..plain.clone() };
    let all = Options {
        jump_forward: true,
        prefix_cache: true,
        prompt_lookup: PromptLookup::On,
        max_sequences: 40,
        ..plain
    };
    for (name, options) in [("jump_forward", jump), ("prompt_lookup", lookup), ("all", all)] {
        let (found, stats) = answers(&path, options.clone());
        for (n, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.tokens, expected.tokens, "{name}: item {n}");
            assert_eq!(found.finish, expected.finish, "{name}: item {n}");
        }
        let share = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        println!(
            "{name:>14}: {} steps for {}, {} rows for {}; {:.1} % of output tokens forced, {:.1} % of {} draft tokens kept",
            stats.steps,
            base.steps,
            stats.rows,
            base.rows,
            share(stats.forced_tokens, stats.output_tokens),
            share(stats.accepted_tokens, stats.drafted_tokens),
            stats.drafted_tokens
        );
        if options.jump_forward {
            assert!(share(stats.forced_tokens, stats.output_tokens) > 15.0, "{name}: too little was forced");
        }
        if options.prompt_lookup == PromptLookup::On {
            assert!(stats.accepted_tokens > 500, "{name}: {} draft tokens were kept", stats.accepted_tokens);
        }
        assert!(stats.steps < base.steps, "{name}");
    }
}
