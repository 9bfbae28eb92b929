//! JSON Schema to token masks and forced tokens, through llguidance.
//!
//! A [`Compiler`] belongs to one tokenizer and turns schemas into [`Grammar`]s; a sequence takes its own
//! [`Walk`] through one. Answers are compact JSON in the schema's key order, and what cannot be enforced is
//! refused before anything runs. Knows bytes and token ids. Never knows logits or sequences.
//!
//! # JSON Schema
//!
//! Every assertion of the drafts stands in one of these rows; `tests/engine/coverage.rs` has a case for each
//! word and fails if one is missing. A refusal names the keyword's path.
//!
//! | keywords | |
//! |---|---|
//! | `type` `enum` `const` | held |
//! | `properties` `required` `additionalProperties` `patternProperties` | held; keys come in the schema's order |
//! | `minProperties` `maxProperties` | held for objects without optional `properties`; else refused by the compiler |
//! | `items` `prefixItems` `additionalItems` `minItems` `maxItems` | held |
//! | `minLength` `maxLength` `pattern` | held; patterns without look-around and back-references |
//! | `format` | `date-time` `time` `date` `duration` `email` `hostname` `ipv4` `ipv6` `uuid` `uri` held; others refused |
//! | `minimum` `maximum` `exclusiveMinimum` `exclusiveMaximum` `multipleOf` | held |
//! | `anyOf` `allOf` | held; an `allOf` that contradicts itself is refused |
//! | `oneOf` | held where the branches exclude each other; else refused |
//! | `$ref` `$defs` `definitions` | held inside the schema; other references refused |
//! | `not` `if` `then` `else` | refused |
//! | `uniqueItems` `contains` `minContains` `maxContains` `unevaluatedItems` | refused |
//! | `propertyNames` `dependencies` `dependentRequired` `dependentSchemas` `unevaluatedProperties` | refused |
//! | `$dynamicRef` `$dynamicAnchor` `$recursiveRef` `$recursiveAnchor` `$vocabulary` | refused |
//! | `contentSchema` `divisibleBy` `disallow` `extends` | refused |
//! | `title` `description` `default` `examples` `deprecated` `readOnly` `writeOnly` `$comment` `$schema` `$id` | no assertions, ignored |

mod cache;
mod check;
mod compiler;
mod text;
mod walk;

pub use check::check_schema;
pub use compiler::{Compiler, Grammar, Options};
pub use walk::{Choice, Walk};

use crate::domain::code::Code;

/// Why a schema is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// `path` is a JSON pointer to the keyword.
    #[error("{path}: '{keyword}' cannot be enforced")]
    Unsupported { path: String, keyword: String },
    #[error("{path}: {reason}")]
    Invalid { path: String, reason: String },
    #[error("{path}: {what} is over the limit of {limit}")]
    TooLarge { path: String, what: &'static str, limit: usize },
    /// The grammar compiler's own words; it names no path.
    #[error("the schema was refused: {reason}")]
    Refused { reason: String },
}

impl GrammarError {
    /// JSON pointer to what is refused; empty where the compiler names none.
    pub fn path(&self) -> &str {
        match self {
            Self::Unsupported { path, .. } | Self::Invalid { path, .. } | Self::TooLarge { path, .. } => path,
            Self::Refused { .. } => "",
        }
    }

    pub fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } => Code::TooLarge,
            Self::Unsupported { .. } | Self::Invalid { .. } | Self::Refused { .. } => Code::InvalidSchema,
        }
    }
}
