//! Tokenized data kept on disk under a hash of all that decides them: the files' bytes, how they are read, the tokenizer and
//! the limits. It knows nothing of how rows are read.
//!
//! A file is the counts as JSON, the groups and a BLAKE3 hash of both, every number little-endian and every part preceded by
//! its length.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::{FeedbackSet, Limits, PromptGroup, ReadOptions, ReadSummary, Response};
use crate::error::{Error, Result};
use crate::store::files::fill_file;
use crate::tokenizer::Tokenizer;

/// The program's number and a hash of the sources that read and tokenize: another program may read the same files otherwise.
const READER: &str = concat!(env!("CARGO_PKG_VERSION"), " ", env!("RPO_READER"));

/// So much is read or written at once.
const BUFFER: usize = 1 << 20;

/// A data set and its counts.
pub(crate) type Data = (FeedbackSet, ReadSummary);

/// Where the data of `files` are kept; `None` if they cannot be read twice, as standard input.
pub(super) fn place(
    dir: &Path,
    files: &[PathBuf],
    options: &ReadOptions,
    tokenizer: &Tokenizer,
    limits: Limits,
) -> Result<Option<PathBuf>> {
    if files.iter().any(|file| file.exists() && !file.is_file()) {
        return Ok(None);
    }
    let mut hasher = blake3::Hasher::new();
    let settings = serde_json::to_string(options).map_err(|e| Error::Data(e.to_string()))?;
    hasher.update(format!("{READER} {} {settings} {limits:?}", tokenizer.fingerprint()).as_bytes());
    for path in files {
        let read = |e| Error::read(path, e);
        // The extension helps to tell the format.
        hasher.update(path.extension().unwrap_or_default().as_encoded_bytes());
        let mut file = File::open(path).map_err(read)?;
        hasher.update(&file.metadata().map_err(read)?.len().to_le_bytes());
        let mut buffer = vec![0; 1 << 22];
        loop {
            match file.read(&mut buffer).map_err(read)? {
                0 => break,
                n => _ = hasher.update_rayon(&buffer[..n]),
            }
        }
    }
    Ok(Some(dir.join(format!("{}.tokens", hasher.finalize().to_hex()))))
}

/// What is kept at `path`; nothing if there is no whole file, which is told if there is a damaged one.
pub(crate) fn find(path: &Path) -> Option<Data> {
    let file = File::open(path).ok()?;
    let found = parse(file);
    if found.is_none() {
        tracing::warn!("{}: damaged; the data are read and tokenized again", path.display());
    }
    found
}

/// Keeps data at `path`.
pub(crate) fn keep(path: &Path, set: &FeedbackSet, summary: &ReadSummary) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    fs::create_dir_all(dir).map_err(|e| Error::write(dir, e))?;
    let json = serde_json::to_vec(summary).map_err(|e| Error::Data(e.to_string()))?;
    fill_file(path, |file| {
        let mut out = Hashing { inner: BufWriter::with_capacity(BUFFER, file), hasher: blake3::Hasher::new() };
        write(&mut out, &json, set).and_then(|()| out.end()).map_err(|e| Error::write(path, e))
    })
}

fn write(out: &mut Hashing<impl Write>, json: &[u8], set: &FeedbackSet) -> std::io::Result<()> {
    out.number(json.len())?;
    out.bytes(json)?;
    out.number(set.groups.len())?;
    for group in &set.groups {
        out.number(group.first_row)?;
        out.ids(&group.prompt)?;
        out.number(group.responses.len())?;
        for response in &group.responses {
            out.number(response.row)?;
            out.bytes(&[u8::from(response.truncated)])?;
            out.bytes(&response.reward.to_le_bytes())?;
            out.number(response.copies)?;
            out.ids(&response.ids)?;
        }
    }
    Ok(())
}

/// What is written or read, with a hash of it.
struct Hashing<T> {
    inner: T,
    hasher: blake3::Hasher,
}

impl<W: Write> Hashing<W> {
    fn bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hasher.update(bytes);
        self.inner.write_all(bytes)
    }

    fn number(&mut self, n: usize) -> std::io::Result<()> {
        self.bytes(&(n as u64).to_le_bytes())
    }

    fn ids(&mut self, ids: &[u32]) -> std::io::Result<()> {
        self.number(ids.len())?;
        self.bytes(&ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>())
    }

    fn end(mut self) -> std::io::Result<()> {
        let hash = self.hasher.finalize();
        self.inner.write_all(hash.as_bytes())?;
        self.inner.flush()
    }
}

fn parse(file: File) -> Option<Data> {
    let left = file.metadata().ok()?.len().checked_sub(32)?;
    let inner = BufReader::with_capacity(BUFFER, file);
    let mut rest = Rest { from: Hashing { inner, hasher: blake3::Hasher::new() }, left };
    let length = rest.number()?;
    let summary: ReadSummary = serde_json::from_slice(&rest.take(length)?).ok()?;
    let n = rest.number()?;
    let groups = (0..n).map(|_| rest.group()).collect::<Option<Vec<_>>>()?;
    let mut hash = [0; 32];
    rest.from.inner.read_exact(&mut hash).ok()?;
    (rest.left == 0 && rest.from.hasher.finalize() == hash).then_some((FeedbackSet { groups }, summary))
}

/// What is left to parse, in bytes: a damaged length asks for no more than that.
struct Rest<R> {
    from: Hashing<R>,
    left: u64,
}

impl<R: Read> Rest<R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Option<()> {
        self.left = self.left.checked_sub(bytes.len() as u64)?;
        self.from.inner.read_exact(bytes).ok()?;
        self.from.hasher.update(bytes);
        Some(())
    }

    fn take(&mut self, n: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; (n as u64 <= self.left).then_some(n)?];
        self.fill(&mut bytes)?;
        Some(bytes)
    }

    fn eight(&mut self) -> Option<[u8; 8]> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Some(bytes)
    }

    fn number(&mut self) -> Option<usize> {
        usize::try_from(u64::from_le_bytes(self.eight()?)).ok()
    }

    fn ids(&mut self) -> Option<Vec<u32>> {
        let n = self.number()?;
        let bytes = self.take(n.checked_mul(4)?)?;
        Some(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    fn group(&mut self) -> Option<PromptGroup> {
        let (first_row, prompt, n) = (self.number()?, self.ids()?, self.number()?);
        let responses = (0..n).map(|_| self.response()).collect::<Option<Vec<_>>>()?;
        Some(PromptGroup { prompt, first_row, responses })
    }

    fn response(&mut self) -> Option<Response> {
        let (row, truncated) = (self.number()?, self.take(1)? != [0]);
        let reward = f64::from_le_bytes(self.eight()?);
        Some(Response { row, truncated, reward, copies: self.number()?, ids: self.ids()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found_and_what_is_damaged_is_not() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("cache/x.tokens");
        let response = |row, reward| Response { row, ids: vec![7, 1], truncated: row == 1, reward, copies: row + 1 };
        let group =
            PromptGroup { prompt: vec![5, 6, 1], first_row: 3, responses: vec![response(0, 0.5), response(1, -2.0)] };
        let set = FeedbackSet { groups: vec![group.clone(), PromptGroup { first_row: 9, ..group }] };
        let summary = ReadSummary { rows: 4, notes: vec!["2 rows have no rating".into()], ..ReadSummary::default() };
        assert!(find(&path).is_none());
        keep(&path, &set, &summary).expect("written");
        assert_eq!(find(&path), Some((set, summary)));
        let whole = fs::read(&path).expect("file");
        for damaged in [&whole[..whole.len() - 1], &[&whole[..40], &[255], &whole[41..]].concat(), b"", &[0; 40]] {
            fs::write(&path, damaged).expect("write");
            assert!(find(&path).is_none());
        }
    }
}
