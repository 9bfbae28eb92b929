//! Schemas compiled once per tokenizer, under bounds on size and time.

use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use toktrie::{InferenceCapabilities, TokEnv};

use super::cache::{Cache, Key};
use super::walk::Walk;
use super::{GrammarError, check};
use crate::config::settings;

/// Regex work that llguidance does per millisecond, a fifth of what its documentation states.
const FUEL_PER_MS: u64 = 10_000;
/// Memory of one lexer state, the upper end of what its documentation states.
const BYTES_PER_LEXER_STATE: usize = 2_048;
/// Memory of one symbol of a production with its Earley items, estimated from above.
const BYTES_PER_SYMBOL: usize = 128;
/// Compiled form per byte of schema text, estimated from above.
const BYTES_PER_SCHEMA_BYTE: usize = 64;

/// Bounds of one grammar and of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub max_grammar_bytes: usize,
    pub max_grammar_ms: u64,
    pub cached_grammars: usize,
}

impl Options {
    pub fn new(engine: &settings::Engine) -> Self {
        Self {
            max_grammar_bytes: engine.max_grammar_bytes,
            max_grammar_ms: engine.max_grammar_ms,
            cached_grammars: 256,
        }
    }

    pub(super) fn max_schema_bytes(&self) -> usize {
        self.max_grammar_bytes / BYTES_PER_SCHEMA_BYTE
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new(&settings::Engine::default())
    }
}

/// Compiles schemas for one tokenizer. Cloning is cheap; clones share the cache.
#[derive(Clone)]
pub struct Compiler {
    inner: Arc<Inner>,
}

struct Inner {
    factory: ParserFactory,
    options: Options,
    /// The token that is a plain `"`, which closes a string at its limit.
    quote: Option<u32>,
    cache: Mutex<Cache>,
}

impl Compiler {
    /// Prepares the vocabulary's slices: some 100 ms for 50,000 tokens.
    pub fn new(env: TokEnv, options: Options) -> Self {
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        Self::with_slices(&env, options, &slices)
    }

    /// Slices make masks faster and cost time here; a compiler that only checks schemas has none.
    pub(super) fn with_slices(env: &TokEnv, options: Options, slices: &[String]) -> Self {
        let mut factory = ParserFactory::new(env, InferenceCapabilities::default(), slices)
            .expect("the slices are constant, valid expressions");
        factory.quiet();
        let limits = factory.limits_mut();
        limits.verbose_errors = false;
        limits.initial_lexer_fuel = limits.initial_lexer_fuel.min(options.max_grammar_ms * FUEL_PER_MS);
        limits.max_lexer_states =
            limits.max_lexer_states.min(options.max_grammar_bytes / BYTES_PER_LEXER_STATE);
        limits.max_grammar_size = limits.max_grammar_size.min(options.max_grammar_bytes / BYTES_PER_SYMBOL);
        let quote = env.tok_trie().token_id_at_bytes(b"\"");
        let cache = Mutex::new(Cache::new(options.cached_grammars));
        Self { inner: Arc::new(Inner { factory, options, quote, cache }) }
    }

    /// Compiles, or finds what was compiled before. Some 0.3 ms for a usual schema; bounded for any.
    ///
    /// `string_limit_bytes`: a string value that has this many bytes is closed as soon as the schema lets
    /// it end. It exceeds the limit by less than one token, unless `minLength`, `pattern` or `enum` want more.
    pub fn compile(&self, schema: &Value, string_limit_bytes: Option<u32>) -> Result<Grammar, GrammarError> {
        let text = schema.to_string();
        let key = key_of(&text, string_limit_bytes);
        if let Some(grammar) = self.cache().get(&key) {
            return Ok(grammar);
        }
        check::check_shape(schema, text.len(), &self.inner.options)?;
        let matcher = self.matcher(schema)?;
        let grammar = Grammar {
            compiled: Arc::new(Compiled {
                matcher: Mutex::new(matcher),
                env: self.inner.factory.tok_env().clone(),
                quote: self.inner.quote,
                string_limit_bytes,
            }),
        };
        self.cache().insert(key, grammar.clone());
        Ok(grammar)
    }

    /// Grammars held by the cache.
    pub fn n_cached(&self) -> usize {
        self.cache().len()
    }

    pub(super) fn matcher(&self, schema: &Value) -> Result<Matcher, GrammarError> {
        let parser = self.inner.factory.create_parser(TopLevelGrammar::from_json_schema(compact(schema)));
        let matcher = Matcher::new(parser);
        match matcher.get_error() {
            None => Ok(matcher),
            Some(error) => Err(GrammarError::Refused { reason: first_line(&error) }),
        }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.inner.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A compiled schema. Cloning is cheap.
#[derive(Clone)]
pub struct Grammar {
    compiled: Arc<Compiled>,
}

pub(super) struct Compiled {
    /// Never advanced: every walk starts from a copy.
    matcher: Mutex<Matcher>,
    pub(super) env: TokEnv,
    pub(super) quote: Option<u32>,
    pub(super) string_limit_bytes: Option<u32>,
}

impl Grammar {
    /// A walk at the grammar's start, with lexer state of its own: walks never wait for one another, and a
    /// fault in one stays there.
    pub fn start(&self) -> Walk {
        let matcher = self.compiled.matcher.lock().unwrap_or_else(PoisonError::into_inner).deep_clone();
        Walk::new(matcher, self.compiled.clone())
    }
}

/// The schema with our compile options; whatever options the schema itself carries are replaced.
fn compact(schema: &Value) -> Value {
    let mut schema = match schema {
        Value::Object(_) => schema.clone(),
        // the schema `true`; `false` was refused before
        _ => json!({}),
    };
    schema["x-guidance"] = json!({ "whitespace_flexible": false });
    schema
}

fn key_of(text: &str, string_limit_bytes: Option<u32>) -> Key {
    let mut hash = Sha256::new();
    // 0 and "no limit" differ: a limit of 0 closes every string at once
    hash.update(string_limit_bytes.map_or(u64::MAX, u64::from).to_le_bytes());
    hash.update(text.as_bytes());
    hash.finalize().into()
}

/// llguidance appends state dumps and backtraces to its messages.
pub(super) fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim().to_owned()
}
