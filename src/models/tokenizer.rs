//! Text to token ids and back, from `tokenizer.json` or from a GGUF file's metadata.
//!
//! Invariant: control tokens come only from [`Tokenizer::encode_template`]; [`Tokenizer::encode_text`] never
//! yields one, whatever the text says.

use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::gguf_file::Content;
use toktrie::{TokEnv, TokTrie, TokenizerEnv};
use toktrie_hf_tokenizers::{ByteTokenizer, ByteTokenizerEnv};

use super::error::ModelError;
use super::vocabulary;

/// Tokens that end a turn in published chat formats; they stop an answer where the checkpoint has them.
const TURN_ENDS: &[&str] = &["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>"];

#[derive(Clone)]
pub struct Tokenizer {
    env: Arc<ByteTokenizerEnv>,
    /// Control tokens, longest text first, so that one that begins like another is found.
    control: Arc<[Control]>,
}

struct Control {
    text: String,
    id: u32,
    strips_left: bool,
    strips_right: bool,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. `vocab` is the width of the model's logits, `stops` its end tokens.
    pub fn from_file(file: &Path, vocab: usize, stops: &[u32]) -> Result<Self, ModelError> {
        let origin = file.display().to_string();
        let bytes = std::fs::read(file).map_err(|cause| invalid(&origin, cause))?;
        let inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|cause| invalid(&origin, cause))?;
        Self::new(inner, &origin, vocab, stops)
    }

    /// Builds the tokenizer of a GGUF file from its tokens, merges and pre-tokenizer's name.
    pub fn from_gguf(
        content: &Content,
        file: &Path,
        vocab: usize,
        stops: &[u32],
    ) -> Result<Self, ModelError> {
        let origin = file.display().to_string();
        let inner = vocabulary::tokenizer(content).map_err(|cause| invalid(&origin, cause))?;
        Self::new(inner, &origin, vocab, stops)
    }

    fn new(
        mut inner: tokenizers::Tokenizer,
        origin: &str,
        vocab: usize,
        stops: &[u32],
    ) -> Result<Self, ModelError> {
        // truncation and padding of a training run would cut prompts
        let _ = inner.with_truncation(None);
        inner.with_padding(None);
        inner.set_encode_special_tokens(true);
        let mut control: Vec<Control> = inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special && !token.content.is_empty())
            .map(|(id, token)| Control {
                text: token.content,
                id,
                strips_left: token.lstrip,
                strips_right: token.rstrip,
            })
            .collect();
        control.sort_by(|a, b| b.text.len().cmp(&a.text.len()).then(a.id.cmp(&b.id)));
        let mut bytes = ByteTokenizer::from_tokenizer(inner).map_err(|cause| invalid(origin, cause))?;
        let known = bytes.tokrx_info().vocab_size;
        let mut ends: Vec<u32> = stops.iter().copied().filter(|&id| id < known).collect();
        ends.extend(control.iter().filter(|token| TURN_ENDS.contains(&&*token.text)).map(|token| token.id));
        ends =
            ends.iter().enumerate().filter(|(at, id)| !ends[..*at].contains(id)).map(|(_, id)| *id).collect();
        if ends.is_empty() {
            return Err(invalid(origin, "neither tokenizer nor configuration names an end token"));
        }
        bytes.set_eos_tokens(&ends);
        let env = ByteTokenizerEnv::new(bytes, Some(vocab)).map_err(|cause| invalid(origin, cause))?;
        Ok(Self { env: Arc::new(env), control: control.into() })
    }

    /// Tokens that end an answer.
    pub fn stops(&self) -> Vec<u32> {
        self.env.tokenizer.eos_tokens()
    }

    pub fn env(&self) -> TokEnv {
        self.env.clone()
    }

    pub fn control_id(&self, text: &str) -> Option<u32> {
        self.control.iter().find(|token| token.text == text).map(|token| token.id)
    }

    /// Texts of the control tokens.
    pub fn control_texts(&self) -> impl Iterator<Item = &str> {
        self.control.iter().map(|token| &*token.text)
    }

    /// Plain text: what looks like a control token is spelled out.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self
            .env
            .tokenizer
            .hf_tokenizer
            .encode_fast(text, false)
            .map_err(|cause| invalid("while encoding", cause))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// A rendered template: control tokens are recognised, and `guard` characters are taken out of the
    /// plain text between them (see [`super::chat`]).
    pub fn encode_template(&self, text: &str, guard: Option<char>) -> Result<Vec<u32>, ModelError> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut rest = text;
        let plain = |piece: &str, ids: &mut Vec<u32>| -> Result<(), ModelError> {
            let unguarded;
            let piece = match guard {
                Some(guard) if piece.contains(guard) => {
                    unguarded = piece.replace(guard, "");
                    &unguarded
                }
                _ => piece,
            };
            if !piece.is_empty() {
                ids.extend(self.encode_text(piece)?);
            }
            Ok(())
        };
        while let Some((at, token)) = self.next_control(rest) {
            let before = &rest[..at];
            plain(if token.strips_left { before.trim_end() } else { before }, &mut ids)?;
            ids.push(token.id);
            rest = &rest[at + token.text.len()..];
            if token.strips_right {
                rest = rest.trim_start();
            }
        }
        plain(rest, &mut ids)?;
        Ok(ids)
    }

    /// The first control token of a text, the longest where several begin.
    fn next_control(&self, text: &str) -> Option<(usize, &Control)> {
        let found = self.control.iter().filter_map(|token| Some((text.find(&token.text)?, token)));
        found.min_by(|(a, left), (b, right)| a.cmp(b).then(right.text.len().cmp(&left.text.len())))
    }

    /// The bytes that a token stands for; of a control token, those of its name.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        let bytes = self.env.tok_trie().token(id);
        bytes.strip_prefix(&[TokTrie::SPECIAL_TOKEN_MARKER]).unwrap_or(bytes)
    }

    /// Control tokens are left out; bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.env.tokenizer.hf_tokenizer.decode(ids, true).unwrap_or_default()
    }
}

fn invalid(origin: &str, cause: impl std::fmt::Display) -> ModelError {
    ModelError::Tokenizer { origin: origin.into(), cause: cause.to_string() }
}
