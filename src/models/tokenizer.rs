//! Text to token ids and back, from `tokenizer.json` or from a GGUF file's metadata.
//!
//! Invariant: control tokens come only from [`Tokenizer::encode_template`]; [`Tokenizer::encode_text`] never
//! yields one, whatever the text says.

use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::gguf_file::{Content, Value as GgufValue};
use serde_json::{Value, json};
use toktrie::TokEnv;
use toktrie_hf_tokenizers::{ByteTokenizer, ByteTokenizerEnv};

use super::error::ModelError;

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
        Self::from_json(&bytes, &origin, vocab, stops)
    }

    /// Builds the tokenizer of a GGUF file from its tokens, merges and pre-tokenizer's name.
    pub fn from_gguf(
        content: &Content,
        file: &Path,
        vocab: usize,
        stops: &[u32],
    ) -> Result<Self, ModelError> {
        let origin = file.display().to_string();
        let definition = gguf_definition(content).map_err(|cause| invalid(&origin, cause))?;
        Self::from_json(definition.to_string().as_bytes(), &origin, vocab, stops)
    }

    fn from_json(bytes: &[u8], origin: &str, vocab: usize, stops: &[u32]) -> Result<Self, ModelError> {
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|cause| invalid(origin, cause))?;
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

    /// Control tokens are left out; bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.env.tokenizer.hf_tokenizer.decode(ids, true).unwrap_or_default()
    }
}

fn invalid(origin: &str, cause: impl std::fmt::Display) -> ModelError {
    ModelError::Tokenizer { origin: origin.into(), cause: cause.to_string() }
}

// candle's own conversion is not used: it knows three pre-tokenizers, takes every other for GPT-2's with a
// space put in front, and so encodes SmolLM2's prompts differently from the checkpoint's own tokenizer.

/// A `tokenizer.json` with what the metadata says. The pre-tokenizers are those that the names stand for
/// in GGUF's specification; an unknown name is refused, as a wrong one would silently degrade every prompt.
fn gguf_definition(content: &Content) -> Result<Value, String> {
    let kind = text_of(content, "tokenizer.ggml.model").ok_or("no tokenizer.ggml.model")?;
    if kind != "gpt2" {
        return Err(format!("tokenizer kind `{kind}` is not supported inside GGUF"));
    }
    let tokens = texts_of(content, "tokenizer.ggml.tokens").ok_or("no tokenizer.ggml.tokens")?;
    let merges = texts_of(content, "tokenizer.ggml.merges").ok_or("no tokenizer.ggml.merges")?;
    let merges: Result<Vec<Value>, String> = merges
        .iter()
        .map(|merge| match merge.split_once(' ') {
            Some((left, right)) => Ok(json!([left, right])),
            None => Err(format!("merge `{merge}` is no pair")),
        })
        .collect();
    let pre = text_of(content, "tokenizer.ggml.pre").unwrap_or("default");
    let pre_tokenizer = pre_tokenizer(pre)?;
    let types: Vec<u32> = match content.metadata.get("tokenizer.ggml.token_type") {
        Some(GgufValue::Array(values)) => values.iter().map(|value| number(value).unwrap_or(1)).collect(),
        _ => Vec::new(),
    };
    // token types of the specification: 3 is a control token, 4 is user-defined
    let added: Vec<Value> = tokens
        .iter()
        .enumerate()
        .filter_map(|(id, text)| match types.get(id) {
            Some(kind @ (3 | 4)) => Some(json!({
                "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": *kind == 3,
            })),
            _ => None,
        })
        .collect();
    let vocab: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, text)| (text.to_string(), json!(id))).collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
        "use_regex": false});
    let normalizer =
        if matches!(pre, "qwen2" | "deepseek-r1-qwen") { json!({"type": "NFC"}) } else { Value::Null };
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": matches!(pre, "llama-bpe" | "llama3" | "llama-v3"),
            "vocab": vocab, "merges": merges?},
    }))
}

fn pre_tokenizer(name: &str) -> Result<Value, String> {
    let level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let split = |digits: &str| {
        let pattern = format!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        );
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            level(false),
        ]})
    };
    Ok(match name {
        "default" | "gpt-2" | "gpt2" => level(true),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => json!({
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": true}, level(true)],
        }),
        "qwen2" | "deepseek-r1-qwen" | "stablelm2" => split(r"\p{N}"),
        "llama-bpe" | "llama3" | "llama-v3" | "smaug-bpe" => split(r"\p{N}{1,3}"),
        other => return Err(format!("pre-tokenizer `{other}` is not known")),
    })
}

pub(super) fn text_of<'a>(content: &'a Content, key: &str) -> Option<&'a str> {
    match content.metadata.get(key)? {
        GgufValue::String(text) => Some(text),
        _ => None,
    }
}

pub(super) fn id_of(content: &Content, key: &str) -> Option<u32> {
    number(content.metadata.get(key)?)
}

fn texts_of<'a>(content: &'a Content, key: &str) -> Option<Vec<&'a str>> {
    let GgufValue::Array(values) = content.metadata.get(key)? else { return None };
    values
        .iter()
        .map(|value| if let GgufValue::String(text) = value { Some(&**text) } else { None })
        .collect()
}

fn number(value: &GgufValue) -> Option<u32> {
    match value {
        GgufValue::U8(number) => Some(u32::from(*number)),
        GgufValue::I8(number) => u32::try_from(*number).ok(),
        GgufValue::U16(number) => Some(u32::from(*number)),
        GgufValue::I16(number) => u32::try_from(*number).ok(),
        GgufValue::U32(number) => Some(*number),
        GgufValue::I32(number) => u32::try_from(*number).ok(),
        GgufValue::U64(number) => u32::try_from(*number).ok(),
        GgufValue::I64(number) => u32::try_from(*number).ok(),
        _ => None,
    }
}
