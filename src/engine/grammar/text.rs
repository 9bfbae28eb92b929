//! Where in a JSON text the answer stands, read off the bytes emitted so far.
//!
//! Serves the limits on strings and numbers only. The text is the grammar's, so it is well formed and never needs checking.

/// Scanner over compact JSON.
#[derive(Clone, Debug, Default)]
pub(super) struct JsonText {
    /// Open containers, innermost last; true for an object.
    containers: Vec<bool>,
    /// The next string in this object is a key.
    expects_key: bool,
    string: Option<OpenString>,
    /// Bytes of the number that is open, else 0.
    number_bytes: u32,
}

#[derive(Clone, Copy, Debug)]
struct OpenString {
    is_key: bool,
    /// A backslash waits for the byte it escapes.
    is_escaping: bool,
    bytes: u32,
}

impl JsonText {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.push_byte(byte);
        }
    }

    /// Bytes of the string value that is open and could be closed here, as written (escapes included).
    pub(super) fn open_value_bytes(&self) -> Option<u32> {
        match self.string {
            Some(string) if !string.is_key && !string.is_escaping => Some(string.bytes),
            _ => None,
        }
    }

    /// Bytes of the number that is open; 0 if none is.
    pub(super) fn open_number_bytes(&self) -> u32 {
        self.number_bytes
    }

    /// Whether a number that is open goes on with this byte.
    pub(super) fn is_of_number(byte: u8) -> bool {
        matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
    }

    fn push_byte(&mut self, byte: u8) {
        if let Some(string) = &mut self.string {
            if string.is_escaping {
                string.is_escaping = false;
            } else if byte == b'"' {
                self.string = None;
                return;
            } else {
                string.is_escaping = byte == b'\\';
            }
            string.bytes += 1;
            return;
        }
        let is_number =
            Self::is_of_number(byte) && (self.number_bytes > 0 || byte == b'-' || byte.is_ascii_digit());
        self.number_bytes = if is_number { self.number_bytes + 1 } else { 0 };
        match byte {
            b'"' => {
                let is_key = self.expects_key && self.containers.last() == Some(&true);
                self.string = Some(OpenString { is_key, is_escaping: false, bytes: 0 });
            }
            b'{' | b'[' => {
                self.containers.push(byte == b'{');
                self.expects_key = byte == b'{';
            }
            b'}' | b']' => {
                self.containers.pop();
            }
            b',' => self.expects_key = self.containers.last() == Some(&true),
            b':' => self.expects_key = false,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::JsonText;

    fn check(text: &str, expected: Option<u32>) {
        let mut scanner = JsonText::default();
        scanner.push(text.as_bytes());
        assert_eq!(scanner.open_value_bytes(), expected, "{text}");
    }

    #[test]
    fn only_open_values_count() {
        check(r#"{"#, None);
        check(r#"{"ke"#, None);
        check(r#"{"key":"#, None);
        check(r#"{"key":""#, Some(0));
        check(r#"{"key":"ab"#, Some(2));
        check(r#"{"key":"a\"#, None);
        check(r#"{"key":"a\""#, Some(3));
        check(r#"{"key":"a\\"#, Some(3));
        check(r#"{"key":"a\\""#, None);
        check(r#"{"key":"ab","#, None);
        check(r#"{"key":"ab","ot"#, None);
        check(r#"["ab","c"#, Some(1));
        check(r#"[{"a":[1]},"c,:{"#, Some(4));
        check(r#"{"a":{"b":1},"c"#, None);
        check(r#"{"a":["x"],"c"#, None);
        check(r#""é"#, Some(2));
    }

    #[test]
    fn only_open_numbers_count() {
        for (text, expected) in [
            ("{\"a\":", 0),
            ("{\"a\":-1", 2),
            ("{\"a\":1.5e+7", 6),
            ("{\"a\":12,", 0),
            ("{\"a\":\"12", 0),
            ("[true", 0),
            ("[false,10", 2),
            ("7", 1),
        ] {
            let mut scanner = JsonText::default();
            scanner.push(text.as_bytes());
            assert_eq!(scanner.open_number_bytes(), expected, "{text}");
        }
    }
}
