//! Files as users have them, whatever their format, compression, encoding and line ends: the same rows, or what is wrong and
//! where.

mod columns;
mod exports;
mod files;
mod json;
mod text;

use rpo::feedback::{Feedback, Format, ReadOptions, Source, read_rows};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary directory"))
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("create");
        std::fs::write(&path, bytes).expect("write");
        path.display().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// What a file of this name and content holds.
    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> Result<Vec<Feedback>, String> {
        rows(&[&self.write(name, bytes)], None)
    }
}

fn rows(named: &[&str], format: Option<Format>) -> Result<Vec<Feedback>, String> {
    let source: Source = named.iter().map(ToString::to_string).collect::<Vec<_>>().into();
    let options = ReadOptions { format, ..ReadOptions::default() };
    let rows = read_rows(&source, &options).map_err(|e| e.to_string())?;
    rows.map(|row| row.map_err(|e| e.to_string())).collect()
}

fn row(prompt: &str, response: &str, reward: f64) -> Feedback {
    Feedback { prompt: prompt.into(), response: response.into(), reward }
}

fn two() -> Vec<Feedback> {
    vec![row("p", "a]}", 1.0), row("p", "b, \"c\"", 0.0)]
}

const A: &str = r#"{"prompt":"p","response":"a]}","reward":1}"#;
const B: &str = r#"{"prompt":"p","response":"b, \"c\"","reward":0}"#;
