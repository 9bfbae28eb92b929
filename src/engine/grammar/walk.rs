//! One sequence's way through a grammar.

use std::sync::Arc;

use llguidance::Matcher;
use llguidance::api::StopReason;
use toktrie::{SimpleVob, TokTrie};

use super::compiler::{Compiled, first_line};
use super::text::JsonText;
use crate::engine::request::EngineError;

/// Bytes at which a number ends as soon as it may. More digits than any use, and a model can go on for ever.
const MAX_NUMBER_BYTES: u32 = 24;

/// What the next token may be.
pub enum Choice {
    /// This one and no other.
    Only(u32),
    /// Any token whose bit is set.
    Mask(SimpleVob),
}

/// Parser state of one sequence. Any error is final: the sequence cannot go on.
pub struct Walk {
    matcher: Matcher,
    grammar: Arc<Compiled>,
    text: JsonText,
}

impl Walk {
    pub(super) fn new(matcher: Matcher, grammar: Arc<Compiled>) -> Self {
        Self { matcher, grammar, text: JsonText::default() }
    }

    /// Nothing may follow.
    pub fn is_complete(&self) -> bool {
        matches!(
            self.matcher.stop_reason(),
            StopReason::NoExtension | StopReason::NoExtensionBias | StopReason::EndOfSentence
        )
    }

    /// Takes the tokens that the grammar leaves no choice about, in the tokenizer's canonical form, and
    /// returns them. Often empty.
    pub fn take_forced(&mut self) -> Result<Vec<u32>, EngineError> {
        if self.is_complete() {
            return Ok(Vec::new());
        }
        let forced = self.matcher.compute_ff_tokens();
        self.fail_if_broken()?;
        for &token in &forced {
            self.accept(token)?;
        }
        Ok(forced)
    }

    /// What may come next. `stop` tokens are allowed wherever the answer may end.
    pub fn choices(&mut self, stop: &[u32]) -> Result<Choice, EngineError> {
        let mut mask = self.matcher.compute_mask().map_err(|error| failed(&error.to_string()))?;
        if self.text.open_number_bytes() >= MAX_NUMBER_BYTES {
            self.end_number(&mut mask);
        }
        if let Some(quote) = self.closing_quote()
            && mask.is_allowed(quote)
        {
            return Ok(Choice::Only(quote));
        }
        let n_tokens = mask.len();
        let is_known = |token: &&u32| (**token as usize) < n_tokens;
        if self.trie().eos_tokens().iter().filter(is_known).any(|&eos| mask.is_allowed(eos)) {
            for &token in stop.iter().filter(is_known) {
                mask.allow_token(token);
            }
        }
        Ok(Choice::Mask(mask))
    }

    /// Whether `token` ends an answer rather than being part of it.
    pub fn is_end(&self, token: u32) -> bool {
        self.trie().eos_tokens().contains(&token)
    }

    /// Moves on by one token that [`Walk::choices`] allowed; not by one that ends the answer.
    pub fn accept(&mut self, token: u32) -> Result<(), EngineError> {
        self.matcher.consume_token(token).map_err(|error| failed(&error.to_string()))?;
        self.text.push(self.grammar.env.tok_trie().token(token));
        Ok(())
    }

    /// Leaves only what ends the number, if the schema lets it end here.
    fn end_number(&self, mask: &mut SimpleVob) {
        let goes_on =
            |token: &u32| self.trie().token(*token).first().is_some_and(|b| JsonText::is_of_number(*b));
        let (longer, other): (Vec<u32>, Vec<u32>) = mask.to_list().into_iter().partition(goes_on);
        if !other.is_empty() {
            longer.into_iter().for_each(|token| mask.disallow_token(token));
        }
    }

    /// How many of these tokens, one after the other, the grammar would take. Moves nothing.
    pub fn n_allowed(&mut self, tokens: &[u32]) -> usize {
        // what cannot be judged is not allowed
        if tokens.is_empty() { 0 } else { self.matcher.validate_tokens(tokens).unwrap_or(0) }
    }

    fn closing_quote(&self) -> Option<u32> {
        let limit = self.grammar.string_limit_bytes?;
        let bytes = self.text.open_value_bytes()?;
        if bytes >= limit { self.grammar.quote } else { None }
    }

    fn trie(&self) -> &TokTrie {
        self.grammar.env.tok_trie()
    }

    fn fail_if_broken(&self) -> Result<(), EngineError> {
        match self.matcher.get_error() {
            None => Ok(()),
            Some(error) => Err(failed(&error)),
        }
    }
}

fn failed(message: &str) -> EngineError {
    EngineError::Grammar(first_line(message))
}
