//! Line and column of a byte of a text.

/// From 1; columns count characters.
pub(super) fn position(text: &str, at: usize) -> (u64, u64) {
    let before = &text[..at];
    let line = before.bytes().filter(|b| *b == b'\n').count() as u64 + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() as u64 + 1;
    (line, column)
}

/// Where `part`, a slice of `text`, begins.
pub(super) fn position_of(text: &str, part: &str) -> (u64, u64) {
    let at = (part.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
    if at > text.len() || !text.is_char_boundary(at) { (1, 1) } else { position(text, at) }
}
