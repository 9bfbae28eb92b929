//! Models: loaded in the background, side by side, once; everyone can see whether each can serve.
//!
//! Knows checkpoints, tokenizers, chat templates and engines. Never knows Postgres or HTTP.
