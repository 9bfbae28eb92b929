//! Models: loaded in the background, side by side, once; everyone can see whether each can serve.
//!
//! Knows checkpoints, tokenizers, chat templates and engines. Never knows Postgres or HTTP.
//!
//! [`manager`] is what others use. Behind it each model has a task ([`lifecycle`]) that leases a base
//! ([`base`]), which a thread loads ([`loader`]) once its [`budget`] allows it. A model is Ready only after
//! its [`selftest`].

pub mod base;
pub mod budget;
#[cfg(feature = "cuda")]
mod card;
#[cfg(not(feature = "cuda"))]
#[path = "no_card.rs"]
mod card;
pub mod chat;
pub mod decoder;
pub mod device;
pub mod error;
pub mod hub;
mod inspect;
mod lifecycle;
pub mod loader;
pub mod manager;
pub mod package;
pub mod progress;
mod selftest;
pub mod served;
pub mod source;
pub mod texts;
pub mod tokenizer;
mod vocabulary;
