//! The results of a long pass, kept on disk as they come, so that a pass that was stopped goes on where it was. It knows rows
//! of numbers, not what they mean.
//!
//! The file is a sequence of records, one for each batch: how many rows (`u32`), their indices (`u32`), their numbers (`f32`),
//! CRC-32C of all that (`u32`), everything little-endian.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::store::files::write_file;

/// Rows of `width` numbers, those that are known.
pub(crate) struct Parts {
    width: usize,
    values: Vec<f32>,
    known: Vec<bool>,
    file: Option<(PathBuf, File)>,
}

impl Parts {
    /// `n` unknown rows, kept in memory alone.
    pub(crate) fn new(n: usize, width: usize) -> Self {
        Self { width, values: vec![0.0; n * width], known: vec![false; n], file: None }
    }

    /// The rows that the file at `path` holds, which takes up what comes; it may be new.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub(crate) fn kept_in(path: &Path, n: usize, width: usize) -> Result<Self> {
        let mut parts = Self::new(n, width);
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(Error::read(path, e)),
        };
        let mut whole = 0;
        while let Some(length) = parts.recall(&bytes[whole..]) {
            whole += length;
        }
        if whole < bytes.len() {
            // The program ended in the midst of a record.
            write_file(path, &bytes[..whole])?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(|e| Error::write(path, e))?;
        parts.file = Some((path.into(), file));
        Ok(parts)
    }

    /// Takes up the record at the start of `bytes` and returns its length, if it is whole.
    fn recall(&mut self, bytes: &[u8]) -> Option<usize> {
        let words = |from: usize, n: usize| -> Option<Vec<[u8; 4]>> {
            let bytes = bytes.get(from..from.checked_add(n.checked_mul(4)?)?)?;
            Some(bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]).collect())
        };
        let n = u32::from_le_bytes(words(0, 1)?[0]) as usize;
        let rows: Vec<usize> = words(4, n)?.into_iter().map(|b| u32::from_le_bytes(b) as usize).collect();
        let values: Vec<f32> =
            words(4 + 4 * n, n.checked_mul(self.width)?)?.into_iter().map(f32::from_le_bytes).collect();
        let end = 4 + 4 * n + 4 * n * self.width;
        let whole = u32::from_le_bytes(words(end, 1)?[0]) == crc32c::crc32c(&bytes[..end]);
        if n == 0 || !whole || rows.iter().any(|&row| row >= self.known.len()) {
            return None;
        }
        self.take(&rows, &values);
        Some(end + 4)
    }

    fn take(&mut self, rows: &[usize], values: &[f32]) {
        for (&row, numbers) in rows.iter().zip(values.chunks_exact(self.width)) {
            self.values[row * self.width..][..self.width].copy_from_slice(numbers);
            self.known[row] = true;
        }
    }

    /// The rows of one number that are known, with it.
    pub(crate) fn known(&self) -> Vec<(usize, f32)> {
        (0..self.known.len()).filter(|&row| self.known[row]).map(|row| (row, self.values[row])).collect()
    }

    /// Whether all of `rows` are known.
    pub(crate) fn have(&self, rows: &[usize]) -> bool {
        rows.iter().all(|&row| self.known[row])
    }

    /// Takes up `rows` with their numbers, `width` each. If the file cannot be written any more, that is told once, and what
    /// follows is kept in memory alone.
    pub(crate) fn put(&mut self, rows: &[usize], values: &[f32]) {
        self.take(rows, values);
        let Some((path, file)) = &mut self.file else { return };
        let mut record = (rows.len() as u32).to_le_bytes().to_vec();
        rows.iter().for_each(|&row| record.extend((row as u32).to_le_bytes()));
        values.iter().for_each(|value| record.extend(value.to_le_bytes()));
        record.extend(crc32c::crc32c(&record).to_le_bytes());
        if let Err(cause) = file.write_all(&record) {
            tracing::warn!("{}; if the program ends now, the pass goes on from here", Error::write(path, cause));
            self.file = None;
        }
    }

    /// All rows end to end; zeros where they are not known.
    pub(crate) fn into_values(self) -> Vec<f32> {
        self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_there_again_but_for_a_record_that_was_cut() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("x.parts");
        let mut parts = Parts::kept_in(&path, 4, 2).expect("new");
        parts.put(&[2, 0], &[1.0, 2.0, 3.0, 4.0]);
        let whole = fs::metadata(&path).expect("file").len();
        parts.put(&[3], &[f32::NAN, 6.0]);
        drop(parts);
        let bytes = fs::read(&path).expect("file");
        for damage in [&bytes[..bytes.len() - 1], &[&bytes[..bytes.len() - 6], &[7; 6]].concat()] {
            fs::write(&path, damage).expect("write");
            let mut parts = Parts::kept_in(&path, 4, 2).expect("readable");
            assert!(parts.have(&[0, 2]) && !parts.have(&[3]) && !parts.have(&[0, 1]));
            assert_eq!(fs::metadata(&path).expect("file").len(), whole, "what is behind it is found again");
            parts.put(&[1, 3], &[7.0, 8.0, 9.0, 10.0]);
            let parts = Parts::kept_in(&path, 4, 2).expect("readable");
            assert!(parts.have(&[0, 1, 2, 3]));
            assert_eq!(parts.into_values(), [3.0, 4.0, 7.0, 8.0, 1.0, 2.0, 9.0, 10.0]);
        }
        // A file of other data, or none at all.
        fs::write(&path, b"not a record of anything, and long enough").expect("write");
        assert!(!Parts::kept_in(&path, 4, 2).expect("readable").have(&[0]));
        assert_eq!(fs::metadata(&path).expect("file").len(), 0);
    }
}
