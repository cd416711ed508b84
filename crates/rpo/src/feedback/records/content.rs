//! From a file to what is in it: decompressed, as UTF-8 and known by its first bytes, not by its name.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::{Problem, encoding, foreign};
use crate::error::{Error, Result};
use crate::feedback::opened;

/// What a file holds.
pub(super) enum Content {
    /// A Parquet file, at its beginning.
    Parquet(File),
    /// An Arrow file (random access), at its beginning.
    ArrowFile(File),
    /// An Arrow stream, at its beginning.
    ArrowStream(File),
    /// JSON, a table with separators, or something else in letters.
    Text(Text),
}

type Bytes = Box<dyn BufRead + Send>;

/// A text as UTF-8 bytes (which are checked where they are used) without byte order mark.
pub(super) struct Text {
    /// The first bytes.
    pub head: Vec<u8>,
    /// Whether they are all.
    pub short: bool,
    /// All bytes.
    pub bytes: Bytes,
    path: PathBuf,
}

/// How many bytes are looked at to tell what they are.
const HEAD: usize = 1 << 18;

/// What is compressed may become so many times as large, beyond [`FREE`] bytes. Texts become 3 to 20 times as large, rows that share
/// long prompts some hundred times.
const RATIO: u64 = 1000;
const FREE: u64 = 1 << 30;

/// How many bytes are read at once.
const CHUNK: usize = 1 << 16;

impl Text {
    /// A text that is in memory already.
    pub fn of(text: &str) -> Self {
        let head = text.trim_start_matches('\u{feff}').as_bytes().to_vec();
        Self { bytes: Box::new(Cursor::new(head.clone())), head, short: true, path: PathBuf::new() }
    }

    /// The first byte that is not white space.
    pub fn first(&self) -> Option<u8> {
        self.head.iter().copied().find(|b| !b.is_ascii_whitespace())
    }

    /// The same bytes from their beginning once more.
    ///
    /// # Errors
    /// If the file cannot be read twice, as a pipe.
    pub fn again(&self) -> std::result::Result<Bytes, Problem> {
        if self.short {
            return Ok(Box::new(Cursor::new(self.head.clone())));
        }
        if !self.path.is_file() {
            return Err("one JSON object as long as this cannot be read from a pipe; save it as a file, \
                        or write its rows one a line"
                .into());
        }
        match open(&self.path).map_err(|e| e.to_string())? {
            Content::Text(text) => Ok(text.bytes),
            _ => Err("the file changed while it was read".into()),
        }
    }

    /// What ends a line: `\r` in files of old Macs, `\n` (with or without `\r` before it) in all others.
    pub fn line_end(&self) -> u8 {
        if self.head.contains(&b'\r') && !self.head.contains(&b'\n') { b'\r' } else { b'\n' }
    }
}

/// Opens a file and looks at what is in it.
///
/// # Errors
/// If it cannot be read, is empty, or is of a kind that holds no records, which is then said with what to do.
pub(super) fn open(path: &Path) -> Result<Content> {
    let unreadable = |cause| Error::Read { path: path.into(), cause };
    let bad = |problem| Error::File { path: path.into(), problem };
    let mut file = opened::open(path)?;
    let head = peek(&mut file).map_err(unreadable)?;
    if head.is_empty() {
        return Err(bad("the file is empty; there is no rated response in it".into()));
    }
    if let Some(table) = Table::of(&head) {
        file.rewind()
            .map_err(|_| bad("Parquet and Arrow files cannot be read from a pipe; save it as a file".into()))?;
        return Ok(table.content(file));
    }
    let is_gzip = head.starts_with(&[0x1f, 0x8b]);
    // Programs that compress in parallel begin with a frame to skip.
    let is_zstd =
        head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || matches!(head.as_slice(), [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
    let cannot_be = foreign::is(&head, path);
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Counted { reader: Cursor::new(head.clone()).chain(file), taken: taken.clone() };
    let whole = BufReader::with_capacity(CHUNK, counted);
    let (head, bytes) = match (is_gzip, is_zstd) {
        (true, _) => decompressed(MultiGzDecoder::new(whole), "gzip", taken, path)?,
        (_, true) => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(whole).map_err(unreadable)?;
            decoder.window_log_max(31).map_err(unreadable)?;
            decompressed(decoder, "zstd", taken, path)?
        }
        _ => match cannot_be {
            Some(problem) => return Err(bad(problem)),
            None => (head, Box::new(whole) as Bytes),
        },
    };
    text(path, &head, bytes).map_err(bad).map(Content::Text)
}

/// Content behind a compression, which must be text.
fn decompressed(
    decoder: impl Read + Send + 'static,
    method: &'static str,
    taken: Arc<AtomicU64>,
    path: &Path,
) -> Result<(Vec<u8>, Bytes)> {
    let bad = |problem| Error::File { path: path.into(), problem };
    let mut decoder = Decompressed { decoder, method, taken, given: 0, free: FREE };
    let head = peek(&mut decoder).map_err(|e| bad(e.to_string()))?;
    if head.is_empty() {
        return Err(bad(format!("there is nothing in it but {method} compression")));
    }
    let inside = match Table::of(&head) {
        Some(_) => Some(format!("a Parquet or Arrow file behind {method} compression; decompress it first")),
        None => foreign::is(&head, path).map(|problem| format!("behind {method} compression: {problem}")),
    };
    match inside {
        Some(problem) => Err(bad(problem)),
        None => Ok((head.clone(), Box::new(BufReader::with_capacity(CHUNK, Cursor::new(head).chain(decoder))))),
    }
}

/// The same bytes as UTF-8.
fn text(path: &Path, head: &[u8], mut bytes: Bytes) -> std::result::Result<Text, Problem> {
    let path = path.to_path_buf();
    match encoding::of(head)? {
        encoding::Encoding::Utf8 { mark } => {
            bytes.read_exact(&mut vec![0; mark]).map_err(|e| e.to_string())?;
            let short = head.len() < HEAD;
            Ok(Text { head: head[mark..].to_vec(), short, bytes, path })
        }
        encoding::Encoding::Utf16(which) => {
            let mut decoder = encoding::Utf16::new(bytes, which);
            let head = peek(&mut decoder).map_err(|e| e.to_string())?;
            let bytes = Box::new(BufReader::with_capacity(CHUNK, Cursor::new(head.clone()).chain(decoder)));
            Ok(Text { short: head.len() < HEAD, head, bytes, path })
        }
    }
}

fn peek(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    reader.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Formats that are read by place and not from front to back.
#[derive(Clone, Copy)]
enum Table {
    Parquet,
    ArrowFile,
    ArrowStream,
}

impl Table {
    fn of(head: &[u8]) -> Option<Self> {
        // An Arrow stream begins with a continuation mark and the length of its schema.
        let arrow_stream = head.starts_with(&[0xff; 4]) && head.len() >= 8 && head[4..8] != [0xff; 4];
        match head {
            _ if head.starts_with(b"PAR1") => Some(Self::Parquet),
            _ if head.starts_with(b"ARROW1") => Some(Self::ArrowFile),
            _ if arrow_stream => Some(Self::ArrowStream),
            _ => None,
        }
    }

    fn content(self, file: File) -> Content {
        match self {
            Self::Parquet => Content::Parquet(file),
            Self::ArrowFile => Content::ArrowFile(file),
            Self::ArrowStream => Content::ArrowStream(file),
        }
    }
}

/// A reader that counts the bytes that are taken from it.
struct Counted<R> {
    reader: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.taken.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// A decoder whose errors name the compression, and which ends where no data could be.
struct Decompressed<R> {
    decoder: R,
    method: &'static str,
    /// Compressed bytes that it was given.
    taken: Arc<AtomicU64>,
    /// Bytes that it gave.
    given: u64,
    /// So many it may give, whatever it was given.
    free: u64,
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer);
        self.given += *read.as_ref().unwrap_or(&0) as u64;
        if self.given > self.free && self.given / RATIO > self.taken.load(Ordering::Relaxed) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "its {} compression holds more than {RATIO} times its size, as no data do; if they are real, decompress them \
                     first",
                    self.method
                ),
            ));
        }
        read.map_err(|e| {
            let method = self.method;
            let what = match e.kind() {
                io::ErrorKind::UnexpectedEof => "ends in the middle: the file was cut off",
                _ => "is damaged",
            };
            io::Error::new(e.kind(), format!("its {method} compression {what} ({e}); get the file once more"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_beyond_measure_is_refused() {
        let read = |text: &[u8], free| {
            let bytes = zstd::encode_all(text, 3).expect("compressed");
            let taken = Arc::new(AtomicU64::new(0));
            let counted = BufReader::new(Counted { reader: Cursor::new(bytes), taken: taken.clone() });
            let decoder = zstd::stream::read::Decoder::with_buffer(counted).expect("decoder");
            let mut all = Vec::new();
            let mut decoder = Decompressed { decoder, method: "zstd", taken, given: 0, free };
            decoder.read_to_end(&mut all).map(|n| n == text.len()).map_err(|e| e.to_string())
        };
        let blanks = vec![b' '; 4 << 20];
        let problem = read(&blanks, 1 << 20).expect_err("a bomb");
        assert!(problem.contains("more than 1000 times its size"), "{problem}");
        assert_eq!(read(&blanks, 4 << 20), Ok(true), "so much is free");
        let text: String = (0..100_000).map(|i| format!("{{\"prompt\":\"{i}\"}}\n")).collect();
        assert_eq!(read(text.as_bytes(), 0), Ok(true), "data");
    }
}
