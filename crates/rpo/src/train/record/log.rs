//! Files that grow while a run goes on, and that must not end it: what cannot be written is left out, and told.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file to which whole records are added.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Records that could not be written since the last one that could.
    lost: usize,
}

impl Log {
    /// Opens the file at `path` to add to it, or makes it.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(|e| Error::write(path, e))?;
        Ok(Self { path: path.into(), file, lost: 0 })
    }

    /// Makes what was added durable, so that a state which is saved next does not outlive the record of how it came to be.
    pub(super) fn sync(&self) {
        if let Err(cause) = self.file.sync_all() {
            tracing::warn!("{}", Error::write(&self.path, cause));
        }
    }

    /// Adds a record. One that cannot be written whole leaves nothing behind: training goes on, since it can do without.
    pub(super) fn add(&mut self, record: &[u8]) {
        let end = self.file.seek(SeekFrom::End(0));
        match self.file.write_all(record) {
            Ok(()) if self.lost > 0 => {
                tracing::warn!("{}: it can be written again; {} records are missing", self.path.display(), self.lost);
                self.lost = 0;
            }
            Ok(()) => {}
            Err(cause) => {
                // Not half a record, behind which nothing could be read.
                let _ = end.and_then(|end| self.file.set_len(end));
                if self.lost == 0 {
                    let problem = Error::write(&self.path, cause);
                    tracing::warn!("{problem}; training goes on, and its record has a gap until there is room again");
                }
                self.lost += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_ends_nothing() {
        let mut log = Log::open(Path::new("/dev/full")).expect("opened");
        log.add(b"one\n");
        log.add(b"two\n");
        assert_eq!(log.lost, 2);
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut log = Log { lost: 2, ..Log::open(&dir.path().join("log")).expect("opened") };
        log.add(b"three\n");
        assert_eq!((log.lost, std::fs::read(&log.path).expect("read")), (0, b"three\n".to_vec()));
    }
}
