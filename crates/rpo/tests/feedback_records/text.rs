//! Texts of any length, compression and encoding; tables with separators.

use std::io::Write;

use rpo::feedback::Feedback;

use super::{A, B, Place, row};

/// More than what is looked at first, with brackets and quotes in texts, so that every boundary of a chunk is met.
fn many() -> (Vec<Feedback>, Vec<String>) {
    let rows: Vec<Feedback> = (0..8000)
        .map(|i| row(&format!("p{i} \\ \"[{{ä\u{1f600}"), &"}] ,\n".repeat(1 + i % 5), f64::from(i as u32)))
        .collect();
    let json = rows
        .iter()
        .map(|r| serde_json::json!({"prompt": r.prompt, "response": r.response, "reward": r.reward}).to_string());
    let json = json.collect();
    (rows, json)
}

#[test]
fn long_files_are_read_in_every_arrangement_compression_and_encoding() {
    let place = Place::new();
    let (expected, json) = many();
    let lines = json.join("\n");
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).expect("compress");
        encoder.finish().expect("compress")
    };
    let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 1).expect("compress");
    let (half, rest) = lines.split_at(lines.len() / 3 + lines[lines.len() / 3..].find('\n').expect("line"));
    let wide = |text: &str, bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    for (name, bytes) in [
        ("x.jsonl", lines.clone().into_bytes()),
        ("list.json", format!("[{}]", json.join(",")).into_bytes()),
        ("key.json", format!("{{\"total\":4000,\"data\":[{}]}}", json.join(",\n")).into_bytes()),
        ("spaced.json", json.join("\n\n ").replacen('{', "{\n", 1).into_bytes()),
        ("x.jsonl.gz", gzip(&lines)),
        ("members.jsonl.gz", [gzip(half), gzip(rest)].concat()),
        ("no-name", gzip(&lines)),
        ("x.jsonl.zst", zstd(&lines)),
        ("frames.zst", [b"\x50\x2a\x4d\x18\x04\0\0\0skip".to_vec(), zstd(half), zstd(rest)].concat()),
        ("key.json.gz", gzip(&format!("{{\"data\":[{}]}}", json.join(",")))),
        ("marked.jsonl", format!("\u{feff}{lines}").into_bytes()),
        ("little.jsonl", wide(&format!("\u{feff}{lines}"), u16::to_le_bytes)),
        ("big.jsonl", wide(&format!("\u{feff}{lines}"), u16::to_be_bytes)),
        ("unmarked.jsonl", wide(&lines, u16::to_le_bytes)),
        ("unmarked.json", wide(&format!("{{\"data\":[{}]}}", json.join(",")), u16::to_be_bytes)),
    ] {
        let read = place.file(name, bytes);
        assert!(read.as_ref() == Ok(&expected), "{name}: {:?}", read.map(|rows| rows.len()));
    }
    let whole = gzip(&lines);
    for (name, bytes, said) in [
        ("cut.jsonl.gz", whole[..whole.len() / 2].to_vec(), "its gzip compression ends in the middle"),
        ("cut.zst", zstd(&lines)[..2000].to_vec(), "its zstd compression ends in the middle"),
        ("x.gz", gzip(""), "nothing in it but gzip"),
        ("x.parquet.gz", gzip("PAR1...."), "Parquet or Arrow file behind gzip compression; decompress it first"),
        ("x.tar.gz", gzip(&format!("{}ustar", "\0".repeat(257))), "behind gzip compression: a tar archive"),
    ] {
        let problem = place.file(name, bytes).expect_err(said);
        assert!(problem.contains(name) && problem.contains(said), "{problem}");
    }
}

#[test]
fn encodings_that_are_not_read_are_named_with_the_line() {
    let place = Place::new();
    let latin = |text: &str| encoding_rs::WINDOWS_1252.encode(text).0.into_owned();
    let csv =
        place.file("x.csv", latin("prompt,response,reward\r\nWo?,Hier,1\r\nWo?,Schöne Straße,4\r\n")).expect_err("CSV");
    assert!(csv.contains("x.csv, line 3: not UTF-8: byte 0xf6") && csv.contains("Schöne Straße"), "{csv}");
    assert!(csv.contains("iconv -f WINDOWS-1252 -t UTF-8"), "{csv}");
    let json = place.file("x.jsonl", latin(&format!("{A}\n{}\n", B.replace('b', "ß")))).expect_err("JSON");
    assert!(json.contains("x.jsonl, line 2: not UTF-8"), "{json}");
    let list = place.file("x.json", latin(&format!("[{A},\n{}]", B.replace('b', "ß")))).expect_err("list");
    assert!(list.contains("element 2 (line 2): not UTF-8"), "{list}");
    let wide = place.file("x.jsonl", b"\xff\xfe\0\0{\0\0\0").expect_err("UTF-32");
    assert!(wide.contains("UTF-32"), "{wide}");
    let broken = place.file("x.jsonl", b"\xff\xfe{\0\x3d\xd8}\0\n\0").expect_err("UTF-16");
    assert!(broken.contains("UTF-16"), "{broken}");
}

#[test]
fn tables_are_read_with_any_separator_and_line_end() {
    let place = Place::new();
    let expected =
        vec![row("Where, exactly; to?", "He said \"here\".\nNothing | else.", 4.0), row("When?", "Now", 2.0)];
    let table = |separator: &str, end: &str| {
        let header = ["prompt", "response", "reward", "note, other"].map(|name| format!("\"{name}\"")).join(separator);
        let first = ["\"Where, exactly; to?\"", "\"He said \"\"here\"\".\nNothing | else.\"", "4", "-"].join(separator);
        let second = ["When?", "Now", "2", "\"\t\""].join(separator);
        [header, first, second].join(end)
    };
    for separator in [",", ";", "\t", "|"] {
        for end in ["\n", "\r\n", "\r", "\n\n"] {
            for (name, text) in [
                ("x.csv", table(separator, end)),
                ("x.tsv", table(separator, end)),
                ("x.csv", format!("\u{feff}{}{end}", table(separator, end))),
                ("x.csv", format!("sep={separator}\r\n{}", table(separator, end))),
            ] {
                assert_eq!(place.file(name, &text), Ok(expected.clone()), "{text:?}");
            }
        }
    }
    let plain = "prompt;response;reward\np;a;1\n";
    assert_eq!(place.file("x.txt", plain), Ok(vec![row("p", "a", 1.0)]), "a header is known without a name");
    let indexed = ",prompt,response,reward\n0,p,a,1\n";
    assert_eq!(place.file("x.csv", indexed), Ok(vec![row("p", "a", 1.0)]), "pandas does not name its index");
}

#[test]
fn tables_that_are_wrong_are_told_with_the_line() {
    let place = Place::new();
    for end in ["\n", "\r\n", "\r"] {
        for (lines, said) in [
            (vec!["p,\"a\nb\",1", "", "p,a,1,2"], "x.csv, line 5: 4 fields where the header has 3"),
            (vec!["p,a,1", "p,a"], "x.csv, line 3: 2 fields where the header has 3"),
            (vec!["p,a,1", "\"p\nq\",\"a,1", "p,b,2"], "x.csv, line 3: a quote that opens on line 4 is never closed"),
            (
                vec!["p,a,1", "p,\"a\nb \\\"c\\\"\",1"],
                "x.csv, line 3: text after the quote that closes a field (line 4)",
            ),
            (vec!["p,a,1", "p,\"a\" b,1"], "x.csv, line 3: text after the quote"),
            (vec!["p,a,1", "p,a,x"], "x.csv, line 3: `reward`"),
        ] {
            let text = format!("prompt,response,reward{end}{}{end}", lines.join(end));
            let problem = place.file("x.csv", &text).expect_err(said);
            assert!(problem.contains(said), "{text:?}: {problem}");
        }
    }
    let twice = place.file("x.csv", "prompt,response,reward, reward\na,b,4,1\n").expect_err("repeated");
    assert!(twice.contains("two columns are called `reward`"), "{twice}");
    let open = place.file("x.csv", "prompt,\"response,reward\na,b,1\n").expect_err("open");
    assert!(open.contains("header, line 1: a quote that opens on line 1"), "{open}");
}

/// Looked through once for each of its bytes it would take minutes.
#[test]
fn a_long_line_is_looked_through_once() {
    let problem = Place::new().file("notes.txt", "word ".repeat(50_000)).expect_err("no table");
    assert!(problem.contains("neither content nor name say the format"), "{problem}");
}
