//! Rated responses in each format.

use rpo::feedback::{ReadOptions, Source, read_rows};

use super::names;

fn read(path: &std::path::Path) -> Result<usize, String> {
    let source = Source::from(path);
    let rows = read_rows(&source, &ReadOptions::default()).map_err(|e| e.to_string())?;
    rows.map(|row| row.map(drop).map_err(|e| e.to_string())).collect::<Result<Vec<()>, _>>().map(|rows| rows.len())
}

const ROW: &str = "{\"prompt\":\"p\",\"response\":\"r\",\"reward\":1}\n";

#[test]
fn texts_made_to_harm() {
    let deep = |open: &str, close: &str| format!("{}{}\n{ROW}", open.repeat(200_000), close.repeat(200_000));
    let columns = |n: usize| format!("prompt,response,reward{}\n", ",x".repeat(n));
    let wide = format!("prompt,response,reward\n{}\n", ",".repeat(200_000));
    for (name, text, said) in [
        ("lists.jsonl", deep("[", "]"), "element 1"),
        ("objects.jsonl", deep("{\"a\":", "}"), "line 1"),
        ("deep.json", format!("[{}]", deep("[", "]")), "recursion limit"),
        ("open.json", format!("[{ROW}"), "ends inside the list"),
        ("string.json", "[{\"prompt\":\"".into(), "ends inside the value"),
        ("number.jsonl", format!("{{\"prompt\":\"p\",\"response\":\"r\",\"reward\":1e999}}\n{ROW}"), "line 1"),
        (
            "digits.jsonl",
            format!("{{\"prompt\":\"p\",\"response\":\"r\",\"reward\":{}}}\n{ROW}", "9".repeat(400)),
            "line 1",
        ),
        (
            "twice.jsonl",
            format!("{{\"prompt\":\"p\",\"prompt\":\"q\",\"response\":\"r\",\"reward\":1}}\n{ROW}"),
            "two keys `prompt`",
        ),
        ("surrogate.jsonl", format!("{{\"prompt\":\"\\ud800\",\"response\":\"r\",\"reward\":1}}\n{ROW}"), "line 1"),
        ("wide.csv", columns(100_000), "more than 65536 fields"),
        ("row.csv", wide, "line 2"),
        ("same.csv", columns(3), "two columns are called `x`"),
        ("quote.csv", "prompt,response,reward\n\"p,r,1\n".into(), "never closed"),
        // Nothing in it tells where a line ends; looking for its separator at each byte took minutes.
        ("zeros.txt", "\0".repeat(300_000), "neither content nor name say the format"),
        ("zeros.csv", format!("prompt,response,reward\n{}", "\0".repeat(100)), "zeros.csv"),
    ] {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        names(&read(&path).expect_err(name), name, said, name);
    }
}

/// A part of an Arrow stream that says that it becomes a tebibyte.
#[test]
fn arrow_parts_that_lie_about_their_size() {
    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
    let text = "a long text that can be compressed, ".repeat(1000);
    let column = std::sync::Arc::new(StringArray::from(vec![text.as_str(); 4])) as ArrayRef;
    let batch = RecordBatch::try_from_iter([("prompt", column.clone()), ("response", column)]).expect("batch");
    let options =
        || IpcWriteOptions::default().try_with_compression(Some(arrow_ipc::CompressionType::LZ4_FRAME)).expect("lz4");
    let mut stream = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options()).expect("writer");
    stream.write(&batch).expect("written");
    stream.finish().expect("finished");
    let mut file = FileWriter::try_new_with_options(Vec::new(), &batch.schema(), options()).expect("writer");
    file.write(&batch).expect("written");
    file.finish().expect("finished");
    let size = (4 * text.len() as u64).to_le_bytes();
    for (name, mut bytes) in
        [("x.arrow", stream.into_inner().expect("bytes")), ("x.feather", file.into_inner().expect("bytes"))]
    {
        let at = bytes.windows(8).rposition(|part| part == size).expect("a size");
        bytes[at..at + 8].copy_from_slice(&(1u64 << 50).to_le_bytes());
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        names(&read(&path).expect_err(name), name, "are said to become 1125899906842624", name);
    }
}

/// A batch of an Arrow file whose footer says that it has a pebibyte.
#[test]
fn arrow_batches_that_lie_about_their_size() {
    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    use arrow_ipc::writer::FileWriter;
    let column = std::sync::Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef;
    let batch = RecordBatch::try_from_iter([("prompt", column.clone()), ("response", column)]).expect("batch");
    let mut file = FileWriter::try_new(Vec::new(), &batch.schema()).expect("writer");
    file.write(&batch).expect("written");
    file.finish().expect("finished");
    let mut bytes = file.into_inner().expect("bytes");
    let end = bytes.len() - 10;
    let length = u32::from_le_bytes(bytes[end..end + 4].try_into().expect("four bytes")) as usize;
    let footer = arrow_ipc::root_as_footer(&bytes[end - length..end]).expect("a footer");
    let body = footer.recordBatches().expect("batches").get(0).bodyLength().to_le_bytes();
    let at = bytes[..end].windows(8).rposition(|part| part == body).expect("its length");
    bytes[at..at + 8].copy_from_slice(&(1u64 << 50).to_le_bytes());
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("x.feather");
    std::fs::write(&path, bytes).expect("written");
    names(&read(&path).expect_err("a lie"), "x.feather", "a batch is said to end at byte", "a lie");
}

#[cfg(unix)]
#[test]
fn directories_lead_nowhere_else() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().expect("directory");
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("train.jsonl"), ROW).expect("written");
    super::pipe(&at("train-2.jsonl"));
    symlink("/dev/zero", at("train-3.jsonl")).expect("link");
    assert_eq!(read(dir.path()), Ok(1), "neither pipe nor device is waited for");
    names(&read(&at("train-3.jsonl")).expect_err("a device"), "train-3.jsonl", "a device", "device");
    // Ways that lead back are not followed for ever.
    let loops = tempfile::tempdir().expect("directory");
    (0..10).for_each(|i| symlink(".", loops.path().join(format!("d{i}"))).expect("link"));
    names(&read(loops.path()).expect_err("a maze"), "", "more than 1000000 files and directories", "maze");
}
