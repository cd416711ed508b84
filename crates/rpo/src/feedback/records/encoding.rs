//! Character encodings: UTF-8 and UTF-16 are read, of others is said what they look like and how to convert them.

use std::io::{self, Read};

use encoding_rs::{DecoderResult, UTF_16BE, UTF_16LE, WINDOWS_1252};

use super::Problem;

/// How letters are written as bytes.
pub(super) enum Encoding {
    /// After a byte order mark of so many bytes.
    Utf8 { mark: usize },
    /// In either order.
    Utf16(&'static encoding_rs::Encoding),
}

/// The encoding of a text that begins so: by its byte order mark, or by zeros in every other byte.
///
/// # Errors
/// If it is UTF-32.
pub(super) fn of(head: &[u8]) -> Result<Encoding, Problem> {
    let zeros = |first: usize| head.iter().take(512).skip(first).step_by(2).filter(|b| **b == 0).count();
    let pairs = head.len().min(512) / 2;
    let (even, odd) = (zeros(0), zeros(1));
    match head {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
            Err("the text is UTF-32; save it as UTF-8, or convert it: iconv -f UTF-32 -t UTF-8".into())
        }
        [0xff, 0xfe, ..] => Ok(Encoding::Utf16(UTF_16LE)),
        [0xfe, 0xff, ..] => Ok(Encoding::Utf16(UTF_16BE)),
        [0xef, 0xbb, 0xbf, ..] => Ok(Encoding::Utf8 { mark: 3 }),
        _ if pairs > 1 && 2 * odd > pairs && 8 * even <= odd => Ok(Encoding::Utf16(UTF_16LE)),
        _ if pairs > 1 && 2 * even > pairs && 8 * odd <= even => Ok(Encoding::Utf16(UTF_16BE)),
        _ => Ok(Encoding::Utf8 { mark: 0 }),
    }
}

/// UTF-16 read as UTF-8, without its byte order mark.
pub(super) struct Utf16<R> {
    bytes: R,
    decoder: encoding_rs::Decoder,
    raw: Vec<u8>,
    /// What is decoded and not read yet.
    text: String,
    read: usize,
    ended: bool,
}

impl<R: Read> Utf16<R> {
    pub fn new(bytes: R, encoding: &'static encoding_rs::Encoding) -> Self {
        let (decoder, text) = (encoding.new_decoder_with_bom_removal(), String::new());
        Self { bytes, decoder, raw: vec![0; 1 << 15], text, read: 0, ended: false }
    }

    /// Decodes the next bytes into `text`.
    fn decode(&mut self) -> io::Result<()> {
        let n = self.bytes.read(&mut self.raw)?;
        self.ended = n == 0;
        let most = self.decoder.max_utf8_buffer_length_without_replacement(n).unwrap_or(0);
        (self.text, self.read) = (String::with_capacity(most), 0);
        let raw = &self.raw[..n];
        match self.decoder.decode_to_string_without_replacement(raw, &mut self.text, self.ended) {
            (DecoderResult::InputEmpty, _) => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not well-formed UTF-16: half of a character stands alone; save the file as UTF-8",
            )),
        }
    }
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.text.len() && !self.ended {
            self.decode()?;
        }
        let n = (&self.text.as_bytes()[self.read..]).read(buffer)?;
        self.read += n;
        Ok(n)
    }
}

/// The text of `bytes`, or which of them are not UTF-8, what they may be and what to do.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|e| {
        let at = e.valid_up_to();
        let around = &bytes[at.saturating_sub(12)..bytes.len().min(at + 12)];
        let (shown, _) = WINDOWS_1252.decode_without_bom_handling(around);
        let shown: String = shown.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!(
            "not UTF-8: byte {:#04x}. Read as Windows-1252 (what Excel's plain CSV is) there stands `{shown}`; if that \
             is right, convert the file: iconv -f WINDOWS-1252 -t UTF-8, or save it as `CSV UTF-8`",
            bytes[at]
        )
    })
}
