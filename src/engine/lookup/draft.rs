//! What may come next, read off what came before.

/// Tokens that have to agree before what followed them is proposed: the longer is tried first.
const NGRAMS: [usize; 2] = [3, 2];

/// Up to `max` tokens that followed the latest earlier occurrence of the last three (or two) tokens. A text
/// that goes round in a circle is followed round: what is copied may be copied again.
pub fn propose(tokens: &[u32], max: usize) -> Vec<u32> {
    for n in NGRAMS {
        let Some(start) = tokens.len().checked_sub(n).filter(|start| *start > 0) else { continue };
        let last = &tokens[start..];
        let found = (n..tokens.len()).rev().find(|&end| tokens[end - n..end] == *last);
        if let Some(end) = found {
            return tokens[end..].iter().copied().cycle().take(max).collect();
        }
    }
    Vec::new()
}

/// A draft that is not run but compared with what is chosen.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Position in the sequence that its first token stands for.
    at: usize,
    tokens: Vec<u32>,
}

impl Watched {
    pub fn new(at: usize, tokens: &[u32]) -> Self {
        Self { at, tokens: tokens.to_vec() }
    }

    /// How many of how many tokens came true; `None` while that is open.
    pub fn verdict(&self, tokens: &[u32]) -> Option<(usize, usize)> {
        let came = tokens.get(self.at..).unwrap_or_default();
        let n_equal = came.iter().zip(&self.tokens).take_while(|(a, b)| a == b).count();
        let is_decided = n_equal == self.tokens.len() || n_equal < came.len();
        is_decided.then_some((n_equal, self.tokens.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_the_same_tokens_is_proposed() {
        let check = |tokens: &[u32], expected: &[u32]| assert_eq!(propose(tokens, 3), expected, "{tokens:?}");
        check(&[1, 2, 3, 4, 5, 6, 7, 1, 2, 3], &[4, 5, 6]);
        check(&[9, 2, 3, 4, 5, 6, 7, 1, 2, 3], &[4, 5, 6]);
        check(&[1, 2, 3, 8, 1, 2, 3, 9, 1, 2, 3], &[9, 1, 2]);
        // three that agree go before two that are nearer
        check(&[1, 2, 3, 8, 7, 2, 3, 9, 1, 2, 3], &[8, 7, 2]);
        check(&[5, 5, 5], &[5, 5, 5]);
        check(&[9, 1, 2, 1, 2, 1, 2], &[1, 2, 1]);
        check(&[1, 2, 3], &[]);
        check(&[1, 2], &[]);
        check(&[], &[]);
    }

    #[test]
    fn a_watched_draft_is_judged_when_it_can_be() {
        let watched = Watched::new(2, &[7, 8, 9]);
        assert_eq!(watched.verdict(&[1, 2]), None);
        assert_eq!(watched.verdict(&[1, 2, 7, 8]), None);
        assert_eq!(watched.verdict(&[1, 2, 7, 1]), Some((1, 3)));
        assert_eq!(watched.verdict(&[1, 2, 7, 8, 9, 4]), Some((3, 3)));
    }
}
