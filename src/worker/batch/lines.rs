//! An uploaded file cut into lines, one part and one line in memory at a time.

use crate::domain::id::FileId;
use crate::store::{Store, StoreError};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

pub struct Lines {
    store: Store,
    file: FileId,
    max_line_bytes: usize,
    next_part: i32,
    part: Vec<u8>,
    /// Bytes of the part that were taken.
    at: usize,
    line: Vec<u8>,
    is_too_long: bool,
    number: u64,
}

/// What stands in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text<'a> {
    Whole(&'a [u8]),
    /// It exceeds the limit and was passed over.
    TooLong,
}

impl Lines {
    pub fn new(store: Store, file: FileId, max_line_bytes: usize) -> Self {
        Self {
            store,
            file,
            max_line_bytes,
            next_part: 0,
            part: Vec::new(),
            at: 0,
            line: Vec::new(),
            is_too_long: false,
            number: 0,
        }
    }

    /// The next line that is not blank, with its number from 1.
    pub async fn next(&mut self) -> Result<Option<(u64, Text<'_>)>, StoreError> {
        while self.read_line().await? {
            if self.is_too_long {
                return Ok(Some((self.number, Text::TooLong)));
            }
            if !self.line.iter().all(u8::is_ascii_whitespace) {
                let line = self.line.as_slice();
                let is_first = self.number == 1;
                let line = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| is_first).unwrap_or(line);
                return Ok(Some((self.number, Text::Whole(line))));
            }
        }
        Ok(None)
    }

    async fn read_line(&mut self) -> Result<bool, StoreError> {
        self.line.clear();
        self.is_too_long = false;
        self.number += 1;
        loop {
            let rest = &self.part[self.at..];
            let end = rest.iter().position(|byte| *byte == b'\n');
            let piece = &rest[..end.unwrap_or(rest.len())];
            if self.line.len() + piece.len() > self.max_line_bytes {
                self.is_too_long = true;
                self.line.clear();
            } else if !self.is_too_long {
                self.line.extend_from_slice(piece);
            }
            if let Some(end) = end {
                self.at += end + 1;
                return Ok(true);
            }
            match self.store.file_part(self.file, self.next_part).await? {
                Some(part) => (self.part, self.at, self.next_part) = (part, 0, self.next_part + 1),
                None => {
                    self.at = self.part.len();
                    return Ok(self.is_too_long || !self.line.is_empty());
                }
            }
        }
    }
}
