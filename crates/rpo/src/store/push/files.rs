//! Which files of a directory are sent, and what they hold.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::store::checksums::{self, sha256};

/// A file to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// Its name in the repository, with `/` between parts.
    pub name: String,
    /// Bytes.
    pub size: u64,
}

/// The files of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Those to send, by their names.
    pub files: Vec<File>,
    /// Names of those that stay: hidden ones, half-written ones, the state that a run resumes from, checksums of all that, and what was
    /// excluded.
    pub left_out: Vec<String>,
}

/// Lists what of `dir` is sent; `excluded` are patterns of names, as `*.bin` or `logs/*`.
///
/// # Errors
/// If a directory cannot be read, or a pattern is none.
pub fn list(dir: &Path, excluded: &[String]) -> Result<Listing> {
    let pattern = |text: &String| {
        glob::Pattern::new(text).map_err(|e| Error::Setting { field: "exclude", problem: format!("`{text}`: {e}") })
    };
    let excluded = excluded.iter().map(pattern).collect::<Result<Vec<glob::Pattern>>>()?;
    let mut listing = Listing::default();
    walk(dir, "", &excluded, &mut listing, 0)?;
    listing.files.sort_by(|a, b| a.name.cmp(&b.name));
    listing.left_out.sort();
    Ok(listing)
}

fn walk(dir: &Path, below: &str, excluded: &[glob::Pattern], listing: &mut Listing, depth: usize) -> Result<()> {
    // Links may lead in circles.
    if depth > 16 {
        return Err(Error::file(dir, "directories are nested too deeply, or in a circle"));
    }
    for entry in fs::read_dir(dir).map_err(|e| Error::read(dir, e))? {
        let path = entry.map_err(|e| Error::read(dir, e))?.path();
        let Some(last) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(Error::file(&path, "its name is no UTF-8, as names on the hub are; rename or --exclude it"));
        };
        let name = format!("{below}{last}");
        // Follows links, as the hub's local cache is made of them.
        let about = fs::metadata(&path).map_err(|e| Error::read(&path, e))?;
        let half_written = [".partial", ".previous", ".tmp", "~"].iter().any(|end| last.ends_with(end));
        let state = about.is_dir() && ["resume", "__pycache__"].contains(&last) || last == checksums::NAME;
        if last.starts_with('.') || half_written || state || excluded.iter().any(|pattern| pattern.matches(&name)) {
            listing.left_out.push(if about.is_dir() { format!("{name}/") } else { name });
        } else if about.is_dir() {
            walk(&path, &format!("{name}/"), excluded, listing, depth + 1)?;
        } else {
            listing.files.push(File { path, name, size: about.len() });
        }
    }
    Ok(())
}

impl File {
    fn open(&self) -> Result<fs::File> {
        fs::File::open(&self.path).map_err(|e| Error::read(&self.path, e))
    }

    /// Its first bytes, by which the hub tells text from other content.
    pub(super) fn sample(&self) -> Result<Vec<u8>> {
        let mut sample = Vec::new();
        self.open()?.take(512).read_to_end(&mut sample).map_err(|e| Error::read(&self.path, e))?;
        Ok(sample)
    }

    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        fs::read(&self.path).map_err(|e| Error::read(&self.path, e))
    }

    /// Its bytes from `start` on, to be read as far as they are wanted.
    pub(super) fn from(&self, start: u64) -> std::io::Result<fs::File> {
        let mut file = fs::File::open(&self.path)?;
        file.seek(SeekFrom::Start(start))?;
        Ok(file)
    }

    /// The SHA-256 of its content in hexadecimal; `read` hears of bytes as they are read.
    ///
    /// # Errors
    /// If it cannot be read, or has another length than when it was listed.
    pub(super) fn sha256(&self, read: &mut dyn FnMut(u64)) -> Result<String> {
        let mut length = 0;
        let mut counted = |n| {
            length += n;
            read(n);
        };
        let sum = sha256(self.open()?, &mut counted).map_err(|e| Error::read(&self.path, e))?;
        if length != self.size {
            return Err(Error::file(&self.path, "it changes while it is read; wait until it is written"));
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_and_what_stays() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("parent")).expect("made");
            fs::write(path, text).expect("written");
        };
        for name in ["config.json", "adapter/a.bin", ".env", ".git/x", "resume/optimizer", "x.partial", "logs/a.txt"] {
            write(name, "abc");
        }
        let found = list(dir.path(), &["logs/*".into()]).expect("listed");
        let names: Vec<&str> = found.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["adapter/a.bin", "config.json"]);
        assert_eq!(found.left_out, [".env", ".git/", "logs/a.txt", "resume/", "x.partial"]);
        // FIPS 180-2, appendix B.1.
        let hash = found.files[0].sha256(&mut |n| assert_eq!(n, 3)).expect("hash");
        assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        write("config.json", "longer");
        let said = found.files[1].sha256(&mut |_| ()).expect_err("changed").to_string();
        assert!(said.contains("config.json") && said.contains("changes while it is read"), "{said}");
        assert!(list(dir.path(), &["[".into()]).expect_err("no pattern").to_string().contains("exclude"));
    }
}
