//! Lines with their numbers.

use std::io::{BufRead, Read};

use super::content::Text;
use super::{LONGEST, Problem};

/// The lines of a text that are not blank.
pub(super) struct Lines {
    bytes: Box<dyn BufRead + Send>,
    end: u8,
    /// Of the line read last, from 1.
    pub number: usize,
    line: Vec<u8>,
}

impl Lines {
    pub fn new(text: Text) -> Self {
        Self { end: text.line_end(), bytes: text.bytes, number: 0, line: Vec::new() }
    }

    /// The bytes of the next line that is not blank.
    pub fn next(&mut self) -> Option<Result<&[u8], Problem>> {
        // One long line must not stay in memory for the rest of the file.
        if self.line.capacity() > 1 << 24 {
            self.line = Vec::new();
        }
        loop {
            self.line.clear();
            self.number += 1;
            match self.bytes.by_ref().take(LONGEST as u64 + 1).read_until(self.end, &mut self.line) {
                Ok(0) => return None,
                Ok(n) if n > LONGEST => return Some(Err(too_long("line"))),
                Ok(_) if self.line.iter().all(u8::is_ascii_whitespace) => {}
                Ok(_) => return Some(Ok(self.line.as_slice().trim_ascii_end())),
                Err(e) => return Some(Err(e.to_string())),
            }
        }
    }
}

/// What is said of something with more than [`LONGEST`] bytes.
pub(super) fn too_long(what: &str) -> Problem {
    format!("the {what} is longer than {} MiB, which no rated response is", LONGEST >> 20)
}
