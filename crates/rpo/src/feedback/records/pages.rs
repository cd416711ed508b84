//! A Parquet file as its reader is given it. The reader believes the headers of pages: a few bytes may announce billions of values that
//! take no bytes, or that lie behind the end, over which it would pass one by one.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parquet::errors::Result;
use parquet::file::reader::{ChunkReader, Length};

/// So long the reader may be busy with the headers of a file, beside what real ones take, which is some microseconds each.
const BUSY: Duration = Duration::from_secs(3);
const EACH: Duration = Duration::from_micros(50);

/// The file.
pub(super) struct Pages {
    file: File,
    /// Nanoseconds in which the reader was busy with headers, and their number.
    busy: Arc<AtomicU64>,
    headers: AtomicU32,
}

impl Pages {
    pub fn of(file: File) -> Self {
        Self { file, busy: Arc::default(), headers: AtomicU32::new(0) }
    }
}

impl Length for Pages {
    fn len(&self) -> u64 {
        self.file.len()
    }
}

impl ChunkReader for Pages {
    type T = Header;

    fn get_read(&self, start: u64) -> Result<Header> {
        let bytes = self.file.get_read(start)?;
        let most = BUSY + EACH * self.headers.fetch_add(1, Ordering::Relaxed);
        Ok(Header { bytes, busy: Arc::clone(&self.busy), most, since: Instant::now(), ended: false })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.file.get_bytes(start, length)
    }
}

/// The bytes from the beginning of a page's header on.
pub(super) struct Header {
    bytes: BufReader<File>,
    /// How long the reader was busy between one read of a header and the next, and how long it may be.
    busy: Arc<AtomicU64>,
    most: Duration,
    since: Instant,
    /// Whether its reader was told that there is no more.
    ended: bool,
}

impl Read for Header {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let busy = self.since.elapsed().as_nanos() as u64;
        if Duration::from_nanos(self.busy.fetch_add(busy, Ordering::Relaxed)) > self.most {
            return Err(io::Error::other("the headers of its pages announce more than can be"));
        }
        let read = self.bytes.read(into)?;
        self.since = Instant::now();
        match read == 0 && !into.is_empty() {
            true if self.ended => Err(io::Error::new(ErrorKind::UnexpectedEof, "the file ends within a page's header")),
            ended => {
                self.ended = ended;
                Ok(read)
            }
        }
    }
}
