//! How sure a model was of each field of an answer, from the choices that the grammar left it.
//!
//! A choice is weighed against what was allowed beside it: forced text is certain. Where a choice was among a
//! closed few (an enum's words, a digit, one more entry or the end), their probabilities are multiplied, which is
//! the probability of that very value. Free text has no such thing (a long name is less probable than a short one
//! and no worse), so its choices count with their geometric mean, that is, per token.
//!
//! A choice belongs to the value that it is part of; to begin an entry belongs to the entry's first value, to end
//! a list to the list. Values are named by JSON pointers (RFC 6901) into the answer.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::confidence::{Confidence, ItemConfidence};

/// Allowed tokens from which on a choice counts as one of free text. Vocabularies have ten times as many and more;
/// what is not free text seldom allows a tenth.
const FREE_TOKENS: u32 = 4_096;

/// A choice that the grammar left.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Bytes of the answer that were chosen by it; empty, at its end, where the choice was to end.
    pub bytes: Range<usize>,
    /// Natural logarithm of the probability of what was chosen, among what was allowed.
    pub logprob: f32,
    /// Tokens that were allowed.
    pub n_allowed: u32,
}

/// Probabilities of an answer's values; of values without a choice there is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Confidences {
    by_pointer: BTreeMap<String, Confidence>,
}

/// What the choices about one value come to.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    closed: f64,
    free: f64,
    n_free: u32,
}

impl Tally {
    fn add(&mut self, decision: &Decision) {
        let logprob = f64::from(decision.logprob);
        if decision.n_allowed >= FREE_TOKENS {
            self.free += logprob;
            self.n_free += 1;
        } else {
            self.closed += logprob;
        }
    }

    fn confidence(self) -> Confidence {
        Confidence::of_log(self.closed + self.free / f64::from(self.n_free.max(1)))
    }
}

impl Confidences {
    /// Of an answer and the choices in it, in order. `None`: it is no JSON.
    pub fn of(text: &str, decisions: &[Decision]) -> Option<Self> {
        let mut parts = Vec::new();
        let root: &RawValue = serde_json::from_str(text).ok()?;
        walk(text, root, String::new(), &mut parts);
        let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
        for decision in decisions {
            if let Some(pointer) = owner(text, &parts, decision) {
                tallies.entry(pointer).or_default().add(decision);
            }
        }
        let by_pointer =
            tallies.into_iter().map(|(pointer, tally)| (pointer.to_string(), tally.confidence())).collect();
        Some(Self { by_pointer })
    }

    /// Of the least sure of some values; one that the model had no choice about is certain.
    pub fn least(&self, pointers: &[String]) -> Confidence {
        let known = pointers.iter().filter_map(|pointer| self.by_pointer.get(pointer));
        known.min().copied().unwrap_or(Confidence::CERTAIN)
    }

    pub fn into_item(self) -> ItemConfidence {
        let least = self.by_pointer.values().min().copied().unwrap_or(Confidence::CERTAIN);
        ItemConfidence { least, fields: self.by_pointer }
    }
}

/// A value of the answer.
struct Part {
    pointer: String,
    bytes: Range<usize>,
    is_list: bool,
    is_leaf: bool,
}

/// Values in the order in which they end; a list or object after what is in it.
fn walk(text: &str, value: &RawValue, pointer: String, parts: &mut Vec<Part>) {
    let own = value.get();
    let begin = own.as_ptr() as usize - text.as_ptr() as usize;
    let (mut is_list, mut is_leaf) = (false, false);
    match own.as_bytes().first() {
        Some(b'{') => {
            let fields: Fields<'_> = serde_json::from_str(own).expect("a raw value is JSON");
            for (key, field) in fields.0 {
                let key = key.replace('~', "~0").replace('/', "~1");
                walk(text, field, format!("{pointer}/{key}"), parts);
            }
        }
        Some(b'[') => {
            is_list = true;
            let entries: Vec<&RawValue> = serde_json::from_str(own).expect("a raw value is JSON");
            for (at, entry) in entries.into_iter().enumerate() {
                walk(text, entry, format!("{pointer}/{at}"), parts);
            }
        }
        _ => is_leaf = true,
    }
    parts.push(Part { pointer, bytes: begin..begin + own.len(), is_list, is_leaf });
}

/// An object's fields in their order.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Visitor).map(Fields)
    }
}

/// Whose value a choice decided.
fn owner<'p>(text: &str, parts: &'p [Part], decision: &Decision) -> Option<&'p str> {
    let Range { start, end } = decision.bytes;
    let leaf = |part: &&Part| part.is_leaf && part.bytes.end > start;
    let next = parts.iter().filter(leaf).min_by_key(|part| part.bytes.start);
    if let Some(next) = next
        && next.bytes.start < end
    {
        return Some(&next.pointer);
    }
    // between values: a comma or an opening goes on, a lone closing ends what it closes
    let said = text.get(start..end)?;
    if !said.contains([',', '{', '[', '"', ':'])
        && let Some(at) = said.rfind([']', '}'])
        && let Some(closed) = parts.iter().find(|part| part.bytes.end == start + at + 1)
    {
        return Some(&closed.pointer);
    }
    next.or_else(|| parts.iter().rfind(|part| part.is_list || part.bytes.start == 0))
        .map(|part| part.pointer.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A choice about the `n`th occurrence of a piece of the text.
    fn chose(text: &str, piece: &str, n: usize, probability: f32, n_allowed: u32) -> Decision {
        let start = text.match_indices(piece).nth(n).expect("the piece is there").0;
        Decision { bytes: start..start + piece.len(), logprob: probability.ln(), n_allowed }
    }

    fn check(text: &str, decisions: &[Decision], expected: &[(&str, f64)]) {
        let found = Confidences::of(text, decisions).unwrap();
        let expected: BTreeMap<String, Confidence> =
            expected.iter().map(|(pointer, p)| (pointer.to_string(), Confidence::new(*p).unwrap())).collect();
        assert_eq!(found.by_pointer, expected, "{text}");
    }

    const TEXT: &str = r#"{"kind":"entity","name":"Ward bed","links":[{"to":"a/b"},{"to":"c"}],"n":17}"#;

    #[test]
    fn closed_choices_multiply_and_free_ones_average() {
        let decisions = [
            chose(TEXT, "ent", 0, 0.5, 5),
            chose(TEXT, "ity", 0, 0.9, 2),
            chose(TEXT, "Ward", 0, 0.5, 40_000),
            chose(TEXT, " bed", 0, 0.125, 40_000),
            chose(TEXT, "1", 0, 0.5, 10),
            chose(TEXT, "7", 0, 0.5, 11),
        ];
        check(TEXT, &decisions, &[("/kind", 0.45), ("/name", 0.25), ("/n", 0.25)]);
    }

    #[test]
    fn a_choice_belongs_to_what_it_is_part_of_begins_or_ends() {
        // the end of a text is the text's, whatever else its token holds
        check(TEXT, &[chose(TEXT, "bed\",\"l", 0, 0.5, 9)], &[("/name", 0.5)]);
        check(TEXT, &[chose(TEXT, "\",\"links", 0, 0.5, 9)], &[("/name", 0.5)]);
        // one more entry is that entry's, none more the list's
        check(TEXT, &[chose(TEXT, ",", 2, 0.5, 2)], &[("/links/1/to", 0.5)]);
        check(TEXT, &[chose(TEXT, ",{\"", 0, 0.5, 2)], &[("/links/1/to", 0.5)]);
        check(TEXT, &[chose(TEXT, "]", 0, 0.5, 2)], &[("/links", 0.5)]);
        check(TEXT, &[chose(TEXT, "}]", 0, 0.5, 2)], &[("/links", 0.5)]);
        check(r#"{"l":[]}"#, &[chose(r#"{"l":[]}"#, "]", 0, 0.25, 2)], &[("/l", 0.25)]);
        // the choice to end
        let end = Decision { bytes: TEXT.len()..TEXT.len(), logprob: 0.5_f32.ln(), n_allowed: 2 };
        check(TEXT, &[end], &[("", 0.5)]);
    }

    #[test]
    fn keys_are_escaped_and_text_that_is_no_json_has_no_fields() {
        let text = r#"{"a/b~":[1,"x"]}"#;
        check(text, &[chose(text, "x", 0, 0.5, 3)], &[("/a~1b~0/1", 0.5)]);
        check("7", &[chose("7", "7", 0, 0.5, 3)], &[("", 0.5)]);
        assert_eq!(Confidences::of("{", &[]), None);
    }

    #[test]
    fn what_had_no_choice_is_certain() {
        let confidences = Confidences::of(TEXT, &[chose(TEXT, "ent", 0, 0.5, 5)]).unwrap();
        let of = |pointers: &[&str]| {
            confidences.least(&pointers.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(of(&["/kind", "/name"]), Confidence::new(0.5).unwrap());
        assert_eq!(of(&["/name"]), Confidence::CERTAIN);
        assert_eq!(Confidences::default().into_item().least, Confidence::CERTAIN);
    }
}
