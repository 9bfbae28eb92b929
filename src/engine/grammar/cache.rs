//! Compiled grammars by schema, the least recently used one leaves first.

use std::collections::HashMap;

use super::compiler::Grammar;

/// Digest of the schema's text and its string limit.
pub(super) type Key = [u8; 32];

/// A bounded map. Its size is small (some hundred entries), so the oldest entry is found by looking at all.
pub(super) struct Cache {
    entries: HashMap<Key, Entry>,
    capacity: usize,
    clock: u64,
}

struct Entry {
    grammar: Grammar,
    used_at: u64,
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity: capacity.max(1), clock: 0 }
    }

    pub(super) fn get(&mut self, key: &Key) -> Option<Grammar> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used_at = self.clock;
        Some(entry.grammar.clone())
    }

    pub(super) fn insert(&mut self, key: Key, grammar: Grammar) {
        self.clock += 1;
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used_at).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
        self.entries.insert(key, Entry { grammar, used_at: self.clock });
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
