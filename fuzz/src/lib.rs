//! What the fuzz targets share: a file that holds an input, and the check of feedback in any format.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Once};

use rpo::chat::Prompt;
use rpo::feedback::{Feedback, ReadOptions, Source, read_all_rows, read_rows};

/// A directory of this process in the system's temporary directory, which should lie in memory (`TMPDIR=/dev/shm`).
static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("rpo-fuzz-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a temporary directory");
    dir
});

/// The directory of [`put`].
pub fn dir() -> &'static Path {
    &DIR
}

/// Writes `bytes` into the file `name` and says where it is.
///
/// # Panics
/// If it cannot be written.
pub fn put(name: &str, bytes: &[u8]) -> PathBuf {
    let path = DIR.join(name);
    File::create(&path).and_then(|mut file| file.write_all(bytes)).expect("a temporary file");
    path
}

/// Lets a panic go up to who catches it. Readers of others panic on some damaged files, which `rpo` catches, but the hook of libFuzzer would
/// end the program before. One that nobody catches ends it still.
pub fn let_panics_be_caught() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| ())));
}

/// Reads `bytes` as a file of feedback called `name`. What was read must be fit for use, and the same once it is written as
/// plain rows and read again.
///
/// # Panics
/// If it is not.
pub fn feedback(name: &str, bytes: &[u8]) {
    let source = Source::from(put(name, bytes).as_path());
    let options = ReadOptions::default();
    if let Ok(rows) = read_all_rows(&source, &options, None) {
        for row in rows.flatten() {
            assert!(row.reward.is_none_or(f64::is_finite), "a reward that is no number: {row:?}");
        }
    }
    let Ok(rows) = read_rows(&source, &options) else { return };
    let rows: Vec<Feedback> = rows.map_while(Result::ok).collect();
    for row in &rows {
        assert!(row.reward.is_finite(), "a reward that is no number: {row:?}");
        assert!(!row.prompt.is_blank() && !row.response.trim().is_empty(), "a row of nothing: {row:?}");
    }
    // A text that looks like messages would be read as such.
    let plain: Vec<Feedback> = rows.into_iter().filter(|row| is_plain(row)).collect();
    if plain.is_empty() {
        return;
    }
    let line = |row: &Feedback| {
        let Feedback { prompt, response, reward } = row;
        serde_json::json!({"prompt": prompt, "response": response, "reward": reward}).to_string() + "\n"
    };
    let again = Source::from(put("again.jsonl", plain.iter().map(line).collect::<String>().as_bytes()).as_path());
    let again: Vec<Feedback> =
        read_rows(&again, &options).expect("plain rows").collect::<rpo::Result<_>>().expect("plain rows");
    assert_eq!(plain, again);
}

fn is_plain(row: &Feedback) -> bool {
    let begins = |text: &str| text.trim_start().starts_with(['[', '{']);
    matches!(&row.prompt, Prompt::Text(text) if !begins(text)) && !begins(&row.response)
}
