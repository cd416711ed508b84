//! Writing so that nothing half-written is ever taken for the whole, and nothing that was written is lost with the power: beside
//! the target first, made durable there, then renamed onto it, and the directory that knows the name made durable too.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
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
    let failed = |e| E::from(Error::write(path, e));
    let (partial, mut file) = open_partial(path).map_err(failed)?;
    let written =
        fill(&mut file).and_then(|()| file.sync_all().map_err(failed)).and_then(|()| Ok(rename(&partial, path)?));
    written.inspect_err(|_| {
        let _ = fs::remove_file(&partial);
    })
}

/// An empty file beside `path` that no other program writes: what a program left that died is used again.
fn open_partial(path: &Path) -> std::io::Result<(PathBuf, File)> {
    let mut taken = 0;
    loop {
        let suffix = if taken == 0 { "partial".into() } else { format!("{}.partial", taken + 1) };
        let partial = neighbour(path, &suffix);
        let file = File::options().create(true).truncate(false).write(true).open(&partial)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => taken += 1,
            // Between the two calls another program may have given the file that was opened its own name.
            Ok(()) if !is_at(&file, &partial) => {}
            // Where there are no locks, there is no better way.
            Ok(()) | Err(TryLockError::Error(_)) => {
                file.set_len(0)?;
                return Ok((partial, file));
            }
        }
    }
}

/// Whether `file` is what is found at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().map(identity).ok() == fs::metadata(path).map(identity).ok()
}

#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

/// Fills a directory by way of a temporary neighbour, and only when `fill` succeeds puts it in the place of `path`.
///
/// What stood at `path` is removed last; if the program or the machine dies in between, it is found as `<path>.previous`.
pub(crate) fn replace_dir(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let previous = previous(path);
    replace_dir_moving(path, fill, || {
        remove_dir(&previous)?;
        Ok(Some(previous.clone()))
    })?;
    remove_dir(&previous)
}

/// Fills a directory by way of a temporary neighbour, and only when `fill` succeeds puts it in the place of `path`. What stood
/// there goes where `aside` says, which is asked only then.
pub(crate) fn replace_dir_moving(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<()>,
    aside: impl FnOnce() -> Result<Option<PathBuf>>,
) -> Result<()> {
    let partial = neighbour(path, "partial");
    remove_dir(&partial)?;
    let filled = make_dir(&partial).and_then(|()| fill(&partial)).and_then(|()| sync(&partial));
    if let Err(problem) = filled {
        let _ = fs::remove_dir_all(&partial);
        return Err(problem);
    }
    if path.exists()
        && let Some(aside) = aside()?
    {
        rename(path, &aside)?;
    }
    rename(&partial, path)
}

/// Makes a directory and those above it that are missing, and all of their names durable; it may exist.
pub(crate) fn make_dir(dir: &Path) -> Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
    fs::create_dir_all(dir).map_err(|e| Error::write(dir, e))?;
    missing.into_iter().try_for_each(|made| sync_name(made).map_err(|e| Error::write(dir, e)))
}

/// Removes a directory with all that it holds, if it is there.
pub(crate) fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::write(dir, e)),
        _ => Ok(()),
    }
}

/// Gives what is at `from`, which is durable, the name `to`, durably.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    let renamed = fs::rename(from, to).and_then(|()| sync_name(to));
    renamed
        .and_then(|()| if from.parent() == to.parent() { Ok(()) } else { sync_name(from) })
        .map_err(|e| Error::write(to, e))
}

/// Makes a file, or a directory with all that it holds, durable: after a loss of power it is there as it is now, if its name is.
pub(crate) fn sync(path: &Path) -> Result<()> {
    let io = |e| Error::write(path, e);
    if !path.is_dir() {
        return File::open(path).and_then(|file| file.sync_all()).map_err(io);
    }
    for entry in fs::read_dir(path).map_err(io)? {
        sync(&entry.map_err(io)?.path())?;
    }
    sync_dir(path).map_err(io)
}

/// Makes the name of what is at `path` durable: the entry of the directory that it is in.
fn sync_name(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_dir(parent.unwrap_or(Path::new(".")))
}

/// Makes the names in `dir` durable, on systems and file systems that can.
fn sync_dir(dir: &Path) -> std::io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    match File::open(dir).and_then(|dir| dir.sync_all()) {
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
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
    fn two_writers_of_one_file_do_not_mix() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("scores");
        fs::write(dir.path().join("scores.partial"), "left by a program that died").expect("write");
        let one = |text: &'static str| {
            let path = path.clone();
            move || {
                for _ in 0..50 {
                    fill_file(&path, |file| {
                        for byte in text.as_bytes() {
                            file.write_all(&[*byte]).map_err(|e| Error::write(Path::new("scores"), e))?;
                        }
                        Ok::<_, Error>(())
                    })
                    .expect("written");
                    assert!(["aaaaaaaa", "bbbb"].contains(&fs::read_to_string(&path).expect("read").as_str()));
                }
            }
        };
        let other = std::thread::spawn(one("aaaaaaaa"));
        one("bbbb")();
        other.join().expect("no mixture");
        assert_eq!(fs::read_dir(dir.path()).expect("listing").count(), 1);
    }

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
