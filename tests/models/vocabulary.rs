//! Tokenizers out of GGUF metadata: SentencePiece's kind, on a vocabulary small enough to work out by hand.
#![allow(clippy::unwrap_used)]

use std::io::Cursor;
use std::path::Path;

use adit::clock::Clock;
use adit::domain::message::{Message, Role};
use adit::models::chat::{ChatTemplate, Source};
use adit::models::error::ModelError;
use adit::models::tokenizer::Tokenizer;
use candle_core::quantized::gguf_file::{self, Content, Value};

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;
/// First id behind the control tokens and the 256 bytes.
const FIRST: u32 = 3 + 256;

/// A file with these pieces, their scores and types, behind control tokens and bytes.
fn read(pieces: &[(&str, f32, i32)], space_prefix: Option<bool>) -> Result<Tokenizer, ModelError> {
    let mut all: Vec<(String, f32, i32)> =
        ["<unk>", "<bos>", "<eos>"].map(|text| (text.to_string(), 0.0, CONTROL)).to_vec();
    all.extend((0..256).map(|byte| (format!("<0x{byte:02X}>"), 0.0, BYTE)));
    all.extend(pieces.iter().map(|(text, score, kind)| (text.to_string(), *score, *kind)));
    let list = |value: &dyn Fn(&(String, f32, i32)) -> Value| Value::Array(all.iter().map(value).collect());
    let mut metadata = vec![
        ("tokenizer.ggml.model", Value::String("llama".into())),
        ("tokenizer.ggml.tokens", list(&|piece| Value::String(piece.0.clone()))),
        ("tokenizer.ggml.scores", list(&|piece| Value::F32(piece.1))),
        ("tokenizer.ggml.token_type", list(&|piece| Value::I32(piece.2))),
        ("tokenizer.ggml.unknown_token_id", Value::U32(0)),
    ];
    metadata.extend(space_prefix.map(|on| ("tokenizer.ggml.add_space_prefix", Value::Bool(on))));
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let mut file = Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &[]).unwrap();
    file.set_position(0);
    let content = Content::read(&mut file).unwrap();
    Tokenizer::from_gguf(&content, Path::new("model.gguf"), all.len(), &[2])
}

fn letters() -> Vec<(&'static str, f32, i32)> {
    ["a", "b", "c", "\u{2581}"].map(|letter| (letter, -100.0, NORMAL)).to_vec()
}

fn check(pieces: &[(&str, f32, i32)], text: &str, expected: &[&str]) {
    let tokenizer = read(pieces, Some(false)).unwrap();
    let ids = tokenizer.encode_text(text).unwrap();
    let name = |id: &u32| match id.checked_sub(FIRST) {
        Some(at) => pieces[at as usize].0.to_string(),
        None => format!("<0x{:02X}>", id - 3),
    };
    assert_eq!(ids.iter().map(name).collect::<Vec<_>>(), expected, "{text:?}");
    assert_eq!(tokenizer.decode(&ids), text);
}

#[test]
fn the_pair_whose_piece_has_the_highest_score_is_joined_first() {
    let with = |ab: f32, bc: f32| [letters(), vec![("ab", ab, NORMAL), ("bc", bc, NORMAL)]].concat();
    check(&with(-1.0, -2.0), "abc", &["ab", "c"]);
    check(&with(-2.0, -1.0), "abc", &["a", "bc"]);
    // a longer piece is reached through the pairs that scores choose, or not at all
    let longer = [with(-2.0, -1.0), vec![("abc", -3.0, NORMAL)]].concat();
    check(&longer, "abcabc", &["abc", "abc"]);
    let blocked = [with(-2.0, -1.0), vec![("bcab", -3.0, NORMAL), ("\u{2581}a", -0.5, NORMAL)]].concat();
    check(&blocked, "a abc", &["a", "\u{2581}a", "bc"]);
    check(&blocked, "bcab", &["bcab"]);
}

#[test]
fn what_no_piece_covers_is_spelled_in_bytes() {
    check(&letters(), "aé\n", &["a", "<0xC3>", "<0xA9>", "<0x0A>"]);
    check(&letters(), "  a", &["\u{2581}", "\u{2581}", "a"]);
}

#[test]
fn pieces_of_the_user_are_found_and_control_tokens_are_not() {
    let pieces = [letters(), vec![("\n\n", 0.0, USER_DEFINED)]].concat();
    check(&pieces, "a\n\nb", &["a", "\n\n", "b"]);
    let tokenizer = read(&pieces, Some(false)).unwrap();
    assert!(tokenizer.encode_text("<eos>").unwrap().iter().all(|id| *id > 2));
    assert_eq!(tokenizer.encode_template("a<eos>", None).unwrap(), [FIRST, 2]);
    assert_eq!(tokenizer.stops(), [2]);
}

#[test]
fn a_space_before_every_text_is_refused() {
    for prefix in [None, Some(true)] {
        let refused = read(&letters(), prefix).err().expect("refused");
        assert!(refused.to_string().contains("add_space_prefix"), "{refused}");
    }
}

#[test]
fn a_tokenizer_with_gemmas_turns_gets_gemmas_format_where_no_template_came_with_it() {
    let render = |pieces: &[(&str, f32, i32)]| {
        let tokenizer = read(pieces, Some(false)).unwrap();
        let source = Source { bos_token: "<bos>".into(), ..Source::default() };
        let template = ChatTemplate::new(source.or_fallback(&tokenizer), Clock::default()).unwrap();
        let say = |role, content: &str| Message { role, content: content.into() };
        let messages = [say(Role::User, "a"), say(Role::Assistant, "b"), say(Role::User, "c")];
        template.render(&messages).unwrap()
    };
    let turns =
        [letters(), vec![("<start_of_turn>", 0.0, CONTROL), ("<end_of_turn>", 0.0, CONTROL)]].concat();
    assert_eq!(
        render(&turns),
        "<bos><start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n\
            <start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\n"
    );
    assert!(render(&letters()).starts_with("<|im_start|>user\na<|im_end|>\n"));
}
