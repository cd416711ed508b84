//! One program at a time: locks that end with the program that holds them, however it ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};

/// Time between two attempts at a lock that another program holds.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// A lock on a file, held until it is dropped or the program ends: the system gives it back then, so that nothing that a dead
/// program left is ever in the way. On a file system without locks nothing is held, which is told.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// What became of the wish for a lock.
pub(crate) enum Wish {
    /// It is held now.
    Granted(Lock),
    /// Another program holds it, of which this is known.
    Held(String),
}

impl Lock {
    /// Takes the lock on the file at `path`, which is made if need be and stays, unless another program holds it.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub(crate) fn take(path: &Path) -> Result<Wish> {
        let io = |e| Error::write(path, e);
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {
                // For people, and for the message of who comes second; the lock itself is the system's.
                let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", holder()));
            }
            Err(TryLockError::WouldBlock) => {
                let who = fs::read_to_string(path).unwrap_or_default();
                let who = who.trim();
                return Ok(Wish::Held(if who.is_empty() { "another program".into() } else { who.to_string() }));
            }
            Err(TryLockError::Error(e)) => {
                tracing::warn!(
                    "{}: this file system has no locks ({e}); see to it that no other program writes there",
                    path.display()
                );
            }
        }
        Ok(Wish::Granted(Self { _file: file }))
    }

    /// Takes the lock on the file at `path`, and waits while another program holds it, which `told` hears once.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub(crate) fn wait(path: &Path, told: impl FnOnce(&str)) -> Result<Self> {
        let mut told = Some(told);
        loop {
            match Self::take(path)? {
                Wish::Granted(lock) => return Ok(lock),
                Wish::Held(who) => told.take().into_iter().for_each(|told| told(&who)),
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }
}

/// This program, as others are told of it.
fn holder() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = Some(host.trim()).filter(|host| !host.is_empty()).map(|host| format!(" on {host}")).unwrap_or_default();
    format!("process {}{host}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_one_and_free_when_it_is_dropped() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("run.lock");
        // What a program left that died.
        fs::write(&path, "process 1 on elsewhere, and more\n").expect("write");
        let Wish::Granted(lock) = Lock::take(&path).expect("opened") else { panic!("nobody holds it") };
        let Wish::Held(who) = Lock::take(&path).expect("opened") else { panic!("it is held") };
        assert!(who.starts_with(&format!("process {}", std::process::id())) && !who.contains("elsewhere"), "{who}");
        drop(lock);
        assert!(matches!(Lock::take(&path).expect("opened"), Wish::Granted(_)));
    }
}
