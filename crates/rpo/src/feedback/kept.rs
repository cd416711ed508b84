//! Tokenized data kept on disk under a hash of all that decides them: the files' bytes, how they are read, the tokenizer and
//! the limits. It knows nothing of how rows are read.
//!
//! A file is the counts as JSON, the groups and a BLAKE3 hash of both, every number little-endian and every part preceded by
//! its length.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{FeedbackSet, Limits, PromptGroup, ReadOptions, ReadSummary, Response};
use crate::error::{Error, Result};
use crate::files::write_file;
use crate::tokenizer::Tokenizer;

/// Raised whenever the same files would be read or tokenized otherwise than before.
const VERSION: &str = "rpo tokens 1";

/// A data set and its counts.
pub(super) type Data = (FeedbackSet, ReadSummary);

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
    hasher.update(format!("{VERSION} {} {settings} {limits:?}", tokenizer.fingerprint()).as_bytes());
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
pub(super) fn find(path: &Path) -> Option<Data> {
    let bytes = fs::read(path).ok()?;
    let found = parse(&bytes);
    if found.is_none() {
        tracing::warn!("{}: damaged; the data are read and tokenized again", path.display());
    }
    found
}

/// Keeps data at `path`.
pub(super) fn keep(path: &Path, set: &FeedbackSet, summary: &ReadSummary) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    fs::create_dir_all(dir).map_err(|e| Error::write(dir, e))?;
    let mut out = Vec::new();
    let json = serde_json::to_vec(summary).map_err(|e| Error::Data(e.to_string()))?;
    number(&mut out, json.len());
    out.extend(json);
    number(&mut out, set.groups.len());
    for group in &set.groups {
        number(&mut out, group.first_row);
        ids(&mut out, &group.prompt);
        number(&mut out, group.responses.len());
        for response in &group.responses {
            number(&mut out, response.row);
            out.push(u8::from(response.truncated));
            out.extend(response.reward.to_le_bytes());
            number(&mut out, response.copies);
            ids(&mut out, &response.ids);
        }
    }
    out.extend(hash(&out));
    write_file(path, &out)
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update_rayon(bytes).finalize().as_bytes()
}

fn number(out: &mut Vec<u8>, n: usize) {
    out.extend((n as u64).to_le_bytes());
}

fn ids(out: &mut Vec<u8>, ids: &[u32]) {
    number(out, ids.len());
    ids.iter().for_each(|id| out.extend(id.to_le_bytes()));
}

fn parse(bytes: &[u8]) -> Option<Data> {
    let (bytes, end) = bytes.split_last_chunk::<32>()?;
    if hash(bytes) != *end {
        return None;
    }
    let mut rest = Rest(bytes);
    let length = rest.number()?;
    let summary: ReadSummary = serde_json::from_slice(rest.take(length)?).ok()?;
    let n = rest.number()?;
    let groups = (0..n).map(|_| rest.group()).collect::<Option<Vec<_>>>()?;
    rest.0.is_empty().then_some((FeedbackSet { groups }, summary))
}

/// What is left to parse.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn eight(&mut self) -> Option<[u8; 8]> {
        self.take(8)?.try_into().ok()
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
