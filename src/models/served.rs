//! A model that can serve: what a worker holds while it uses one.

use std::sync::Arc;

use tokio::sync::watch;

use super::base::Base;
use super::decoder::Decoder;
use super::error::ModelError;
use crate::domain::message::Message;
use crate::engine;
use crate::engine::request::AdapterId;

/// A ready model. An unload waits, within a bound, until every one that was handed out is dropped: take it
/// for a piece of work, not for good.
pub struct Served {
    name: String,
    base: Arc<Base>,
    adapter: Option<AdapterId>,
    context_tokens: usize,
    /// Dropped with the last holder; the unload waits for that.
    _in_use: watch::Sender<()>,
}

impl Served {
    /// The receiver ends when the last holder has let go.
    pub(super) fn new(
        name: &str,
        base: Arc<Base>,
        adapter: Option<AdapterId>,
        context_tokens: Option<usize>,
    ) -> (Arc<Self>, watch::Receiver<()>) {
        let (in_use, released) = watch::channel(());
        let own = base.engine.context_tokens();
        let context_tokens = context_tokens.map_or(own, |wish| wish.min(own));
        (Arc::new(Self { name: name.into(), base, adapter, context_tokens, _in_use: in_use }), released)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The conversation as the checkpoint's template has it, ended so that an answer follows.
    pub fn render(&self, messages: &[Message]) -> Result<Vec<u32>, ModelError> {
        self.base.texts.template.encode(messages, &self.base.texts.tokenizer)
    }

    /// Text of an answer, without control tokens.
    pub fn decode(&self, tokens: &[u32]) -> String {
        self.base.texts.tokenizer.decode(tokens)
    }

    /// For an answer's text while its tokens come.
    pub fn decoder(&self) -> Decoder {
        Decoder::new(self.base.texts.tokenizer.clone())
    }

    /// The bytes that a token stands for.
    pub fn token_bytes(&self, token: u32) -> &[u8] {
        self.base.texts.tokenizer.token_bytes(token)
    }

    pub fn compiler(&self) -> &engine::grammar::Compiler {
        &self.base.compiler
    }

    pub fn engine(&self) -> &engine::handle::Handle {
        &self.base.engine
    }

    pub fn adapter(&self) -> Option<AdapterId> {
        self.adapter
    }

    /// Tokens that end an answer.
    pub fn stop(&self) -> Arc<[u32]> {
        self.base.stop.clone()
    }

    /// Longest prompt and answer together.
    pub fn context_tokens(&self) -> usize {
        self.context_tokens
    }
}
