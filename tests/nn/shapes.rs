//! The same tokens in other batches: bitwise the same numbers.

use adit::nn::model::Model;

use super::harness::{ARCHS, Sequence, add, fixture, load, prompt, step};

fn tokens(seed: u32, n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| 3 + (seed * 7919 + i * 104_729 + i * i * 31) % 317).collect()
}

fn chunked(model: &mut Model, tokens: &[u32], sizes: &[usize]) -> Vec<f32> {
    let mut sequence = Sequence::new(1, None);
    let (mut at, mut last) = (0, Vec::new());
    for size in sizes.iter().cycle() {
        let end = tokens.len().min(at + size);
        last = step(model, &mut [(&mut sequence, &tokens[at..end])]).remove(0);
        at = end;
        if at == tokens.len() {
            break;
        }
    }
    last
}

#[test]
fn a_prompt_in_chunks_is_the_prompt_in_one() {
    for arch in ARCHS {
        let mut model = load(&fixture(arch).join("base"));
        let tokens = tokens(5, 41);
        let whole = prompt(&mut model, &tokens, None);
        for sizes in [&[1][..], &[7, 1, 9], &[16], &[40, 1], &[3, 20]] {
            assert_eq!(whole, chunked(&mut model, &tokens, sizes), "{arch} in chunks of {sizes:?}");
        }
    }
}

#[test]
fn an_item_is_bitwise_the_same_alone_and_in_any_batch() {
    for arch in ARCHS {
        let mut model = load(&fixture(arch).join("base"));
        let mut slots = vec![None];
        slots.extend(["concept", "relationship", "attribute"].map(|kind| Some(add(&mut model, arch, kind))));
        let prompts: Vec<Vec<u32>> =
            [5, 1, 13, 2, 17, 1, 4, 8].iter().enumerate().map(|(i, n)| tokens(i as u32, *n)).collect();
        let alone: Vec<Vec<Vec<f32>>> = (0..prompts.len())
            .map(|i| {
                let mut sequence = Sequence::new(i as u32, slots[i % 4]);
                let first = step(&mut model, &mut [(&mut sequence, &prompts[i])]).remove(0);
                let second = step(&mut model, &mut [(&mut sequence, &[9])]).remove(0);
                vec![first, second]
            })
            .collect();
        let mut sequences: Vec<Sequence> =
            (0..prompts.len()).map(|i| Sequence::new(8 + i as u32, slots[i % 4])).collect();
        let mut work: Vec<_> = sequences.iter_mut().zip(prompts.iter().map(Vec::as_slice)).collect();
        let together = step(&mut model, &mut work);
        let mut work: Vec<_> = sequences.iter_mut().map(|s| (s, &[9u32][..])).collect();
        let next = step(&mut model, &mut work);
        for i in 0..prompts.len() {
            assert_eq!(alone[i][0], together[i], "{arch} item {i}, prompt");
            assert_eq!(alone[i][1], next[i], "{arch} item {i}, next token");
        }
        assert_ne!(alone[1][1], alone[5][1], "adapters make a difference");
    }
}

#[test]
fn a_removed_adapter_leaves_the_base_as_it_was() {
    let mut model = load(&fixture("llama").join("base"));
    let before = (prompt(&mut model, &tokens(1, 9), None), model.memory_bytes());
    let slot = add(&mut model, "llama", "concept");
    let with = prompt(&mut model, &tokens(1, 9), Some(slot));
    let held = model.memory_bytes();
    model.remove_adapter(slot);
    assert_ne!(before.0, with);
    assert_eq!(before.0, prompt(&mut model, &tokens(1, 9), None));
    assert!(held > model.memory_bytes());
    assert_eq!(slot, add(&mut model, "llama", "concept"), "the slot is used again");
}
