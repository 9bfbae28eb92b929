//! Answers under schemas, with a real BPE tokenizer and random logits.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use adit::config::settings::PromptLookup;
use adit::engine::executor::fake::FakeOptions;
use adit::engine::grammar::{
    Choice, Compiler, Grammar, GrammarError, Options as GrammarOptions, check_schema,
};
use adit::engine::handle::Options;
use adit::engine::request::{Completion, EngineError, Finish, Request, Sampling};
use serde_json::{Value, json};
use toktrie::TokEnv;

use crate::memory::peak_bytes;
use crate::rig::{Rng, engine, generate_all, is_whole, request, run};
use crate::schemas;

/// The committed tokenizer's `<|im_end|>`.
pub const STOP: u32 = 2;
const VOCAB: usize = 1_344;

pub static ENV: LazyLock<TokEnv> = LazyLock::new(|| {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizer.json");
    let mut tokenizer = toktrie_hf_tokenizers::ByteTokenizer::from_file(file).unwrap();
    tokenizer.set_eos_token(STOP);
    tokenizer.into_tok_env(Some(VOCAB)).unwrap()
});

static COMPILER: LazyLock<Compiler> = LazyLock::new(|| Compiler::new(ENV.clone(), GrammarOptions::default()));

pub fn compile(schema: &Value, limit: Option<u32>) -> Grammar {
    COMPILER.compile(schema, limit).unwrap()
}

/// Text in the tokenizer's canonical form.
pub fn encode(text: &str) -> Vec<u32> {
    ENV.tokenize(text)
}

pub fn fake(seed: u64) -> FakeOptions {
    FakeOptions { vocab_size: VOCAB, n_blocks: 6_000, context_tokens: 3_000, seed, ..FakeOptions::default() }
}

pub fn constrained(schema: &Value, limit: Option<u32>, prompt: u32) -> Request {
    let mut one = request(&[40 + prompt, 41, 42, 43, 44, 45], 1_500);
    one.grammar = Some(COMPILER.compile(schema, limit).unwrap());
    one.stop = [STOP].into();
    one
}

fn text(answer: &Completion) -> String {
    // an answer cut at its limit may end inside a character
    String::from_utf8_lossy(&ENV.tok_trie().decode(&answer.tokens)).into_owned()
}

/// The answer parses, is compact, and an independent validator takes it.
fn check_valid(name: &str, schema: &Value, answer: &Completion) -> Value {
    let text = text(answer);
    assert_eq!(answer.finish, Finish::Stop, "{name}: {text}");
    assert!(String::from_utf8(ENV.tok_trie().decode(&answer.tokens)).is_ok(), "{name}: {text}");
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
    let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
    assert!(validator.is_valid(&value), "{name}: {text}");
    value
}

#[test]
fn random_logits_give_valid_answers_under_every_schema() {
    run(async {
        let mut n_forced = 0;
        for seed in 0..4 {
            let handle = engine(fake(seed), Options { mask_threads: 2, ..Options::default() });
            let schemas = schemas::all();
            let requests = schemas
                .iter()
                .enumerate()
                .map(|(n, (_, schema))| {
                    let mut one = constrained(schema, Some(20), n as u32);
                    if seed % 2 == 1 {
                        one.sampling = Sampling { temperature: 1.0, seed, ..Sampling::default() };
                    }
                    one
                })
                .collect();
            let answers = generate_all(&handle, requests).await;
            for ((name, schema), answer) in schemas.iter().zip(&answers) {
                check_valid(name, schema, answer);
                n_forced += answer.usage.forced_tokens;
                assert_eq!(answer.usage.output_tokens, answer.tokens.len() as u64);
            }
            is_whole(&handle).await;
        }
        assert!(n_forced > 200, "{n_forced} tokens were forced");
    });
}

/// Greedy and drawn, with and without a grammar, drafts and what branches say: whoever chooses, all is the same.
#[test]
fn an_executor_that_chooses_gives_the_same_answers() {
    run(async {
        for seed in 0..3 {
            let mut answers = Vec::new();
            for chooses in [false, true] {
                let options = Options {
                    mask_threads: 2,
                    max_sequences: 5,
                    prompt_lookup: PromptLookup::On,
                    ..Options::default()
                };
                let handle = engine(FakeOptions { chooses, ..fake(seed) }, options);
                let schemas = schemas::all();
                let requests = schemas.iter().enumerate().map(|(n, (_, schema))| {
                    let mut one = constrained(schema, Some(24), n as u32);
                    one.branches = n % 3 != 0;
                    if n % 4 == 1 {
                        one.sampling = Sampling { temperature: 0.8, seed, ..Sampling::default() };
                    }
                    if n % 5 == 2 {
                        one.grammar = None;
                        one.max_tokens = 40;
                    }
                    one
                });
                answers.push(generate_all(&handle, requests.collect()).await);
            }
            let n_branches: usize = answers[0].iter().map(|answer| answer.branches.len()).sum();
            assert!(n_branches > 50, "{n_branches}");
            for (want, got) in answers[0].iter().zip(&answers[1]) {
                assert_eq!((&got.tokens, got.finish, got.usage), (&want.tokens, want.finish, want.usage));
                assert_eq!(got.branches.len(), want.branches.len());
                for (got, want) in got.branches.iter().zip(&want.branches) {
                    assert_eq!((got.at, got.n_allowed), (want.at, want.n_allowed));
                    assert!((got.logprob - want.logprob).abs() < 1e-4, "{got:?} for {want:?}");
                }
            }
        }
    });
}

#[test]
fn jump_forward_changes_the_time_and_not_the_answer() {
    run(async {
        for seed in 0..4 {
            let mut answers = Vec::new();
            for jump_forward in [true, false] {
                let handle = engine(fake(seed), Options { jump_forward, ..Options::default() });
                let requests = schemas::all()
                    .iter()
                    .enumerate()
                    .map(|(n, (_, schema))| {
                        let mut one = constrained(schema, Some(24), n as u32);
                        one.max_tokens = if n % 5 == 4 { 17 } else { 1_500 };
                        if n % 2 == 1 {
                            one.sampling = Sampling { temperature: 0.8, seed, ..Sampling::default() };
                        }
                        one
                    })
                    .collect();
                answers.push(generate_all(&handle, requests).await);
            }
            for ((name, _), (with, without)) in schemas::all().iter().zip(answers[0].iter().zip(&answers[1]))
            {
                assert_eq!(text(with), text(without), "{name}");
                assert_eq!(with.tokens, without.tokens, "{name}: {}", text(with));
                assert_eq!(with.finish, without.finish, "{name}");
                assert_eq!(without.usage.forced_tokens, 0);
            }
        }
        let mut steps = Vec::new();
        for jump_forward in [true, false] {
            let handle = engine(fake(1), Options { jump_forward, ..Options::default() });
            generate_all(&handle, vec![constrained(&schemas::concept(&["a", "b"]), Some(12), 0)]).await;
            is_whole(&handle).await;
            steps.push(handle.stats().steps);
        }
        assert!(steps[0] * 3 < steps[1] * 2, "{steps:?}");
    });
}

/// Tokens of a random answer under the schema.
fn random_answer(schema: &Value, seed: u64) -> Vec<u32> {
    let mut rng = Rng(seed);
    let mut walk = compile(schema, Some(16)).start();
    let mut answer = Vec::new();
    while !walk.is_complete() {
        let token = match walk.choices(&[]).unwrap() {
            Choice::Only(token) => token,
            Choice::Mask(mask) => {
                let allowed = mask.to_list();
                allowed[rng.within(0, allowed.len() - 1)]
            }
        };
        if walk.is_end(token) {
            break;
        }
        walk.accept(token).unwrap();
        answer.push(token);
    }
    answer
}

/// Forced text is tokenised as the tokenizer itself does it: along the canonical tokens of a valid answer,
/// whatever is forced is what stands there.
#[test]
fn forced_tokens_are_canonical() {
    let (mut n_answers, mut n_forced, mut n_tokens) = (0, 0, 0);
    for (name, schema) in schemas::all() {
        for seed in 0..30 {
            let Ok(text) = String::from_utf8(ENV.tok_trie().decode(&random_answer(&schema, seed))) else {
                continue;
            };
            let canonical = encode(&text);
            let mut walk = compile(&schema, None).start();
            let mut at = 0;
            while !walk.is_complete() && at < canonical.len() {
                let forced = walk.take_forced().unwrap();
                assert!(
                    canonical[at..].starts_with(&forced),
                    "{name}: {forced:?} at {at} of {canonical:?}: {text}"
                );
                at += forced.len();
                n_forced += forced.len();
                let Some(&token) = canonical.get(at) else { break };
                walk.accept(token)
                    .unwrap_or_else(|error| panic!("{name}: {token} at {at} of {text}: {error}"));
                at += 1;
            }
            assert_eq!(at, canonical.len(), "{name}: {text}");
            n_answers += 1;
            n_tokens += canonical.len();
        }
    }
    println!("{n_forced} of {n_tokens} tokens of {n_answers} answers were forced");
    assert!(n_answers > 300 && n_forced * 10 > n_tokens * 2, "{n_forced} of {n_tokens} in {n_answers}");
}

#[test]
fn drafts_change_no_answer_under_a_grammar() {
    run(async {
        let mut answers = Vec::new();
        for prompt_lookup in [PromptLookup::Off, PromptLookup::On] {
            let handle = engine(fake(5), Options { prompt_lookup, ..Options::default() });
            let mut requests = Vec::new();
            for (n, (_, schema)) in schemas::all().iter().enumerate() {
                for text in
                    ["customer order_line customer order", "one_to_one many_to_one order customer sku"]
                {
                    let mut one = constrained(schema, Some(24), n as u32);
                    let mut prompt = encode(text);
                    prompt.extend(encode(&schema.to_string()));
                    one.prompt = prompt.into();
                    requests.push(one);
                }
            }
            answers.push(generate_all(&handle, requests).await);
            is_whole(&handle).await;
            let stats = handle.stats();
            println!(
                "{prompt_lookup:?}: {} steps, {} drafted, {} kept",
                stats.steps, stats.drafted_tokens, stats.accepted_tokens
            );
            assert_eq!(stats.accepted_tokens > 5, prompt_lookup == PromptLookup::On);
        }
        for (a, b) in answers[0].iter().zip(&answers[1]) {
            assert_eq!((&a.tokens, a.finish), (&b.tokens, b.finish));
        }
    });
}

#[test]
fn a_batch_gives_each_item_the_answer_it_gets_alone() {
    run(async {
        let schemas = schemas::all();
        let requests: Vec<Request> = schemas
            .iter()
            .enumerate()
            .map(|(n, (_, schema))| constrained(schema, Some(16), n as u32))
            .collect();
        let crowded = Options { max_sequences: 7, max_step_tokens: 11, ..Options::default() };
        let handle = engine(FakeOptions { n_blocks: 900, ..fake(9) }, crowded);
        let together = generate_all(&handle, requests.clone()).await;
        let alone = engine(fake(9), Options { prefix_cache: false, ..Options::default() });
        for (request, together) in requests.into_iter().zip(together) {
            assert_eq!(alone.generate(request).await.unwrap().tokens, together.tokens);
        }
    });
}

fn strings<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(list) => list.iter().for_each(|value| strings(value, found)),
        Value::Object(map) => map.values().for_each(|value| strings(value, found)),
        _ => {}
    }
}

#[test]
fn strings_are_closed_at_their_limit() {
    // no quote is ever chosen freely, so every string runs into its limit
    let quotes: Vec<(u32, f32)> = (0..VOCAB as u32)
        .filter(|&token| ENV.tok_trie().token(token).contains(&b'"'))
        .map(|token| (token, -1e6))
        .collect();
    let longest_token = (0..VOCAB as u32).map(|token| ENV.tok_trie().token_len(token)).max().unwrap();
    run(async {
        for limit in [0_u32, 1, 10, 60] {
            for name in ["string", "object", "nested", "nullable", "concept", "attribute"] {
                let schema = schemas::all().into_iter().find(|(other, _)| *other == name).unwrap().1;
                let handle =
                    engine(FakeOptions { bias: quotes.clone(), ..fake(limit.into()) }, Options::default());
                let answer = handle.generate(constrained(&schema, Some(limit), 1)).await.unwrap();
                let value = check_valid(name, &schema, &answer);
                let mut found = Vec::new();
                strings(&value, &mut found);
                let longest = found.iter().map(|text| text.len()).max().unwrap_or(0);
                let enums = "order_line".len().max("identifier".len()).max("association".len());
                let bound = (limit as usize + 2 * longest_token).max(enums);
                assert!(longest <= bound, "{name}: {longest} bytes at a limit of {limit}: {value}");
                if limit == 60 && name == "object" {
                    assert!(longest >= 10, "the limit of 60 closed at {longest}");
                }
            }
        }
    });
}

#[test]
fn too_few_tokens_end_with_length() {
    run(async {
        let handle = engine(fake(1), Options::default());
        let mut one = constrained(&schemas::concept(&["a", "b"]), Some(10), 0);
        one.max_tokens = 12;
        let answer = handle.generate(one).await.unwrap();
        assert_eq!((answer.tokens.len(), answer.finish), (12, Finish::Length));
    });
}

#[test]
fn an_answer_that_is_all_forced_needs_no_step() {
    run(async {
        let handle = engine(fake(1), Options::default());
        let schema = json!({"const": {"only": ["this", "answer"]}});
        let answer = handle.generate(constrained(&schema, None, 0)).await.unwrap();
        check_valid("const", &schema, &answer);
        assert_eq!(text(&answer), r#"{"only":["this","answer"]}"#);
        let usage = answer.usage;
        assert!(usage.forced_tokens + 1 >= usage.output_tokens && usage.forced_tokens > 3, "{usage:?}");
    });
}

#[test]
fn keys_keep_the_schemas_order() {
    run(async {
        let handle = engine(fake(2), Options::default());
        let schema = json!({"type": "object", "additionalProperties": false, "required": ["z", "a", "m"],
            "properties": {"z": {"type": "boolean"}, "a": {"type": "boolean"}, "m": {"type": "boolean"}}});
        let answer = handle.generate(constrained(&schema, None, 0)).await.unwrap();
        let value = check_valid("order", &schema, &answer);
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["z", "a", "m"]);
    });
}

#[test]
fn what_cannot_be_enforced_is_refused_with_its_path() {
    let cases = [
        (json!({"type": "array", "uniqueItems": true}), "/uniqueItems"),
        (json!({"properties": {"a/b": {"not": {}}}}), "/properties/a~1b/not"),
        (json!({"type": "object", "propertyNames": {"maxLength": 3}}), "/propertyNames"),
        (json!({"if": {}, "then": {}, "else": {}}), "/if"),
        (json!({"items": {"anyOf": [{"type": "null"}, {"contains": {}}]}}), "/items/anyOf/1/contains"),
        (json!({"$defs": {"x": {"dependentRequired": {}}}}), "/$defs/x/dependentRequired"),
        (json!({"items": {"unevaluatedProperties": false}}), "/items/unevaluatedProperties"),
        (json!({"type": "string", "format": "iban"}), "/format"),
        (json!({"$ref": "https://example.com/schema.json"}), "/$ref"),
        (json!({"properties": {"a": 3}}), "/properties/a"),
        (json!({"prefixItems": {}}), "/prefixItems"),
        (json!({"enum": []}), "/enum"),
        (json!({"minItems": -1}), "/minItems"),
        (json!(false), "/"),
        (json!([]), "/"),
    ];
    for (schema, path) in cases {
        let error = check_schema(&schema).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{path}: ")), "{schema}: {error}");
        let compiled = COMPILER.compile(&schema, None).err();
        assert_eq!(compiled, Some(error), "{schema}");
    }
    for (name, schema) in schemas::all() {
        check_schema(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    check_schema(&json!(true)).unwrap();
    check_schema(&json!({"title": "t", "description": "d", "default": 1, "examples": [], "x-note": 1}))
        .unwrap();
}

#[test]
fn what_the_compiler_refuses_is_refused_without_a_tokenizer_too() {
    let refused = [
        json!({"type": "string", "pattern": "(?=a)b"}),
        json!({"type": "string", "pattern": "("}),
        json!({"type": "strang"}),
        json!({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}),
        json!({"type": "integer", "minimum": 5, "maximum": 1}),
        json!({"$ref": "#/$defs/missing"}),
        json!({"allOf": [{"type": "string"}, {"type": "integer"}]}),
    ];
    for schema in refused {
        let error = check_schema(&schema).expect_err(&schema.to_string());
        assert!(matches!(error, GrammarError::Refused { .. }), "{schema}: {error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

/// Time that this thread has had a core, so that other work on the machine does not count; where the system
/// does not say, time on the wall.
fn busy() -> Duration {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    let ns = std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok());
    ns.map_or_else(|| STARTED.elapsed(), Duration::from_nanos)
}

/// Each of these ends within two seconds: refused, or compiled and then held to the step limits.
#[test]
fn hostile_schemas_end_in_time_and_memory() {
    // the once-per-process parts are not the schema's
    check_schema(&json!(true)).unwrap();
    compile(&json!({}), None);
    let mut deep = json!({"type": "string"});
    for _ in 0..500 {
        deep = json!({"type": "array", "items": deep});
    }
    let wide: Vec<Value> =
        (0..3_990).map(|n| json!({"type": "string", "pattern": format!("^a{n}.*b{n}$")})).collect();
    let mut doubling = json!({"type": "object"});
    for n in 0..40 {
        doubling["$defs"][format!("d{n}")] = json!({"anyOf": [{"$ref": format!("#/$defs/d{}", n + 1)}, {"$ref": format!("#/$defs/d{}", n + 1)}]});
    }
    doubling["$defs"]["d40"] = json!({"type": "null"});
    doubling["$ref"] = json!("#/$defs/d0");
    let crossed: Vec<Value> = (0..14)
        .map(|n| json!({"anyOf": [{"properties": {format!("a{n}"): {"type": "string"}}}, {"properties": {format!("b{n}"): {"type": "string"}}}]}))
        .collect();
    let hostile = [
        ("deep", deep, true),
        ("wide", json!({"anyOf": wide}), false),
        ("doubling", doubling, false),
        ("crossed", json!({"type": "object", "allOf": crossed}), false),
        ("pattern", json!({"type": "string", "pattern": "((a{1,500}){1,500}){1,500}"}), false),
        ("pattern2", json!({"type": "string", "pattern": "^(.*a.{1000}.*b.{1000}|.*c.{900})$"}), false),
        ("long pattern", json!({"type": "string", "pattern": "a".repeat(100_000)}), true),
        ("items", json!({"type": "array", "items": {"type": "string"}, "minItems": 1_000_000_000_u64}), true),
        (
            "many items",
            json!({"type": "array", "minItems": 9_999, "items": {"type": "array", "minItems": 9_999, "items": {"type": "array", "minItems": 9_999}}}),
            false,
        ),
        ("length", json!({"type": "string", "minLength": 10_000, "maxLength": 10_000}), false),
        ("itself", json!({"$ref": "#"}), false),
        (
            "loop",
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
            false,
        ),
        ("enum", json!({"enum": (0..200_000).collect::<Vec<u32>>()}), true),
        (
            "big enum",
            json!({"enum": (0..9_999).map(|n| format!("value {n} {}", "x".repeat(50))).collect::<Vec<String>>()}),
            false,
        ),
        ("multiple", json!({"type": "number", "multipleOf": 1e-300}), true),
        ("multiple2", json!({"type": "integer", "multipleOf": 999_999_937_u64}), true),
        ("multiple3", json!({"type": "integer", "multipleOf": 999_983}), true),
        ("multiple4", json!({"type": "number", "multipleOf": 0.000_007, "maximum": 1e15}), false),
        ("multiple5", json!({"type": "integer", "multipleOf": 9_973}), false),
        (
            "multiples that meet",
            json!({"allOf": [{"type": "integer", "multipleOf": 997}, {"multipleOf": 991}, {"multipleOf": 983}]}),
            true,
        ),
        (
            "multiples apart",
            json!({"anyOf": (9_000..9_900).map(|n| json!({"type": "integer", "multipleOf": n})).collect::<Vec<Value>>()}),
            true,
        ),
        (
            "patterns that meet",
            json!({"type": "string", "allOf": (1..14).map(|n| json!({"pattern": format!("a.{{{}}}b", 17 * n)})).collect::<Vec<Value>>()}),
            false,
        ),
        ("too many", json!({"anyOf": (0..4_100).map(|n| json!({"const": n})).collect::<Vec<Value>>()}), true),
        (
            "branches",
            json!({"anyOf": (0..1_900).map(|n| json!({"type": "object", "properties": {format!("k{n}"): {"type": "string"}}})).collect::<Vec<Value>>()}),
            false,
        ),
        (
            "long patterns",
            json!({"anyOf": (0..100).map(|n| json!({"type": "string", "pattern": format!("^{n}{}$", "(ab|cd?){1,9}x*".repeat(120))})).collect::<Vec<Value>>()}),
            false,
        ),
        (
            "keys by pattern",
            json!({"type": "object", "patternProperties": (0..1_500).map(|n| (format!("^.*{n}.*$"), json!({"type": "string"}))).collect::<serde_json::Map<_, _>>()}),
            false,
        ),
        (
            "too many properties",
            json!({"properties": (0..2_001).map(|n| (format!("p{n}"), json!(true))).collect::<serde_json::Map<_, _>>()}),
            true,
        ),
        (
            "required",
            json!({"type": "object", "additionalProperties": false, "required": (0..990).map(|n| format!("p{n}")).collect::<Vec<String>>(),
                "properties": (0..2_000).map(|n| (format!("p{n}"), json!({"type": "string", "maxLength": 9_000}))).collect::<serde_json::Map<_, _>>()}),
            false,
        ),
        (
            "optional",
            json!({"type": "object", "properties": (0..2_000).map(|n| (format!("p{n}"), json!({"type": "string"}))).collect::<serde_json::Map<_, _>>()}),
            false,
        ),
    ];
    for (name, schema, must_be_refused) in hostile {
        let started = busy();
        let (checked, check_bytes) = peak_bytes(|| check_schema(&schema));
        let check_took = busy() - started;
        let started = busy();
        let (compiled, compile_bytes) = peak_bytes(|| COMPILER.compile(&schema, None));
        let compile_took = busy() - started;
        println!(
            "{name}: check {check_took:?} and {:.1} MiB, compile {compile_took:?} and {:.1} MiB, {:?}",
            check_bytes as f64 / f64::from(1 << 20),
            compile_bytes as f64 / f64::from(1 << 20),
            checked.as_ref().err().map(ToString::to_string)
        );
        assert!(check_took < Duration::from_secs(2), "{name}: {check_took:?}");
        assert!(compile_took < Duration::from_secs(2), "{name}: {compile_took:?}");
        assert!(
            check_bytes.max(compile_bytes) <= 64 << 20,
            "{name}: {check_bytes} and {compile_bytes} bytes"
        );
        assert!(!must_be_refused || checked.is_err(), "{name} was accepted");
        assert_eq!(checked.is_ok(), compiled.is_ok(), "{name}: {:?} {:?}", checked.err(), compiled.err());
        if let Ok(grammar) = compiled {
            let started = busy();
            let ((), walk_bytes) = peak_bytes(|| {
                let mut rng = Rng(1);
                let mut walk = grammar.start();
                for _ in 0..20 {
                    if walk.is_complete() || walk.take_forced().is_err() || walk.is_complete() {
                        break;
                    }
                    let token = match walk.choices(&[]) {
                        Ok(adit::engine::grammar::Choice::Only(token)) => token,
                        Ok(adit::engine::grammar::Choice::Mask(mask)) => {
                            let allowed = mask.to_list();
                            allowed[rng.within(0, allowed.len() - 1)]
                        }
                        Err(error) => {
                            assert!(matches!(error, EngineError::Grammar(_)));
                            break;
                        }
                    };
                    if walk.is_end(token) || walk.accept(token).is_err() {
                        break;
                    }
                }
            });
            println!(
                "{name}: 20 tokens in {:?} and {:.1} MiB",
                (busy() - started),
                walk_bytes as f64 / f64::from(1 << 20)
            );
            assert!(walk_bytes <= 64 << 20, "{name}: the walk took {walk_bytes} bytes");
            assert!(
                (busy() - started) < Duration::from_secs(4),
                "{name}: the walk took {:?}",
                (busy() - started)
            );
        }
    }
}

#[test]
fn grammars_are_kept_and_the_oldest_goes() {
    let options = GrammarOptions { cached_grammars: 3, ..GrammarOptions::default() };
    let compiler = Compiler::new(toktrie::ApproximateTokEnv::single_byte_env(), options);
    let schema = |n: usize| json!({"const": n});
    for n in 0..10 {
        compiler.compile(&schema(n), None).unwrap();
        compiler.compile(&schema(n), None).unwrap();
        assert_eq!(compiler.n_cached(), (n + 1).min(3));
    }
    compiler.compile(&schema(9), Some(3)).unwrap();
    assert_eq!(compiler.n_cached(), 3, "the limit is part of the key");
}

/// A vocabulary of single bytes: no token spans two parts of the answer, so limits are exact.
#[test]
fn limits_are_exact_over_single_bytes() {
    run(async {
        let env = toktrie::ApproximateTokEnv::single_byte_env();
        let compiler = Compiler::new(env.clone(), GrammarOptions::default());
        let schema = schemas::concept(&["t"]);
        let handle = engine(
            FakeOptions {
                vocab_size: env.tok_trie().vocab_size(),
                n_blocks: 2_000,
                context_tokens: 2_000,
                bias: vec![(34, -1e6)],
                ..FakeOptions::default()
            },
            Options::default(),
        );
        let mut one = request(&[1, 2, 3], 1_500);
        one.grammar = Some(compiler.compile(&schema, Some(12)).unwrap());
        let answer = handle.generate(one).await.unwrap();
        let text = String::from_utf8(answer.tokens.iter().map(|&token| token as u8).collect()).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let written = text.split("\"description\":\"").nth(1).unwrap().split("\"}").next().unwrap();
        assert!((12..=12 + 6).contains(&written.len()), "{written}");
        assert!(jsonschema::is_valid(&schema, &value));
    });
}
