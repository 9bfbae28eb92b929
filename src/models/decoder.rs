//! An answer's text while its tokens come: pieces that, one after the other, are the text of the whole.

use super::tokenizer::Tokenizer;

/// What a token adds to the text may depend on those before it (a blank that a first word has not, a letter cut
/// into bytes), so the last piece's tokens are decoded again with each new one; a letter that is not whole yet
/// waits.
pub struct Decoder {
    tokenizer: Tokenizer,
    tokens: Vec<u32>,
    /// Tokens from here to `said` have been told, and are decoded again for what follows them.
    from: usize,
    said: usize,
}

impl Decoder {
    pub fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, tokens: Vec::new(), from: 0, said: 0 }
    }

    /// The text that these tokens add. It may be empty.
    pub fn push(&mut self, tokens: &[u32]) -> String {
        self.tokens.extend_from_slice(tokens);
        match self.rest() {
            text if text.ends_with('\u{fffd}') => String::new(),
            text => {
                if !text.is_empty() {
                    (self.from, self.said) = (self.said, self.tokens.len());
                }
                text
            }
        }
    }

    /// What still waited, once there are no more tokens.
    pub fn finish(&mut self) -> String {
        let rest = self.rest();
        self.said = self.tokens.len();
        rest
    }

    fn rest(&self) -> String {
        let told = self.tokenizer.decode(&self.tokens[self.from..self.said]);
        let text = self.tokenizer.decode(&self.tokens[self.from..]);
        text.strip_prefix(&told).unwrap_or_default().to_string()
    }
}
