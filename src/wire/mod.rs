//! The JSON that clients see: requests, responses, events and problems, shared by `api` and `client`.
//!
//! What crosses the border is spelled here and nowhere else: a domain type may change its inside without
//! a client noticing. Knows the nouns of [`crate::domain`] and no I/O.
//!
//! - A request refuses fields it does not know, so that a misspelt option is never silently ignored.
//! - A response may gain fields; a client ignores those it does not know.
//! - Words (states, tasks, codes) are the domain's own, in snake_case.

pub mod depth;
pub mod difference;
pub mod estimate;
pub mod health;
pub mod job;
pub mod key;
pub mod model;
pub mod openai;
pub mod problem;
pub mod result;
pub mod submit;
pub mod words;
