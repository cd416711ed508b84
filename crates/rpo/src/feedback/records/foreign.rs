//! Files that hold no records, known by their first bytes, and what to do with each.

use std::path::Path;

/// First bytes and what they mean.
const KNOWN: &[(&[u8], &str)] = &[
    (b"\xfd7zXZ\0", "compressed with xz, which is not read; decompress it first: unxz FILE"),
    (b"\x04\x22\x4d\x18", "compressed with lz4, which is not read; decompress it first: lz4 -d FILE"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it and name the files in it"),
    (b"Rar!", "a RAR archive; unpack it and name the files in it"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (or another old Office document); open it and save it as CSV (UTF-8)"),
    (b"SQLite format 3\0", "an SQLite database; export the table: sqlite3 -header -csv FILE 'SELECT * FROM table'"),
    (b"\x89HDF", "an HDF5 file; write its table as Parquet or CSV, in pandas with to_parquet or to_csv"),
    (b"\x93NUMPY", "a NumPy array; write its rows as JSON Lines or CSV"),
    (b"FEA1", "a Feather file of the first version; write it again with a current pyarrow or pandas"),
    (b"Obj\x01", "an Avro file; write it as Parquet or JSON Lines"),
    (b"%PDF", "a PDF document, which holds no rows"),
    (b"\x89PNG", "a picture, which holds no rows"),
    (b"\xff\xd8\xff", "a picture, which holds no rows"),
    (
        b"version https://git-lfs",
        "a Git LFS pointer and not the data themselves; fetch them with `git lfs pull`, or name the hub id of the data set",
    ),
    (b"\x80\x02", PICKLE),
    (b"\x80\x03", PICKLE),
    (b"\x80\x04", PICKLE),
    (b"\x80\x05", PICKLE),
];

const PICKLE: &str = "a Python pickle, which only Python can read; write its rows as JSON Lines: \
                      DataFrame.to_json(FILE, orient=\"records\", lines=True)";
const WORKBOOK: &str = "a spreadsheet workbook; open it and save it as CSV (UTF-8)";

/// What a file is that begins so and holds no records, with what to do; `None` if it may hold some.
pub(super) fn is(head: &[u8], path: &Path) -> Option<String> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return Some(zip(head, &extension).into());
    }
    if let Some((_, what)) = KNOWN.iter().find(|(first, _)| head.starts_with(first)) {
        return Some((*what).into());
    }
    if head.starts_with(b"BZh") && head.get(4..7) == Some(b"1AY") {
        return Some("compressed with bzip2, which is not read; decompress it first: bunzip2 FILE".into());
    }
    if head.starts_with(b"PARE") && !head.get(4).is_some_and(u8::is_ascii_graphic) {
        return Some("an encrypted Parquet file; write it without encryption".into());
    }
    if head.get(257..262) == Some(b"ustar") {
        return Some("a tar archive; unpack it and name the files in it".into());
    }
    if head.get(8..10) == Some(b"{\"") && head[6..8] == [0, 0] {
        return Some("a safetensors file: weights of a model and not data".into());
    }
    markup(head).map(Into::into)
}

/// A zip archive is many things.
fn zip(head: &[u8], extension: &str) -> &'static str {
    let holds = |name: &[u8]| head.windows(name.len()).any(|w| w == name);
    let is_text = matches!(extension, "docx" | "odt") || holds(b"word/");
    match extension {
        "xlsx" | "xlsm" | "xlsb" | "ods" | "numbers" => WORKBOOK,
        _ if holds(b"xl/") || holds(b"opendocument.spreadsheet") => WORKBOOK,
        _ if is_text => "a text document, which holds no rows",
        "pt" | "pth" | "ckpt" => PICKLE,
        _ if holds(b"data.pkl") => PICKLE,
        "npz" => "NumPy arrays; write their rows as JSON Lines or CSV",
        _ => "a zip archive; unpack it and name the files in it",
    }
}

fn markup(head: &[u8]) -> Option<&'static str> {
    let head = head.trim_ascii_start();
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let start = String::from_utf8_lossy(&head[..head.len().min(1024)]).to_ascii_lowercase();
    let is_page = start.starts_with("<!doctype html") || start.starts_with("<html") || start.contains("<html");
    match start.starts_with('<') {
        true if is_page => Some(
            "a web page (HTML), as is saved when a download needs a login or its link leads to a page; open it in a \
             browser to see what it says, and download the file itself",
        ),
        true => Some("XML, which is not read; write its rows as JSON Lines or CSV"),
        false => None,
    }
}
