//! Where JSON values begin and end in a stream of bytes, so that one is in memory at a time. What is in them is parsed elsewhere.

use std::io::BufRead;

use memchr::memchr_iter;

use super::super::lines::too_long;
use super::super::{LONGEST, Problem};

/// A place in a stream of JSON.
pub(super) struct Scanner {
    bytes: Box<dyn BufRead + Send>,
    line_end: u8,
    /// The line of the next byte, from 1.
    pub line: usize,
}

/// How far into a value one is.
#[derive(Default)]
struct Depth {
    brackets: usize,
    in_string: bool,
    escaped: bool,
    begun: bool,
}

impl Depth {
    /// How many of `bytes` belong to the value, and whether it ends there.
    fn scan(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (i, byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => {
                        self.in_string = false;
                        if self.brackets == 0 {
                            return (i + 1, true);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.brackets += 1,
                b'}' | b']' | b',' | b':' if self.brackets == 0 => return (i, true),
                b'}' | b']' => {
                    self.brackets -= 1;
                    if self.brackets == 0 {
                        return (i + 1, true);
                    }
                }
                _ if self.brackets == 0 && self.begun && byte.is_ascii_whitespace() => return (i, true),
                _ => {}
            }
            self.begun = true;
        }
        (bytes.len(), false)
    }

    fn is_open(&self) -> bool {
        self.in_string || self.brackets > 0
    }
}

/// Whether `bytes` are one object or list from beginning to end.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    Depth::default().scan(bytes) == (bytes.len(), true)
}

impl Scanner {
    pub fn new(bytes: Box<dyn BufRead + Send>, line_end: u8) -> Self {
        Self { bytes, line_end, line: 1 }
    }

    /// The next byte that is not white space, which stays; `None` at the end.
    pub fn peek(&mut self) -> Result<Option<u8>, Problem> {
        loop {
            let chunk = self.bytes.fill_buf().map_err(|e| e.to_string())?;
            let Some(first) = chunk.iter().position(|b| !b.is_ascii_whitespace()) else {
                if chunk.is_empty() {
                    return Ok(None);
                }
                let all = chunk.len();
                self.pass(all);
                continue;
            };
            let byte = chunk[first];
            self.pass(first);
            return Ok(Some(byte));
        }
    }

    /// Goes past the next byte that is not white space if it is `byte`.
    pub fn eat(&mut self, byte: u8) -> Result<bool, Problem> {
        let there = self.peek()? == Some(byte);
        if there {
            self.pass(1);
        }
        Ok(there)
    }

    /// Goes past the next value, whose bytes are appended to `kept`, if they are wanted.
    pub fn value(&mut self, mut kept: Option<&mut Vec<u8>>) -> Result<(), Problem> {
        self.peek()?;
        let (begun, mut depth) = (self.line, Depth::default());
        loop {
            let chunk = self.bytes.fill_buf().map_err(|e| e.to_string())?;
            if chunk.is_empty() {
                return match depth.is_open() {
                    true => Err(format!("malformed JSON: the file ends inside the value that begins on line {begun}")),
                    false => Ok(()),
                };
            }
            let (used, ends) = depth.scan(chunk);
            if let Some(kept) = &mut kept {
                kept.extend_from_slice(&chunk[..used]);
                if kept.len() > LONGEST {
                    return Err(format!("{}; it begins on line {begun}", too_long("value")));
                }
            }
            self.pass(used);
            if ends {
                return Ok(());
            }
        }
    }

    fn pass(&mut self, n: usize) {
        if let Ok(chunk) = self.bytes.fill_buf() {
            self.line += memchr_iter(self.line_end, &chunk[..n]).count();
        }
        self.bytes.consume(n);
    }
}
