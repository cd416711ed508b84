//! Opening what a user names as data: files, and pipes that somebody writes into. What has no end or gives nothing is refused instead of
//! being waited for.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::source::STANDARD_INPUT;
use crate::error::{Error, Result};
use crate::store::within;

/// So long a named pipe is waited for until somebody opens its other end.
const WRITER: Duration = Duration::from_secs(30);

/// Opens the file at `path`: a plain one, one that is open in this process (standard input, `<(...)` of a shell), or a named pipe.
///
/// # Errors
/// If it cannot be opened, nobody writes into the pipe, or it is a device, a socket or a directory.
pub(super) fn open(path: &Path) -> Result<File> {
    open_within(path, WRITER)
}

fn open_within(path: &Path, wait: Duration) -> Result<File> {
    let unreadable = |cause| Error::read(path, cause);
    let kind = fs::metadata(path).map_err(unreadable)?.file_type();
    match within::named(kind) {
        _ if kind.is_file() || is_open_here(path) || path == Path::new("/dev/null") => {
            File::open(path).map_err(unreadable)
        }
        within::PIPE => opened_pipe(path, wait),
        other => {
            let what = format!("{other}, from which no data are read; name a file, a pipe, or - for standard input");
            Err(Error::file(path, what))
        }
    }
}

/// Whether `path` stands for something that is open already, which whoever started the program chose.
fn is_open_here(path: &Path) -> bool {
    path == Path::new(STANDARD_INPUT) || ["/dev/fd", "/proc/self/fd"].iter().any(|dir| path.starts_with(dir))
}

/// Opening a pipe lasts until its other end is opened too, so it is done in a thread, which is left alone if nobody does.
fn opened_pipe(path: &Path, wait: Duration) -> Result<File> {
    let (sender, receiver) = mpsc::channel();
    let own = path.to_path_buf();
    std::thread::spawn(move || sender.send(File::open(own)));
    match receiver.recv_timeout(wait) {
        Ok(opened) => opened.map_err(|cause| Error::read(path, cause)),
        Err(_) => {
            let what = format!("a named pipe (FIFO) into which nobody has written for {} s", wait.as_secs_f64());
            Err(Error::file(path, what))
        }
    }
}

/// The whole text of a file or pipe, at most `most` bytes.
///
/// # Errors
/// Those of [`open`], and if it is larger, cannot be read or is not UTF-8.
pub(super) fn text(path: &Path, most: u64) -> Result<String> {
    let unreadable = |cause| Error::read(path, cause);
    let source: Box<dyn Read> = match path == Path::new(STANDARD_INPUT) {
        true => Box::new(io::stdin()),
        false => Box::new(open(path)?),
    };
    let mut text = String::new();
    source.take(most + 1).read_to_string(&mut text).map_err(unreadable)?;
    match text.len() as u64 > most {
        true => {
            Err(Error::file(path, format!("longer than {} MiB, which is read at once; write rows of JSON", most >> 20)))
        }
        false => Ok(text),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use super::*;

    #[test]
    fn pipes_are_read_if_somebody_writes_and_devices_are_not() {
        let dir = tempfile::tempdir().expect("directory");
        let pipe = dir.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
        let problem = open_within(&pipe, Duration::from_millis(50)).expect_err("nobody writes").to_string();
        assert!(problem.contains("nobody has written for 0.05 s"), "{problem}");
        let fed = dir.path().join("fed");
        assert!(Command::new("mkfifo").arg(&fed).status().expect("mkfifo").success());
        let other_end = fed.clone();
        let writer = std::thread::spawn(move || File::options().write(true).open(other_end)?.write_all(b"rows"));
        assert_eq!(text(&fed, 100).expect("somebody writes"), "rows");
        writer.join().expect("thread").expect("written");
        let device = open(Path::new("/dev/zero")).expect_err("a device").to_string();
        assert!(device.contains("a device, from which no data are read"), "{device}");
        assert!(open(dir.path()).expect_err("a directory").to_string().contains("a directory"));
        assert!(open(Path::new("/dev/null")).is_ok() && open(Path::new("/dev/fd/0")).is_ok());
        std::fs::write(dir.path().join("long"), "12345").expect("write");
        assert!(text(&dir.path().join("long"), 4).expect_err("long").to_string().contains("longer than"));
    }
}
