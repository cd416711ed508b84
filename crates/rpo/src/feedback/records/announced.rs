//! How large the batches of Arrow files and their compressed parts say that they are. The reader believes them and allocates so much at
//! once, so that a few bytes could ask for more memory than there is; therefore they are judged first. What cannot be understood here is left to the
//! reader, which then fails at the same place.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use arrow_ipc::reader::read_footer_length;
use arrow_ipc::{Message, MessageHeader, RecordBatch, root_as_footer, root_as_message};

use super::Problem;
use crate::border::guarded;

/// A compressed part may become so many times as large, beyond [`FREE`] bytes.
const RATIO: u64 = 1000;
const FREE: u64 = 64 << 20;
/// Most bytes of one part.
const LARGEST: u64 = 4 << 30;
/// Most bytes of what describes a batch.
const DESCRIPTION: u64 = 256 << 20;
/// What stands before a description in files of today.
const MARK: [u8; 4] = [0xff; 4];

/// Checks a file whose footer says where its batches lie; it stands at its beginning before and after.
///
/// # Errors
/// If a batch ends behind the file, or a part would become too large.
pub(super) fn check_file(file: &mut File) -> Result<(), Problem> {
    checked(file, |file| {
        let mut end = [0; 10];
        file.seek(SeekFrom::End(-10))?;
        file.read_exact(&mut end)?;
        let length = read_footer_length(end).map_err(io::Error::other)? as u64;
        file.seek(SeekFrom::End(-10 - length.min(DESCRIPTION) as i64))?;
        let bytes = described(file, length)?;
        let footer = root_as_footer(&bytes).map_err(|_| Ended::NotUnderstood)?;
        let blocks = || footer.recordBatches().into_iter().chain(footer.dictionaries()).flatten();
        let size = file.metadata()?.len();
        for block in blocks() {
            let parts = [block.offset(), block.metaDataLength().into(), block.bodyLength()];
            let end =
                parts.into_iter().fold(0, |end: u64, part| end.saturating_add(u64::try_from(part).unwrap_or(u64::MAX)));
            if end > size {
                return Err(Ended::Wrong(format!(
                    "a batch is said to end at byte {end}, and the file has {size}: it is damaged or was cut off; get it once more"
                )));
            }
        }
        for block in blocks() {
            let (Ok(start), Ok(length)) = (u64::try_from(block.offset()), u64::try_from(block.metaDataLength())) else {
                continue;
            };
            file.seek(SeekFrom::Start(start))?;
            let bytes = described(file, length)?;
            let skipped = if bytes.starts_with(&MARK) { 8 } else { 4 };
            let message =
                root_as_message(bytes.get(skipped..).unwrap_or_default()).map_err(|_| Ended::NotUnderstood)?;
            check_message(file, &message, start.saturating_add(length))?;
        }
        Ok(())
    })
}

/// Checks a stream of batches; it stands at its beginning before and after.
///
/// # Errors
/// As [`check_file`].
pub(super) fn check_stream(file: &mut File) -> Result<(), Problem> {
    checked(file, |file| {
        let mut at = 0;
        loop {
            file.seek(SeekFrom::Start(at))?;
            let mut length = [0; 4];
            file.read_exact(&mut length)?;
            at += 4;
            if length == MARK {
                file.read_exact(&mut length)?;
                at += 4;
            }
            let length = u64::from(u32::from_le_bytes(length));
            if length == 0 {
                return Ok(());
            }
            let bytes = described(file, length)?;
            let message = root_as_message(&bytes).map_err(|_| Ended::NotUnderstood)?;
            check_message(file, &message, at + length)?;
            let body = u64::try_from(message.bodyLength()).map_err(io::Error::other)?;
            at = (at + length).saturating_add(body);
        }
    })
}

/// Why a check ended early.
enum Ended {
    /// By what is wrong.
    Wrong(Problem),
    /// It was not understood.
    NotUnderstood,
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::NotUnderstood
    }
}

fn checked(file: &mut File, check: impl FnOnce(&mut File) -> Result<(), Ended>) -> Result<(), Problem> {
    let found = guarded(|| check(file));
    file.rewind().map_err(|e| e.to_string())?;
    match found {
        Ok(Err(Ended::Wrong(problem))) => Err(problem),
        _ => Ok(()),
    }
}

fn described(file: &mut File, length: u64) -> io::Result<Vec<u8>> {
    if length > DESCRIPTION {
        return Err(io::Error::other("too long"));
    }
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Checks the parts of a message whose body begins at `body`.
fn check_message(file: &mut File, message: &Message<'_>, body: u64) -> Result<(), Ended> {
    let batch: Option<RecordBatch<'_>> = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch(),
        MessageHeader::DictionaryBatch => message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data()),
        _ => None,
    };
    let Some(batch) = batch.filter(|batch| batch.compression().is_some()) else { return Ok(()) };
    for part in batch.buffers().into_iter().flatten() {
        let (Ok(offset), Ok(length)) = (u64::try_from(part.offset()), u64::try_from(part.length())) else { continue };
        if length < 8 {
            continue;
        }
        let mut size = [0; 8];
        file.seek(SeekFrom::Start(body.saturating_add(offset)))?;
        file.read_exact(&mut size)?;
        // -1 is said of what is not compressed.
        let size = u64::try_from(i64::from_le_bytes(size)).unwrap_or_default();
        if size > LARGEST || size.saturating_sub(FREE) / RATIO > length {
            return Err(Ended::Wrong(format!(
                "{length} compressed bytes of it are said to become {size}, which is more than {RATIO} times their size or than {} GiB",
                LARGEST >> 30
            )));
        }
    }
    Ok(())
}
