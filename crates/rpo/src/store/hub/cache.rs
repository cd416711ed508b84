//! The hub's local cache in the layout that all of Hugging Face's programs share:
//! `models--OWNER--NAME/{refs/REVISION, snapshots/COMMIT/FILE, blobs/HASH}`, where files of snapshots are links to blobs and a ref
//! holds a commit.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Repo, is_path_below, is_revision};
use crate::store::files::write_file;
use crate::store::within;

/// A repository in the cache.
pub(crate) struct Cache {
    dir: PathBuf,
    revision: String,
}

/// Where Hugging Face's programs keep things: `HF_HOME`, or `.cache/huggingface` in the home directory.
fn home() -> PathBuf {
    let home = std::env::var_os("HF_HOME").map(PathBuf::from);
    home.unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(".cache/huggingface"))
}

/// The token of a login.
pub(super) fn token() -> Option<String> {
    let text = within::given_text(&home().join("token"), within::SETTINGS).ok()?;
    Some(text.trim().to_string()).filter(|token| !token.is_empty())
}

impl Cache {
    /// The place of `repo`, whether anything is there or not.
    pub(crate) fn of(repo: &Repo) -> Self {
        let name = format!("{}--{}", repo.kind.plural(), repo.id.replace('/', "--"));
        Self { dir: home().join("hub").join(name), revision: repo.revision.clone() }
    }

    /// The commit that the revision was when it was last asked for; a revision that is none of a ref is taken for a commit.
    pub(crate) fn commit(&self) -> Option<String> {
        if !is_revision(&self.revision) {
            return None;
        }
        let known = within::given_text(&self.dir.join("refs").join(&self.revision), 1000);
        let commit = known.map_or_else(|_| self.revision.clone(), |commit| commit.trim().to_string());
        Some(commit).filter(|commit| is_revision(commit) && !commit.contains('/'))
    }

    /// Keeps that the revision is now `commit`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn keep_commit(&self, commit: &str) -> Result<(), String> {
        if self.revision == commit {
            return Ok(());
        }
        let path = self.dir.join("refs").join(&self.revision);
        let dir = path.parent().unwrap_or(&self.dir);
        fs::create_dir_all(dir).map_err(|e| format!("cannot write {}: {e}", dir.display()))?;
        write_file(&path, commit.as_bytes()).map_err(|e| e.to_string())
    }

    /// The directory of the files at `commit`.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    /// The file `name` at `commit`, if it is there.
    pub(crate) fn file(&self, commit: &str, name: &str) -> Option<PathBuf> {
        let path = self.snapshot(commit).join(name);
        (is_path_below(name) && within::is_there(&path)).then_some(path)
    }

    /// Where the content of this hash lies.
    pub(super) fn blob(&self, hash: &str) -> PathBuf {
        self.dir.join("blobs").join(hash)
    }

    /// Puts the content of this hash into the snapshot of `commit` as `name`.
    ///
    /// # Errors
    /// If that cannot be done.
    pub(super) fn link(&self, hash: &str, commit: &str, name: &str) -> io::Result<PathBuf> {
        let path = self.snapshot(commit).join(name);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        if fs::symlink_metadata(&path).is_ok() {
            fs::remove_file(&path)?;
        }
        let up = "../".repeat(1 + name.split('/').count());
        link(&Path::new(&up).join("blobs").join(hash), &self.blob(hash), &path)?;
        Ok(path)
    }
}

#[cfg(unix)]
fn link(relative: &Path, _blob: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(relative, path)
}

/// Windows allows links to few: there the content moves.
#[cfg(not(unix))]
fn link(_relative: &Path, blob: &Path, path: &Path) -> io::Result<()> {
    fs::rename(blob, path)
}
