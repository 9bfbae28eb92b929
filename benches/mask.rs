//! What a grammar costs: compile, start of a walk, masks and forced tokens.
//!
//! `cargo bench --bench mask [-- path/to/tokenizer.json]` prints a table; `ADIT_TEST_GGUF=<file>` takes the
//! tokenizer of a checkpoint; without either the committed one of 1,310 tokens is used. Walks choose uniformly among the allowed tokens and close strings at
//! 120 bytes, which is dearer than what a model does.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../tests/engine/schemas.rs"]
mod schemas;

use std::path::Path;
use std::time::Instant;

use adit::engine::grammar::{Choice, Compiler, Options, check_schema};
use adit::models::tokenizer::Tokenizer;
use adit::nn::weights::checkpoint::Checkpoint;
use serde_json::Value;
use toktrie::TokEnv;

fn main() {
    let env = tokens();
    let started = Instant::now();
    let compiler = Compiler::new(env.clone(), Options { cached_grammars: 1, ..Options::default() });
    println!("{} tokens, prepared in {:.1} ms", env.tok_trie().vocab_size(), ms(started));
    println!(
        "{:>14} {:>9} {:>10} {:>9} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8}",
        "schema",
        "check ms",
        "compile ms",
        "start us",
        "mask p50",
        "p99",
        "force p50",
        "p99",
        "tokens",
        "forced"
    );
    let columns: Vec<String> = (0..30).map(|n| format!("column_{n}")).collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    report(&compiler, "concept", &schemas::concept(&["customer", "order", "order_line", "product"]));
    report(&compiler, "relationship", &schemas::relationship());
    report(&compiler, "attribute", &schemas::attribute(&["id", "e_mail", "created at", "amount"]));
    report(&compiler, "attribute x30", &schemas::attribute(&columns));
}

/// The tokenizer that was asked for.
fn tokens() -> TokEnv {
    if let Some(file) = std::env::var_os("ADIT_TEST_GGUF") {
        let file = Path::new(&file);
        let checkpoint = Checkpoint::open(file).unwrap();
        let content = checkpoint.gguf().expect("a .gguf file");
        return Tokenizer::from_gguf(content, file, checkpoint.config().vocab, &[]).unwrap().env();
    }
    let path = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"))
        .unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizer.json").into());
    toktrie_hf_tokenizers::ByteTokenizer::from_file(&path).unwrap().into_tok_env(None).unwrap()
}

fn report(compiler: &Compiler, name: &str, schema: &Value) {
    let (mut checks, mut compiles, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    let (mut masks, mut forces) = (Vec::new(), Vec::new());
    let (mut n_tokens, mut n_forced) = (0, 0);
    let mut random = 1_u64;
    for round in 0..20 {
        let started = Instant::now();
        check_schema(schema).unwrap();
        checks.push(ms(started));
        let started = Instant::now();
        // another limit is another entry of the cache, which holds one
        let grammar = compiler.compile(schema, Some(120 + round)).unwrap();
        compiles.push(ms(started));
        let started = Instant::now();
        let mut walk = grammar.start();
        starts.push(ms(started) * 1e3);
        for _ in 0..2_000 {
            let started = Instant::now();
            let forced = walk.take_forced().unwrap();
            forces.push(ms(started) * 1e3);
            n_tokens += forced.len();
            n_forced += forced.len();
            if walk.is_complete() {
                break;
            }
            let started = Instant::now();
            let choice = walk.choices(&[]).unwrap();
            masks.push(ms(started) * 1e3);
            let token = match choice {
                Choice::Only(token) => token,
                Choice::Mask(mask) => {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let allowed = mask.to_list();
                    allowed[(random >> 33) as usize % allowed.len()]
                }
            };
            if walk.is_end(token) {
                break;
            }
            n_tokens += 1;
            walk.accept(token).unwrap();
        }
    }
    println!(
        "{name:>14} {:>9.2} {:>10.2} {:>9.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {n_tokens:>9} {:>7}%",
        at(&mut checks, 0.5),
        at(&mut compiles, 0.5),
        at(&mut starts, 0.5),
        at(&mut masks, 0.5),
        at(&mut masks, 0.99),
        at(&mut forces, 0.5),
        at(&mut forces, 0.99),
        n_forced * 100 / n_tokens
    );
}

fn at(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}

fn ms(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}
