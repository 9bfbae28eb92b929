//! The tokenizer of a GGUF file, built from its metadata.
//!
//! Two kinds are read: byte-level BPE (`gpt2`) and SentencePiece's BPE (`llama`). Whatever could make prompts
//! differ from those the model was trained on is refused.

use candle_core::quantized::gguf_file::{Content, Value as GgufValue};
use serde_json::{Value, json};
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::replace::Replace;
use tokenizers::{AddedToken, Tokenizer};

/// SentencePiece's sign for a space.
const SPACE: &str = "\u{2581}";

/// Kinds of tokens in GGUF's specification.
const NORMAL: u32 = 1;
const CONTROL: u32 = 3;
const USER_DEFINED: u32 = 4;

// candle's own conversion is not used: it knows three pre-tokenizers, takes every other for GPT-2's with a
// space put in front, and so encodes SmolLM2's prompts differently from the checkpoint's own tokenizer.

pub fn tokenizer(content: &Content) -> Result<Tokenizer, String> {
    let mut tokenizer = match text_of(content, "tokenizer.ggml.model") {
        Some("gpt2") => byte_level(content)?,
        Some("llama") => sentencepiece(content)?,
        Some(kind) => return Err(format!("tokenizer kind `{kind}` is not supported inside GGUF")),
        None => return Err("no tokenizer.ggml.model".into()),
    };
    let tokens = texts_of(content, "tokenizer.ggml.tokens").unwrap_or_default();
    let of_type = |kind: u32| {
        let types = types_of(content);
        let matching = move |(id, text): (usize, &&str)| {
            let added = || AddedToken::from(*text, kind == CONTROL).normalized(false);
            (types.get(id) == Some(&kind)).then(added)
        };
        tokens.iter().enumerate().filter_map(matching).collect::<Vec<AddedToken>>()
    };
    tokenizer.add_special_tokens(&of_type(CONTROL));
    tokenizer.add_tokens(&of_type(USER_DEFINED));
    Ok(tokenizer)
}

/// GPT-2's kind: words of bytes, merged in a listed order. The pre-tokenizers are those that the names stand for
/// in GGUF's specification; an unknown name is refused, as a wrong one would silently degrade every prompt.
fn byte_level(content: &Content) -> Result<Tokenizer, String> {
    let tokens = texts_of(content, "tokenizer.ggml.tokens").ok_or("no tokenizer.ggml.tokens")?;
    let merges = texts_of(content, "tokenizer.ggml.merges").ok_or("no tokenizer.ggml.merges")?;
    let merges: Result<Merges, String> = merges
        .iter()
        .map(|merge| match merge.split_once(' ') {
            Some((left, right)) => Ok((left.to_string(), right.to_string())),
            None => Err(format!("merge `{merge}` is no pair")),
        })
        .collect();
    let pre = text_of(content, "tokenizer.ggml.pre").unwrap_or("default");
    let pre_tokenizer = pre_tokenizer(pre)?;
    let vocab: Vocab = tokens.iter().enumerate().map(|(id, text)| (text.to_string(), id as u32)).collect();
    let decoder = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
        "use_regex": false});
    let normalizer =
        if matches!(pre, "qwen2" | "deepseek-r1-qwen") { json!({"type": "NFC"}) } else { Value::Null };
    let definition = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "post_processor": null, "decoder": decoder,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": {}, "merges": []},
    });
    let failed = |cause: tokenizers::Error| cause.to_string();
    let mut tokenizer = Tokenizer::from_bytes(definition.to_string()).map_err(failed)?;
    // a vocabulary takes long on the way through JSON
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges?)
        .ignore_merges(matches!(pre, "llama-bpe" | "llama3" | "llama-v3"));
    tokenizer.with_model(model.build().map_err(failed)?);
    Ok(tokenizer)
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

/// SentencePiece's BPE: of all neighbours that together are a piece, the pair whose piece has the highest score
/// is joined first; what no piece covers is spelled in bytes.
fn sentencepiece(content: &Content) -> Result<Tokenizer, String> {
    if content.metadata.get("tokenizer.ggml.add_space_prefix").and_then(|v| v.to_bool().ok()) != Some(false) {
        return Err("a space that is put before every text (add_space_prefix) is not supported".into());
    }
    let tokens = texts_of(content, "tokenizer.ggml.tokens").ok_or("no tokenizer.ggml.tokens")?;
    let scores: Vec<f32> = match content.metadata.get("tokenizer.ggml.scores") {
        Some(GgufValue::Array(values)) => values.iter().filter_map(|value| value.to_f32().ok()).collect(),
        _ => return Err("no tokenizer.ggml.scores".into()),
    };
    let types = types_of(content);
    if scores.len() != tokens.len() || types.len() != tokens.len() {
        return Err(format!("{} tokens, {} scores, {} types", tokens.len(), scores.len(), types.len()));
    }
    let vocab: Vocab = tokens.iter().enumerate().map(|(id, text)| (text.to_string(), id as u32)).collect();
    let merges = merges(&tokens, &scores, &types, &vocab);
    let mut model = BPE::builder().vocab_and_merges(vocab, merges).byte_fallback(true).fuse_unk(true);
    if let Some(unknown) = id_of(content, "tokenizer.ggml.unknown_token_id") {
        model = model.unk_token(tokens.get(unknown as usize).ok_or("no unknown token")?.to_string());
    }
    let failed = |cause: tokenizers::Error| cause.to_string();
    let mut tokenizer = Tokenizer::new(model.build().map_err(failed)?);
    tokenizer.with_normalizer(Some(Replace::new(" ", SPACE).map_err(failed)?));
    let spaces = Replace::new(SPACE, " ").map_err(failed)?;
    let parts = vec![spaces.into(), ByteFallback::new().into(), Fuse::new().into()];
    tokenizer.with_decoder(Some(Sequence::new(parts)));
    Ok(tokenizer)
}

/// Every way to make a piece of two others, best piece first: what the scores say as a list of merges.
fn merges(tokens: &[&str], scores: &[f32], types: &[u32], vocab: &Vocab) -> Merges {
    let joins =
        |text: &str| vocab.get(text).is_some_and(|id| matches!(types[*id as usize], NORMAL | USER_DEFINED));
    let mut found: Vec<(f32, usize, usize)> = Vec::new();
    for (id, piece) in tokens.iter().enumerate().filter(|(id, _)| matches!(types[*id], NORMAL | USER_DEFINED))
    {
        for (at, _) in piece.char_indices().skip(1) {
            if joins(&piece[..at]) && joins(&piece[at..]) {
                found.push((scores[id], id, at));
            }
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    let pair =
        |(_, id, at): (f32, usize, usize)| (tokens[id][..at].to_string(), tokens[id][at..].to_string());
    found.into_iter().map(pair).collect()
}

fn types_of(content: &Content) -> Vec<u32> {
    match content.metadata.get("tokenizer.ggml.token_type") {
        Some(GgufValue::Array(values)) => {
            values.iter().map(|value| number(value).unwrap_or(NORMAL)).collect()
        }
        _ => Vec::new(),
    }
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
