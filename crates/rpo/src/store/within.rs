//! Files of directories that strangers may have made: plain files that lie in the directory in which they are looked for, of a size that
//! such files have. Pipes, devices and links that lead elsewhere are refused before they are opened, for opening one may hang.
//! It knows nothing of what stands in the files.

use std::fs::{self, File, FileType};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Most bytes of a file of settings, such as `config.json`. The largest of real models, a `tokenizer_config.json` that describes
/// thousands of tokens, has about one million.
pub(crate) const SETTINGS: u64 = 16 << 20;
/// Most bytes of a vocabulary, such as `tokenizer.json`, or of an index of shards; real ones have up to some 40 million.
pub(crate) const VOCABULARY: u64 = 256 << 20;

/// What a named pipe is called.
pub(crate) const PIPE: &str = "a named pipe (FIFO)";

/// Opens the file at `path`, which must lie in the directory that is named before its last part.
///
/// # Errors
/// If there is none, or it is no plain file or a link out of its directory.
pub(crate) fn open(path: &Path) -> Result<File> {
    let real = inside(path)?;
    plain(path, fs::metadata(&real).map_err(|e| Error::read(path, e))?.file_type())?;
    let file = without_waiting(&real).map_err(|e| Error::read(path, e))?;
    // It may be another by now.
    plain(path, file.metadata().map_err(|e| Error::read(path, e))?.file_type())?;
    Ok(file)
}

/// The bytes of the file at `path`, at most `most`.
///
/// # Errors
/// Those of [`open`], and if it is larger or cannot be read.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    bounded(open(path)?, path, most)
}

/// The bytes of the file at `path`, if there is one.
///
/// # Errors
/// Those of [`read`], but that there is none.
pub(crate) fn read_if_there(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    match is_there(path) {
        true => read(path, most).map(Some),
        false => Ok(None),
    }
}

/// The text of the file at `path`, at most `most` bytes.
///
/// # Errors
/// Those of [`read`], and if it is not UTF-8.
pub(crate) fn text(path: &Path, most: u64) -> Result<String> {
    utf8(path, read(path, most)?)
}

/// The bytes of a file that the user named for itself, which may be a pipe or a link to any place; at most `most`.
///
/// # Errors
/// If it is larger or cannot be read.
pub(crate) fn given(path: &Path, most: u64) -> Result<Vec<u8>> {
    bounded(File::open(path).map_err(|e| Error::read(path, e))?, path, most)
}

/// The text of a file that the user named for itself.
///
/// # Errors
/// Those of [`given`], and if it is not UTF-8.
pub(crate) fn given_text(path: &Path, most: u64) -> Result<String> {
    utf8(path, given(path, most)?)
}

/// Checks the file at `path` before it is handed to a reader that opens it by itself.
///
/// # Errors
/// Those of [`open`], and if it is larger than `most`.
pub(crate) fn check(path: &Path, most: u64) -> Result<()> {
    match open(path)?.metadata().map_err(|e| Error::read(path, e))?.len() > most {
        true => Err(too_large(path, most)),
        false => Ok(()),
    }
}

/// Whether anything is at `path` but a link that leads nowhere: what it is, opening it tells.
pub(crate) fn is_there(path: &Path) -> bool {
    fs::metadata(path).is_ok()
}

/// Whether `name`, which a file names, is that of a file beside it: one part, nothing hidden, of a length that file systems take.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let legal = |c: char| !c.is_control() && !r#"/\:*?"<>|"#.contains(c);
    (1..=200).contains(&name.len()) && !name.starts_with('.') && name.chars().all(legal)
}

/// Where the file at `path` really is, which must be in its directory.
fn inside(path: &Path) -> Result<PathBuf> {
    let unreadable = |e| Error::read(path, e);
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = fs::canonicalize(dir).map_err(unreadable)?;
    let real = fs::canonicalize(path).map_err(unreadable)?;
    if real.starts_with(&dir) || blobs_of(&dir).is_some_and(|blobs| real.parent() == Some(&blobs)) {
        return Ok(real);
    }
    let problem = format!(
        "a link out of its directory, to {}, which is not followed: put the file itself in its place",
        real.display()
    );
    Err(Error::file(path, problem))
}

/// Where the hub's cache has what the links in `dir` lead to, if it is a snapshot of that cache (`snapshots/REVISION`) or below one.
fn blobs_of(dir: &Path) -> Option<PathBuf> {
    let snapshots = dir.ancestors().skip(1).find(|above| above.file_name().is_some_and(|name| name == "snapshots"))?;
    Some(snapshots.parent()?.join("blobs"))
}

/// Refuses what is no plain file.
fn plain(path: &Path, kind: FileType) -> Result<()> {
    match kind.is_file() {
        true => Ok(()),
        false => Err(Error::file(path, format!("{}, where a plain file is needed", named(kind)))),
    }
}

/// What something is that is no plain file.
pub(crate) fn named(kind: FileType) -> &'static str {
    if kind.is_dir() {
        return "a directory";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return PIPE;
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    "no file"
}

/// Opens a file such that a pipe that has taken its place does not make one wait.
fn without_waiting(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(path)
}

fn bounded(file: File, path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(|e| Error::read(path, e))?;
    match bytes.len() as u64 > most {
        true => Err(too_large(path, most)),
        false => Ok(bytes),
    }
}

fn too_large(path: &Path, most: u64) -> Error {
    Error::file(path, format!("larger than {} MiB, which no such file is", most >> 20))
}

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::file(path, format!("not UTF-8: byte {at} (from 0) begins no character"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_beside_are_plain() {
        let good = ["model-00001-of-00002.safetensors", "a", "ein Name.txt", "tf_model.h5"];
        good.into_iter().for_each(|name| assert!(is_plain_name(name), "{name}"));
        let long = "x".repeat(201);
        let bad =
            ["", ".", "..", "../a", "a/b", "/etc/passwd", "a\\b", "C:a", "a\0b", "a\nb", ".hidden", "CON?", &long];
        bad.into_iter().for_each(|name| assert!(!is_plain_name(name), "{name}"));
    }

    #[cfg(unix)]
    mod unix {
        use std::os::unix::fs::symlink;
        use std::os::unix::net::UnixListener;
        use std::process::Command;

        use super::*;

        fn complaint(path: &Path) -> String {
            read(path, 100).expect_err("refused").to_string()
        }

        #[test]
        fn only_plain_files_of_the_directory_are_opened() {
            let dir = tempfile::tempdir().expect("directory");
            let at = |name: &str| dir.path().join(name);
            fs::create_dir_all(at("model/below")).expect("directory");
            fs::write(at("model/file"), "inside").expect("file");
            fs::write(at("secret"), "outside").expect("file");
            fs::write(at("model/large"), vec![b'x'; 101]).expect("file");
            fs::write(at("model/latin"), b"caf\xe9").expect("file");
            assert!(Command::new("mkfifo").arg(at("model/pipe")).status().expect("mkfifo").success());
            let _socket = UnixListener::bind(at("model/socket")).expect("socket");
            for (link, target) in [
                ("beside", "file"),
                ("up", "../secret"),
                ("far", "/etc/passwd"),
                ("zero", "/dev/zero"),
                ("nowhere", "no/such/file"),
                ("itself", "itself"),
            ] {
                symlink(target, at("model").join(link)).expect("link");
            }
            symlink(at("model"), at("model-by-link")).expect("link");

            for good in ["model/file", "model/beside", "model-by-link/file"] {
                assert_eq!(text(&at(good), 100).expect(good), "inside");
            }
            for (name, said) in [
                ("below", "a directory"),
                ("pipe", "a named pipe"),
                ("socket", "a socket"),
                ("up", "a link out of its directory"),
                ("far", "a link out of its directory"),
                ("zero", "a link out of its directory"),
                ("itself", "cannot read"),
                ("absent", "cannot read"),
                ("large", "larger than"),
            ] {
                let problem = complaint(&at("model").join(name));
                assert!(problem.contains(said) && problem.contains(name), "{problem}");
            }
            assert!(complaint(Path::new("/dev/zero")).contains("a device"));
            assert!(text(&at("model/latin"), 100).expect_err("Latin").to_string().contains("byte 3"));
            for absent in ["absent", "nowhere"] {
                assert!(read_if_there(&at("model").join(absent), 100).expect(absent).is_none());
            }
        }

        #[test]
        fn a_snapshot_of_the_hubs_cache_is_read_by_its_links() {
            let dir = tempfile::tempdir().expect("directory");
            let at = |name: &str| dir.path().join(name);
            fs::create_dir_all(at("repo/blobs/deep")).expect("directory");
            fs::create_dir_all(at("repo/snapshots/0123/onnx")).expect("directory");
            fs::write(at("repo/blobs/hash"), "blob").expect("file");
            fs::write(at("repo/blobs/deep/hash"), "blob").expect("file");
            fs::write(at("repo/other"), "other").expect("file");
            for (link, target) in [
                ("config.json", "../../blobs/hash"),
                ("onnx/model", "../../../blobs/hash"),
                ("deep", "../../blobs/deep/hash"),
                ("other", "../../other"),
            ] {
                symlink(target, at("repo/snapshots/0123").join(link)).expect("link");
            }
            let snapshot = at("repo/snapshots/0123");
            for good in ["config.json", "onnx/model"] {
                assert_eq!(text(&snapshot.join(good), 100).expect(good), "blob");
            }
            for bad in ["deep", "other"] {
                assert!(complaint(&snapshot.join(bad)).contains("a link out of its directory"), "{bad}");
            }
            // A directory that only has the name is none: what it is in must have it.
            symlink("../blobs/hash", at("repo/snapshots/file")).expect("link");
            assert!(complaint(&at("repo/snapshots/file")).contains("a link out of its directory"));
        }
    }
}
