//! Files that were made to harm: whatever a stranger may have written, reading it ends in words that name the file and what is wrong,
//! without a panic, without waiting, and without memory that the file itself does not fill. One table for each parser.

mod data;
mod models;
mod tokenizers;
mod weights;

use std::path::{Path, PathBuf};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

/// A golden model's directory, to be damaged.
struct Copy(tempfile::TempDir);

impl Copy {
    fn of(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        for entry in std::fs::read_dir(goldens().join(name)).expect("goldens") {
            let entry = entry.expect("entry");
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("copied");
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("text")
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).expect("written");
    }

    /// Puts `value` into the place of a field of a file of settings.
    fn set(&self, file: &str, field: &str, value: &str) {
        let mut settings: serde_json::Value = serde_json::from_str(&self.text(file)).expect("JSON");
        settings[field] = "\u{1}".into();
        // As text, so that numbers stand there that JSON's own type does not have.
        self.write(file, settings.to_string().replace("\"\\u0001\"", value));
    }
}

/// Checks that a complaint names what it must.
fn names(problem: &str, file: &str, said: &str, case: &str) {
    assert!(problem.contains(file) && problem.contains(said), "{case}: {problem}");
}

/// Makes a named pipe.
#[cfg(unix)]
fn pipe(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}
