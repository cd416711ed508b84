//! Writing so that nothing half-written is ever taken for the whole: beside the target first, then renamed onto it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Writes a file by way of a temporary neighbour.
///
/// # Errors
/// If it cannot be written; then what stood at `path` is as it was.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    fill_file(path, |file| file.write_all(bytes).map_err(|e| Error::write(path, e)))
}

/// Lets `fill` write a file by way of a temporary neighbour.
///
/// # Errors
/// Those of `fill`, and if the file cannot be written; then what stood at `path` is as it was.
pub fn fill_file<E: From<Error>>(
    path: &Path,
    fill: impl FnOnce(&mut File) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let partial = neighbour(path, "partial");
    let failed = |e| E::from(Error::write(path, e));
    let written = File::create(&partial).map_err(failed).and_then(|mut file| {
        fill(&mut file)?;
        file.sync_all().and_then(|()| fs::rename(&partial, path)).map_err(failed)
    });
    written.inspect_err(|_| {
        let _ = fs::remove_file(&partial);
    })
}

/// Fills a directory by way of a temporary neighbour, and only when `fill` succeeds puts it in the place of `path`.
///
/// What stood at `path` is removed last; if the program dies in between, it is found as `<path>.previous`.
pub(crate) fn replace_dir(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = neighbour(path, "partial");
    let previous = previous(path);
    let io = |e| Error::write(path, e);
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(io)?;
    }
    let filled = fs::create_dir_all(&partial).map_err(io).and_then(|()| fill(&partial));
    if let Err(problem) = filled {
        let _ = fs::remove_dir_all(&partial);
        return Err(problem);
    }
    if path.exists() {
        if previous.exists() {
            fs::remove_dir_all(&previous).map_err(io)?;
        }
        fs::rename(path, &previous).map_err(io)?;
    }
    fs::rename(&partial, path).map_err(io)?;
    if previous.exists() {
        fs::remove_dir_all(&previous).map_err(io)?;
    }
    Ok(())
}

/// Where [`replace_dir`] keeps the old directory for the moment between two renames.
pub(crate) fn previous(path: &Path) -> PathBuf {
    neighbour(path, "previous")
}

fn neighbour(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_fill_leaves_the_old_directory_and_no_rubbish() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let target = dir.path().join("model");
        replace_dir(&target, |d| write_file(&d.join("a"), b"old")).expect("first");
        let failed = replace_dir(&target, |d| {
            write_file(&d.join("a"), b"new")?;
            Err(Error::Data("disk full".into()))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(target.join("a")).expect("still there"), b"old");
        assert_eq!(fs::read_dir(dir.path()).expect("listing").count(), 1);
        replace_dir(&target, |d| write_file(&d.join("b"), b"new")).expect("replaced");
        assert!(!target.join("a").exists() && target.join("b").exists());
        assert_eq!(fs::read_dir(dir.path()).expect("listing").count(), 1);
    }
}
