//! What the hub calls a content by: the SHA-256 of a large file, which Git LFS keeps, and Git's own hash of a small one.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;

use crate::store::checksums::sha256;

/// The hash that an `etag` names, if it names one.
pub(super) fn named(etag: &str) -> Option<String> {
    let hash = etag.trim().trim_start_matches("W/").trim_matches('"');
    is_hash(hash).then(|| hash.to_string())
}

/// Whether a text is a hash in small hexadecimal digits, of 40 (SHA-1) or 64 (SHA-256) of them.
pub(super) fn is_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether the content at `path` has this hash.
///
/// # Errors
/// If it cannot be read.
pub(super) fn matches(path: &Path, hash: &str) -> io::Result<bool> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let found = match hash.len() {
        40 => {
            // As Git hashes a file's content (a blob).
            let mut hasher = <Sha1 as sha1::Digest>::new();
            sha1::Digest::update(&mut hasher, format!("blob {length}\0"));
            each_part(file, |part| sha1::Digest::update(&mut hasher, part))?;
            hexadecimal(&sha1::Digest::finalize(hasher))
        }
        _ => sha256(file, &mut |_| ())?,
    };
    Ok(found == hash)
}

fn each_part(mut reader: impl Read, mut hear: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            n => hear(&buffer[..n]),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_by_their_hashes() {
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), "hello\n").expect("write");
        // `echo hello | git hash-object --stdin` and `echo hello | sha256sum`.
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        for hash in [git, sha256] {
            assert!(matches(file.path(), hash).expect("readable"), "{hash}");
            assert!(!matches(file.path(), &hash.replace('5', "6")).expect("readable"), "{hash}");
        }
        assert_eq!(named(&format!("W/\"{git}\"")), Some(git.into()));
        assert_eq!(named(&format!("\"{sha256}\"")), Some(sha256.into()));
        for none in ["", "\"../../x\"", "abc", &git.to_uppercase(), &"g".repeat(40)] {
            assert_eq!(named(none), None, "{none}");
        }
    }
}
