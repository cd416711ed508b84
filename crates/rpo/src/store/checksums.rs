//! Checksums of what a directory holds: written when it is saved, compared when it is read, in the format of `sha256sum`, so
//! that `sha256sum -c rpo.sha256` says the same.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::files::write_file;
use crate::error::{Error, Result};

/// The file of checksums.
pub(crate) const NAME: &str = "rpo.sha256";
/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

static UNCHECKED: AtomicBool = AtomicBool::new(false);

/// From now on this program takes the files of models and runs as they are, without comparing them with their checksums.
pub fn do_not_verify() {
    UNCHECKED.store(true, Ordering::Relaxed);
}

/// Leaves the checksums of all files in `dir` and below.
///
/// # Errors
/// If a file cannot be read, or the checksums not written.
pub(crate) fn write(dir: &Path) -> Result<()> {
    let mut names = Vec::new();
    list(dir, "", &mut names)?;
    names.sort();
    let sums: Vec<String> = names.par_iter().map(|name| of(&dir.join(name))).collect::<Result<_>>()?;
    let lines: String = names.iter().zip(sums).map(|(name, sum)| format!("{sum}  {name}\n")).collect();
    write_file(&dir.join(NAME), lines.as_bytes())
}

/// Names of the files in `dir/below` and deeper, as seen from `dir`.
fn list(dir: &Path, below: &str, names: &mut Vec<String>) -> Result<()> {
    let here = dir.join(below);
    let io = |e| Error::read(&here, e);
    for entry in fs::read_dir(&here).map_err(io)? {
        let entry = entry.map_err(io)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        match entry.file_type().map_err(io)?.is_dir() {
            true => list(dir, &name, names)?,
            false => names.push(name),
        }
    }
    Ok(())
}

/// Compares the files of `dir` that `which` names with their checksums, if there are any. A settings file or tokenizer that
/// differs is told and used, since people change these by hand; weights and states of runs are not.
///
/// # Errors
/// Names a file of weights or of a run's state that is missing or is not what was saved.
pub(crate) fn verify(dir: &Path, which: impl Fn(&str) -> bool) -> Result<()> {
    if UNCHECKED.load(Ordering::Relaxed) {
        return Ok(());
    }
    let sums: Vec<(String, String)> = read(dir)?.into_iter().filter(|(name, _)| which(name)).collect();
    sums.par_iter().try_for_each(|(name, saved)| {
        let path = dir.join(name);
        let by_hand = !name.ends_with(".safetensors") && !name.contains('/');
        match of(&path) {
            Ok(found) if found == *saved => Ok(()),
            Ok(_) | Err(_) if by_hand => {
                tracing::warn!(
                    "{}: it was changed since it was saved; if that was on purpose, remove its line from {NAME}",
                    path.display()
                );
                Ok(())
            }
            Ok(found) => Err(Error::file(
                &path,
                format!(
                    "damaged or changed since it was saved: {NAME} says {}…, and it has {}…. Copy it again; if it was changed on \
                     purpose, remove its line from {NAME}, or use --no-verify",
                    &saved[..12],
                    &found[..12]
                ),
            )),
            Err(problem) => Err(problem),
        }
    })
}

/// The checksums of `dir` by the names of its files; none where none were written.
fn read(dir: &Path) -> Result<BTreeMap<String, String>> {
    let path = dir.join(NAME);
    if !path.is_file() {
        return Ok(BTreeMap::new());
    }
    let text = fs::read_to_string(&path).map_err(|e| Error::read(&path, e))?;
    let line = |(i, line): (usize, &str)| {
        let parsed = line.split_once("  ").filter(|(sum, name)| {
            let hex = sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_hexdigit());
            hex && name.split('/').all(|part| !["", ".", ".."].contains(&part) && !part.contains('\\'))
        });
        let problem = || format!("line {}: not a checksum and the name of a file in this directory", i + 1);
        parsed
            .map(|(sum, name)| (name.to_string(), sum.to_ascii_lowercase()))
            .ok_or_else(|| Error::file(&path, problem()))
    };
    text.lines().enumerate().map(line).collect()
}

/// The SHA-256 of a file, in hexadecimal.
fn of(path: &PathBuf) -> Result<String> {
    File::open(path).and_then(|file| sha256(file, &mut |_| ())).map_err(|e| Error::read(path, e))
}

/// The SHA-256 of what `from` gives, in hexadecimal; `read` hears of bytes as they are read.
pub(crate) fn sha256(mut from: impl Read, read: &mut dyn FnMut(u64)) -> std::io::Result<String> {
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; PIECE]);
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => {
                hasher.update(&piece[..n]);
                read(n as u64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_bit_and_a_missing_file_are_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("resume")).expect("create");
        fs::write(at("x.safetensors"), b"abc").expect("write");
        fs::write(at("resume/state"), b"").expect("write");
        fs::write(at("config.json"), b"{}").expect("write");
        write(dir.path()).expect("written");
        // From FIPS 180-2 for "abc", and the well-known one of nothing.
        let said = fs::read_to_string(at(NAME)).expect("read");
        assert!(
            said.starts_with("44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a  config.json\n"),
            "{said}"
        );
        assert!(said.ends_with(
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  resume/state\n\
             ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  x.safetensors\n"
        ));
        verify(dir.path(), |_| true).expect("as it was saved");
        fs::write(at("config.json"), b"{\"by\": \"hand\"}").expect("write");
        verify(dir.path(), |_| true).expect("people change settings");
        fs::write(at("x.safetensors"), b"abb").expect("write");
        let problem = verify(dir.path(), |_| true).expect_err("damaged").to_string();
        assert!(problem.contains("x.safetensors: damaged") && problem.contains("--no-verify"), "{problem}");
        verify(dir.path(), |name| name != "x.safetensors").expect("not asked for");
        fs::write(at("x.safetensors"), b"abc").expect("write");
        fs::remove_file(at("resume/state")).expect("removed");
        assert!(verify(dir.path(), |_| true).expect_err("missing").to_string().contains("state"));
        for line in ["abc  model", &format!("{:064}  ../model", 0), &format!("{:064}  /etc/passwd", 0), "x"] {
            fs::write(at(NAME), format!("{line}\n")).expect("write");
            let problem = verify(dir.path(), |_| true).expect_err("no checksum").to_string();
            assert!(problem.contains(NAME) && problem.contains("line 1"), "{line}: {problem}");
        }
    }
}
