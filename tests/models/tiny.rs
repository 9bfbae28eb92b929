//! The random checkpoints themselves: readable by the format's own crate, stable, damaged where asked.

use safetensors::SafeTensors;

use crate::support::tiny::{self, Arch};

#[test]
fn a_tiny_checkpoint_is_stable_and_readable() {
    let dir = tempfile::tempdir().unwrap();
    let first = tiny::tiny_model(dir.path().join("a"), Arch::Qwen2, 1);
    let second = tiny::tiny_model(dir.path().join("b"), Arch::Qwen2, 1);
    let other = tiny::tiny_model(dir.path().join("c"), Arch::Qwen2, 2);
    let read = |dir: &std::path::Path| std::fs::read(dir.join("model.safetensors")).unwrap();
    assert_eq!(read(&first), read(&second));
    assert_ne!(read(&first), read(&other));
    let bytes = read(&first);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("lm_head.weight").unwrap().shape(), [tiny::VOCAB, 64]);
}

#[test]
fn shards_hold_the_same_tensors() {
    let dir = tempfile::tempdir().unwrap();
    let whole = tiny::tiny_model(dir.path().join("whole"), Arch::Llama, 3);
    let parts = tiny::sharded_model(dir.path().join("parts"), Arch::Llama, 3);
    let whole = std::fs::read(whole.join("model.safetensors")).unwrap();
    let whole = SafeTensors::deserialize(&whole).unwrap();
    let mut seen = 0;
    for index in 1..=3 {
        let bytes = std::fs::read(parts.join(format!("model-{index:05}-of-00003.safetensors"))).unwrap();
        let part = SafeTensors::deserialize(&bytes).unwrap();
        for (name, tensor) in part.tensors() {
            assert_eq!(tensor.data(), whole.tensor(&name).unwrap().data(), "{name}");
            seen += 1;
        }
    }
    assert_eq!(seen, whole.len());
}

#[test]
fn the_tokenizer_fixture_round_trips() {
    let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer.json");
    let tokenizer = tokenizers::Tokenizer::from_file(fixture).unwrap();
    let text = "{\"table\":\"Straße 42\",\"kind\":\"entity\"}\ncreate table x (id integer);";
    let ids = tokenizer.encode(text, false).unwrap();
    assert_eq!(tokenizer.decode(ids.get_ids(), false).unwrap(), text);
    assert!(tokenizer.get_vocab_size(true) <= tiny::VOCAB);
    assert_eq!(tokenizer.token_to_id("<|im_end|>"), Some(tiny::STOP));
}
