//! Checksums of what a directory holds: written when it is saved, compared when it is read, in the format of `sha256sum`, so
//! that `sha256sum -c rpo.sha256` says the same. A comment before each has the file's size, by which a file that another program wrote
//! in its place is told from a damaged one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::files::write_file;
use super::shards::INDEX;
use super::tensors::TensorFile;
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

/// What a file was when it was saved.
struct Saved {
    /// Its SHA-256, in hexadecimal.
    sum: String,
    /// Its bytes, which earlier versions did not note.
    size: Option<u64>,
}

/// Leaves the checksums of all files in `dir` and below.
///
/// # Errors
/// If a file cannot be read, or the checksums not written.
pub(crate) fn write(dir: &Path) -> Result<()> {
    let mut names = Vec::new();
    list(dir, "", &mut names)?;
    names.sort();
    let sums: Vec<Saved> = names.par_iter().map(|name| of(&dir.join(name))).collect::<Result<_>>()?;
    let line = |(name, Saved { sum, size }): (&String, Saved)| {
        let size = size.map_or_else(String::new, |size| format!("# {size}  {name}\n"));
        format!("{size}{sum}  {name}\n")
    };
    let lines: String = names.iter().zip(sums).map(line).collect();
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

/// What a directory is read as, which decides what may have become of its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// A model. Other programs may save another in its place.
    Model,
    /// The state of a run, whose parts belong together.
    State,
}

/// Compares the files of `dir` that `which` names with their checksums, if there are any. A settings file or tokenizer that
/// differs is told and used, since people change these by hand. So are whole weights of a model that have another size, which another
/// program wrote, and parts of weights if their index differs too.
///
/// # Errors
/// Names a file of weights or of a run's state that is missing or damaged.
pub(crate) fn verify(dir: &Path, holds: Holds, which: impl Fn(&str) -> bool) -> Result<()> {
    if UNCHECKED.load(Ordering::Relaxed) {
        return Ok(());
    }
    let sums = read(dir)?;
    let index = sums.get(INDEX);
    let new_index = dir.join(INDEX).exists()
        && index.is_none_or(|saved| of(&dir.join(INDEX)).is_ok_and(|found| found.sum != saved.sum));
    let sums: Vec<(&String, &Saved)> = sums.iter().filter(|(name, _)| which(name)).collect();
    sums.par_iter().try_for_each(|&(name, saved)| {
        let path = dir.join(name);
        let found = of(&path);
        if found.as_ref().is_ok_and(|found| found.sum == saved.sum) {
            return Ok(());
        }
        let on_purpose = match &found {
            _ if name.contains('/') => false,
            _ if !name.ends_with(".safetensors") => true,
            _ if holds == Holds::State => false,
            // Damage leaves a file's size, or cuts it off. Parts of one model are not mixed with those of another.
            Ok(found) => {
                let another = saved.size.is_some_and(|size| found.size != Some(size));
                another && (index.is_none() || new_index) && TensorFile::open(&path).is_ok()
            }
            // It was saved again, in parts or in other ones.
            Err(_) => !path.exists() && new_index,
        };
        match found {
            _ if on_purpose => {
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
                    &saved.sum[..12],
                    &found.sum[..12]
                ),
            )),
            Err(problem) => Err(problem),
        }
    })
}

/// What the files of `dir` were, by their names; nothing where nothing was written.
fn read(dir: &Path) -> Result<BTreeMap<String, Saved>> {
    let path = dir.join(NAME);
    if !path.is_file() {
        return Ok(BTreeMap::new());
    }
    let text = super::text_of(&path)?;
    let sizes: BTreeMap<&str, u64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# ")?.split_once("  "))
        .filter_map(|(size, name)| Some((name, size.parse().ok()?)))
        .collect();
    let line = |(i, line): (usize, &str)| {
        let parsed = line.split_once("  ").filter(|(sum, name)| {
            let hex = sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_hexdigit());
            hex && name.split('/').all(|part| !["", ".", ".."].contains(&part) && !part.contains('\\'))
        });
        let problem = || format!("line {}: not a checksum and the name of a file in this directory", i + 1);
        let (sum, name) = parsed.ok_or_else(|| Error::file(&path, problem()))?;
        Ok((name.to_string(), Saved { sum: sum.to_ascii_lowercase(), size: sizes.get(name).copied() }))
    };
    text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')).map(line).collect()
}

/// What a file is now.
fn of(path: &PathBuf) -> Result<Saved> {
    let mut size = 0;
    let sum = File::open(path).and_then(|file| sha256(file, &mut |bytes| size += bytes));
    Ok(Saved { sum: sum.map_err(|e| Error::read(path, e))?, size: Some(size) })
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
    use crate::store::tensors::write_values;

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
            said.starts_with(
                "# 2  config.json\n44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a  config.json\n"
            ),
            "{said}"
        );
        assert!(said.ends_with(
            "# 0  resume/state\ne3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  resume/state\n\
             # 3  x.safetensors\nba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  x.safetensors\n"
        ));
        verify(dir.path(), Holds::Model, |_| true).expect("as it was saved");
        fs::write(at("config.json"), b"{\"by\": \"hand\"}").expect("write");
        verify(dir.path(), Holds::Model, |_| true).expect("people change settings");
        fs::write(at("x.safetensors"), b"abb").expect("write");
        let problem = verify(dir.path(), Holds::Model, |_| true).expect_err("damaged").to_string();
        assert!(problem.contains("x.safetensors: damaged") && problem.contains("--no-verify"), "{problem}");
        verify(dir.path(), Holds::Model, |name| name != "x.safetensors").expect("not asked for");
        fs::write(at("x.safetensors"), b"abc").expect("write");
        fs::remove_file(at("resume/state")).expect("removed");
        assert!(verify(dir.path(), Holds::Model, |_| true).expect_err("missing").to_string().contains("state"));
        for line in ["abc  model", &format!("{:064}  ../model", 0), &format!("{:064}  /etc/passwd", 0), "x"] {
            fs::write(at(NAME), format!("{line}\n")).expect("write");
            let problem = verify(dir.path(), Holds::Model, |_| true).expect_err("no checksum").to_string();
            assert!(problem.contains(NAME) && problem.contains("line 1"), "{line}: {problem}");
        }
    }
    /// What `transformers` does that loads a model, changes it and saves it in the same place.
    #[test]
    fn weights_that_another_program_wrote_whole_are_no_damage() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let weights = dir.path().join("model.safetensors");
        write_values("a", &[1.0, 2.0], &weights).expect("written");
        write(dir.path()).expect("written");
        write_values("a", &[1.0, 2.0, 3.0], &weights).expect("written");
        verify(dir.path(), Holds::Model, |_| true).expect("another, and whole");
        assert!(verify(dir.path(), Holds::State, |_| true).is_err(), "a run's state is not made of two");
        let bytes = fs::read(&weights).expect("read");
        fs::write(&weights, &bytes[..bytes.len() - 1]).expect("write");
        assert!(
            verify(dir.path(), Holds::Model, |_| true)
                .expect_err("cut off")
                .to_string()
                .contains("model.safetensors: damaged")
        );
        fs::remove_file(&weights).expect("removed");
        assert!(
            verify(dir.path(), Holds::Model, |_| true).expect_err("missing").to_string().contains("model.safetensors")
        );
        fs::write(dir.path().join(INDEX), "{}").expect("write");
        verify(dir.path(), Holds::Model, |_| true).expect("saved again in parts");
    }
    #[test]
    fn parts_of_one_model_are_not_mixed_with_those_of_another() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| dir.path().join(name);
        write_values("a", &[1.0], &at("one.safetensors")).expect("written");
        write_values("b", &[1.0], &at("two.safetensors")).expect("written");
        fs::write(at(INDEX), "{}").expect("write");
        write(dir.path()).expect("written");
        write_values("b", &[1.0, 2.0], &at("two.safetensors")).expect("written");
        assert!(verify(dir.path(), Holds::Model, |_| true).is_err(), "one of two is new");
        fs::write(at(INDEX), "{\"metadata\": {}}").expect("write");
        verify(dir.path(), Holds::Model, |_| true).expect("another model");
        fs::remove_file(at("two.safetensors")).expect("removed");
        verify(dir.path(), Holds::Model, |_| true).expect("in other parts; the index says in which");
        fs::write(at(INDEX), "{}").expect("write");
        assert!(verify(dir.path(), Holds::Model, |_| true).is_err(), "a part is missing");
    }
}
