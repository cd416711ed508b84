//! A Parquet file as its reader is given it. The reader believes the headers of pages: a few bytes may announce billions of values that
//! take no bytes, or that lie behind the end, over which it would pass one by one.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parquet::errors::Result;
use parquet::file::reader::{ChunkReader, Length};

/// So long the reader may be busy with what it has of one header; it takes some microseconds.
const BUSY: Duration = Duration::from_secs(5);

/// The file.
pub(super) struct Pages(pub File);

impl Length for Pages {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Pages {
    type T = Header;

    fn get_read(&self, start: u64) -> Result<Header> {
        let bytes = self.0.get_read(start)?;
        Ok(Header { bytes, busy: Duration::ZERO, since: Instant::now(), ended: false })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.0.get_bytes(start, length)
    }
}

/// The bytes from the beginning of a page's header on.
pub(super) struct Header {
    bytes: BufReader<File>,
    /// How long its reader was busy between one read and the next, until the last one.
    busy: Duration,
    since: Instant,
    /// Whether its reader was told that there is no more.
    ended: bool,
}

impl Read for Header {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.busy += self.since.elapsed();
        if self.busy > BUSY {
            return Err(io::Error::other("the header of a page holds more than can be"));
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
