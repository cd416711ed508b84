//! The file of a run's answers: whole lines whatever happens, so that a run that was ended at any moment can go on.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::begun::Begun;
use super::row::{self, Key};

/// A file to which answers are added.
pub struct AnswerFile {
    file: File,
    path: PathBuf,
    /// Bytes of whole lines.
    whole: u64,
    /// Answers in it.
    rows: usize,
}

impl AnswerFile {
    /// A new file.
    ///
    /// # Errors
    /// If there is one, or it cannot be made.
    pub fn create(path: &Path, begun: &Begun) -> Result<Self> {
        let file = File::create_new(path).with_context(|| format!("cannot write {}", path.display()))?;
        let created = Self { file, path: path.into(), whole: 0, rows: 0 }.locked()?;
        // A file of which is not known what it was begun with is of no use.
        begun.write(path).inspect_err(|_| _ = std::fs::remove_file(path))?;
        Ok(created)
    }

    /// The file of a run that goes on as it was begun, and the answers in it; a new one if there is none. What was torn at its
    /// end is dropped.
    ///
    /// # Errors
    /// If it was begun otherwise, naming what differs, or holds something else than this run's answers, each once.
    pub fn resume(path: &Path, begun: &Begun) -> Result<(Self, BTreeSet<Key>)> {
        let cannot = || format!("cannot write {}", path.display());
        let file = File::options().read(true).append(true).create(true).open(path).with_context(cannot)?;
        let mut opened = Self { file, path: path.into(), whole: 0, rows: 0 }.locked()?;
        let length = opened.file.metadata().with_context(cannot)?.len();
        match Begun::read(path)? {
            // The program may have ended between making the one and the other.
            _ if length == 0 => {
                begun.write(path)?;
                return Ok((opened, BTreeSet::new()));
            }
            Some(then) => begun.check(&then, path)?,
            None => {
                let (path, beside) = (path.display(), Begun::beside(path));
                bail!("{path}: {} is missing, so it is not known what it was begun with", beside.display());
            }
        }
        let Lines { keys, whole } = lines(&opened.file, path, begun)?;
        if whole < length {
            tracing::info!(
                "{}: its last {} bytes are no whole answer and were dropped",
                path.display(),
                length - whole
            );
            opened.file.set_len(whole).with_context(cannot)?;
            opened.file.seek(SeekFrom::End(0)).with_context(cannot)?;
        }
        let mut done = BTreeSet::new();
        for (n, (key, _)) in keys.into_iter().enumerate() {
            if !done.insert(key) {
                bail!("{}, line {}: this answer is there twice; remove one", path.display(), n + 1);
            }
        }
        (opened.whole, opened.rows) = (whole, done.len());
        Ok((opened, done))
    }

    /// The same, while no other program writes it.
    fn locked(self) -> Result<Self> {
        // Where files cannot be locked, as on some network drives, people have to see to it.
        match matches!(self.file.try_lock(), Err(TryLockError::WouldBlock)) {
            true => bail!("{}: another program is writing it", self.path.display()),
            false => Ok(self),
        }
    }

    /// Adds a line, or nothing.
    pub fn write(&mut self, line: &str) -> Result<()> {
        let Err(problem) = self.file.write_all(line.as_bytes()) else {
            self.whole += line.len() as u64;
            self.rows += 1;
            return Ok(());
        };
        // What was written of it goes; where not even that can be done, it is dropped when the run goes on.
        let _ = self.file.set_len(self.whole);
        let path = self.path.display();
        Err(problem).with_context(|| format!("cannot write {path}; {}", self.how_to_go_on()))
    }

    /// What to do when it could not be finished.
    pub fn how_to_go_on(&self) -> String {
        format!("{} answers are in it, and the same command with --resume goes on", self.rows)
    }

    /// Sees to it that the disk has all.
    pub fn close(self) -> Result<()> {
        self.file.sync_all().with_context(|| format!("cannot write {}; {}", self.path.display(), self.how_to_go_on()))
    }
}

/// The whole lines of a file of answers.
pub struct Lines {
    /// Which answer each holds, and where it begins.
    pub keys: Vec<(Key, u64)>,
    /// Bytes of them.
    pub whole: u64,
}

/// Reads which answers the file at `path` holds, from its beginning; what is no line of an answer may only stand at its end.
///
/// # Errors
/// If anything else is in it, or an answer that does not belong to its run, naming the line.
pub fn lines(file: &File, path: &Path, begun: &Begun) -> Result<Lines> {
    let cannot = || format!("cannot read {}", path.display());
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut found = Lines { keys: Vec::new(), whole: 0 };
    let (mut number, mut torn, mut line) = (0, None, Vec::new());
    loop {
        line.clear();
        if file.read_until(b'\n', &mut line).with_context(cannot)? == 0 {
            return Ok(found);
        }
        number += 1;
        match (row::key(&line), torn) {
            // A line that has its end was written whole, by whomever.
            (None, None) if line.ends_with(b"\n") && line.iter().any(|byte| ![0, b'\n'].contains(byte)) => {
                bail!("{}, line {number}: not an answer of this program", path.display())
            }
            (None, _) => _ = torn.get_or_insert(number),
            (Some(_), Some(torn)) => bail!("{}, line {torn}: not an answer of this program", path.display()),
            (Some((index, answer)), None) => {
                if index >= begun.prompts || !begun.shard.has(index) || answer >= begun.answers {
                    bail!("{}, line {number}: it is no answer to a prompt of this run", path.display());
                }
                found.keys.push(((index, answer), found.whole));
                found.whole += line.len() as u64;
            }
        }
    }
}
