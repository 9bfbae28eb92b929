//! What a schema may contain, checked before any tokenizer is at hand.
//!
//! First a walk that names the path of a keyword we cannot enforce and bounds size and depth; then a trial
//! compile over a vocabulary of single bytes, which finds whatever else the grammar compiler refuses. The
//! verdict does not depend on the model.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Map, Value};
use toktrie::ApproximateTokEnv;

use super::GrammarError;
use super::compiler::{Compiler, Options};

/// Nesting of subschemas. The compiler recurses; this keeps it within a 2 MiB stack.
const MAX_DEPTH: usize = 64;
/// Subschemas in all. The compiler takes up to 20 KiB for each.
const MAX_SUBSCHEMAS: usize = 4_000;
/// Properties of one object: optional ones take time by their square, 0.4 s for so many.
const MAX_PROPERTIES: usize = 2_000;
/// Members of one `enum`.
const MAX_ENUM: usize = 10_000;
/// Bytes of one `pattern`.
const MAX_PATTERN_BYTES: usize = 2_048;
/// Any `minLength`, `maxItems` and so on.
const MAX_COUNT: usize = 10_000;
/// A `multipleOf` in units of its last decimal place, the sum of different ones, and their product where they
/// may meet: the lexer has a state of some 400 bytes for each remainder.
const MAX_MULTIPLE: u64 = 10_000;
const MIN_MULTIPLE: f64 = 1e-6;

/// Assertions that no mask can hold, of any draft. Annotations are not listed, they may stay.
const UNSUPPORTED: [&str; 23] = [
    "not",
    "if",
    "then",
    "else",
    "uniqueItems",
    "propertyNames",
    "contains",
    "minContains",
    "maxContains",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$dynamicAnchor",
    "$recursiveRef",
    "$recursiveAnchor",
    "contentSchema",
    "divisibleBy",
    "disallow",
    "extends",
    "$vocabulary",
];

const FORMATS: [&str; 11] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "unknown"];

/// Whether every model can be held to this schema. For submission time; some 0.5 ms for a usual schema.
pub fn check_schema(schema: &Value) -> Result<(), GrammarError> {
    static CHECKER: LazyLock<(Options, Compiler)> = LazyLock::new(|| {
        let options = Options::default();
        let env = ApproximateTokEnv::single_byte_env();
        (options.clone(), Compiler::with_slices(&env, options, &[]))
    });
    let (options, compiler) = &*CHECKER;
    check_shape(schema, schema.to_string().len(), options)?;
    compiler.matcher(schema).map(drop)
}

/// The part of the check that needs no compiler.
pub(super) fn check_shape(
    schema: &Value,
    schema_bytes: usize,
    options: &Options,
) -> Result<(), GrammarError> {
    let limit = options.max_schema_bytes();
    if schema_bytes > limit {
        return Err(GrammarError::TooLarge { path: "/".into(), what: "the schema's size in bytes", limit });
    }
    let mut shape = Shape { path: Vec::new(), n_subschemas: 0, multiples: BTreeSet::new(), combines: false };
    shape.check(schema)
}

/// A walk over subschemas that knows where it is.
struct Shape<'a> {
    path: Vec<Step<'a>>,
    n_subschemas: usize,
    /// Each `multipleOf` in units of its last decimal place.
    multiples: BTreeSet<u64>,
    /// Whether subschemas may hold for the same value: an `allOf` or a reference was seen.
    combines: bool,
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Shape<'a> {
    fn check(&mut self, schema: &'a Value) -> Result<(), GrammarError> {
        self.n_subschemas += 1;
        if self.n_subschemas > MAX_SUBSCHEMAS {
            return Err(self.too_large("the number of subschemas", MAX_SUBSCHEMAS));
        }
        // a keyword and a name in it are two steps of the path
        if self.path.len() > 2 * MAX_DEPTH {
            return Err(self.too_large("the nesting of subschemas", MAX_DEPTH));
        }
        match schema {
            Value::Bool(true) => Ok(()),
            Value::Bool(false) if !self.path.is_empty() => Ok(()),
            Value::Bool(false) => Err(self.invalid("the schema 'false' allows no answer")),
            Value::Object(map) => self.check_keywords(map),
            _ => Err(self.invalid("a schema must be an object or a boolean")),
        }
    }

    fn check_keywords(&mut self, schema: &'a Map<String, Value>) -> Result<(), GrammarError> {
        for (keyword, value) in schema {
            self.path.push(Step::Key(keyword));
            self.check_keyword(keyword, value)?;
            self.path.pop();
        }
        Ok(())
    }

    fn check_keyword(&mut self, keyword: &str, value: &'a Value) -> Result<(), GrammarError> {
        match keyword {
            "properties" if value.as_object().is_some_and(|map| map.len() > MAX_PROPERTIES) => {
                Err(self.too_large("the number of properties", MAX_PROPERTIES))
            }
            "properties" | "patternProperties" | "$defs" | "definitions" => self.check_map(value),
            "allOf" => {
                self.combines = true;
                self.check_multiples()?;
                self.check_list(value)
            }
            "anyOf" | "oneOf" | "prefixItems" => self.check_list(value),
            "items" if value.is_array() => self.check_list(value),
            "items" | "additionalItems" | "additionalProperties" => self.check(value),
            "$ref" => match value.as_str() {
                Some(reference) if reference.starts_with('#') => {
                    self.combines = true;
                    self.check_multiples()
                }
                _ => Err(self.invalid("only references inside the schema ('#…') are followed")),
            },
            "enum" => match value.as_array() {
                None => Err(self.invalid("'enum' must be a list")),
                Some(list) if list.is_empty() => Err(self.invalid("'enum' lists nothing")),
                Some(list) if list.len() > MAX_ENUM => Err(self.too_large("the enum's length", MAX_ENUM)),
                Some(_) => Ok(()),
            },
            "pattern" => match value.as_str() {
                Some(pattern) if pattern.len() <= MAX_PATTERN_BYTES => Ok(()),
                Some(_) => Err(self.too_large("the pattern's size in bytes", MAX_PATTERN_BYTES)),
                None => Err(self.invalid("'pattern' must be a string")),
            },
            "format" => match value.as_str() {
                Some(format) if FORMATS.contains(&format) => Ok(()),
                _ => Err(self.unsupported(&format!("format: {value}"))),
            },
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => {
                match value.as_u64() {
                    Some(count) if count <= MAX_COUNT as u64 => Ok(()),
                    Some(_) => Err(self.too_large("the count", MAX_COUNT)),
                    None => Err(self.invalid("a count must be a whole number from 0")),
                }
            }
            "multipleOf" => self.check_multiple(value),
            _ if UNSUPPORTED.contains(&keyword) => Err(self.unsupported(keyword)),
            _ => Ok(()),
        }
    }

    fn check_multiple(&mut self, value: &Value) -> Result<(), GrammarError> {
        let Some(step) = value.as_f64().filter(|step| *step >= MIN_MULTIPLE) else {
            return Err(self.invalid(&format!("'multipleOf' must be a number from {MIN_MULTIPLE}")));
        };
        // a float is written without an exponent: its digits are the number of units
        let digits: String = step.to_string().chars().filter(char::is_ascii_digit).collect();
        self.multiples.insert(digits.parse().unwrap_or(u64::MAX));
        self.check_multiples()
    }

    fn check_multiples(&self) -> Result<(), GrammarError> {
        let states = if self.combines {
            self.multiples.iter().fold(1, |product: u64, units| product.saturating_mul(*units))
        } else {
            self.multiples.iter().fold(0, |sum: u64, units| sum.saturating_add(*units))
        };
        if self.multiples.is_empty() || states <= MAX_MULTIPLE {
            return Ok(());
        }
        Err(self.too_large("the states that 'multipleOf' needs", MAX_MULTIPLE as usize))
    }

    fn check_map(&mut self, value: &'a Value) -> Result<(), GrammarError> {
        let Some(map) = value.as_object() else {
            return Err(self.invalid("must be an object of schemas"));
        };
        for (name, schema) in map {
            self.path.push(Step::Key(name));
            self.check(schema)?;
            self.path.pop();
        }
        Ok(())
    }

    fn check_list(&mut self, value: &'a Value) -> Result<(), GrammarError> {
        let Some(list) = value.as_array() else {
            return Err(self.invalid("must be a list of schemas"));
        };
        for (index, schema) in list.iter().enumerate() {
            self.path.push(Step::Index(index));
            self.check(schema)?;
            self.path.pop();
        }
        Ok(())
    }

    /// The path as a JSON pointer.
    fn pointer(&self) -> String {
        if self.path.is_empty() {
            return "/".into();
        }
        let mut pointer = String::new();
        for step in &self.path {
            pointer.push('/');
            match step {
                Step::Key(key) => pointer.push_str(&key.replace('~', "~0").replace('/', "~1")),
                Step::Index(index) => pointer.push_str(&index.to_string()),
            }
        }
        pointer
    }

    fn unsupported(&self, keyword: &str) -> GrammarError {
        GrammarError::Unsupported { path: self.pointer(), keyword: keyword.into() }
    }

    fn invalid(&self, reason: &str) -> GrammarError {
        GrammarError::Invalid { path: self.pointer(), reason: reason.into() }
    }

    fn too_large(&self, what: &'static str, limit: usize) -> GrammarError {
        GrammarError::TooLarge { path: self.pointer(), what, limit }
    }
}
