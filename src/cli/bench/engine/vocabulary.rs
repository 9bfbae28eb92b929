//! A vocabulary made by code, for masks of a real one's size where no tokenizer is at hand: bytes, what JSON is made of,
//! the schema's own words, and words of syllables with and without a blank before them.

use std::collections::HashSet;
use std::sync::Arc;

use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

const SYLLABLES: [&str; 32] = [
    "al", "an", "ar", "as", "be", "ca", "ce", "co", "de", "di", "en", "er", "es", "ga", "ha", "in", "la",
    "le", "ma", "me", "mi", "na", "ne", "on", "or", "pa", "re", "ri", "se", "st", "ta", "ti",
];
const JSON: [&str; 16] = [
    "{\"", "\":", "\":\"", "\",\"", "\"}", "\":{\"", "\":[", "[\"", "\"]", "},", "},{\"", "true", "false",
    "null", ", ", ": ",
];

struct Synthetic {
    trie: TokTrie,
}

impl TokenizerEnv for Synthetic {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, text: &[u8]) -> Vec<TokenId> {
        self.trie.greedy_tokenize(text)
    }
}

/// `n` tokens, of which the last ends an answer.
pub fn vocabulary(n: usize, words: &[&str]) -> TokEnv {
    let mut all: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    let mut seen: HashSet<Vec<u8>> = all.iter().cloned().collect();
    let mut add = |word: String, all: &mut Vec<Vec<u8>>| {
        let word = word.into_bytes();
        if all.len() + 1 < n && seen.insert(word.clone()) {
            all.push(word);
        }
    };
    JSON.iter().chain(words).for_each(|word| add((*word).into(), &mut all));
    let mut number = 0usize;
    while all.len() + 1 < n {
        let (mut left, mut word) = (number / 2, String::new());
        loop {
            word.push_str(SYLLABLES[left % SYLLABLES.len()]);
            left /= SYLLABLES.len();
            if left == 0 {
                break;
            }
            left -= 1;
        }
        add(if number.is_multiple_of(2) { word } else { format!(" {word}") }, &mut all);
        number += 1;
    }
    // what begins with this byte is no text
    all.push(b"\xff<|end|>".to_vec());
    let end = all.len() as u32 - 1;
    Arc::new(Synthetic { trie: TokTrie::from(&TokRxInfo::new(all.len() as u32, end), &all) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_size_asked_for_and_spells_everything() {
        let env = vocabulary(3_000, &["category"]);
        assert_eq!(env.tok_trie().vocab_size(), 3_000);
        let text = b"{\"category\":\"stalan\xc3\xa9\"}";
        let tokens = env.tokenize_bytes(text);
        assert_eq!(env.tok_trie().decode(&tokens), text);
        assert!(tokens.len() < 9, "{tokens:?}");
    }
}
