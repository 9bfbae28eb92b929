//! How deep a JSON text nests, found before a parser recurses into it.

/// Line and column, from 1, of the first bracket deeper than `max_depth`; `None`: it nests no deeper.
pub fn exceeded(bytes: &[u8], max_depth: usize) -> Option<(u64, u64)> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let (mut line, mut column) = (1u64, 0u64);
    for byte in bytes {
        column += 1;
        match byte {
            b'\n' => (line, column) = (line + 1, 0),
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > max_depth {
                    return Some((line, column));
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}
