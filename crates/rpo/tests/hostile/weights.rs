//! `model.safetensors`, its index, and an adapter's tensors.

use rpo::burn::tensor::Device;
use rpo::model::checkpoint::Checkpoint;

use super::{Copy, names};

const FILE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

fn load(copy: &Copy) -> String {
    let loaded = Checkpoint::open(copy.0.path()).and_then(|c| c.load(&Device::flex()));
    loaded.map(drop).expect_err("refused").to_string()
}

/// A file with this header and so many bytes of zeros behind it.
fn file(header: &str, zeros: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; zeros]].concat()
}

/// The description of a tensor of 32-bit floats.
fn tensor(name: &str, shape: &str, from: &str, to: &str) -> String {
    format!(r#""{name}":{{"dtype":"F32","shape":[{shape}],"data_offsets":[{from},{to}]}}"#)
}

#[test]
fn headers() {
    let t = tensor;
    let of = |parts: &[String]| format!("{{{}}}", parts.join(","));
    let rank = ["1"; 9].join(",");
    let long = "x".repeat(2000);
    for (what, bytes, said) in [
        ("nothing", vec![], "shorter than its header"),
        ("seven bytes", vec![0; 7], "shorter than its header"),
        ("a length beyond the file", u64::MAX.to_le_bytes().to_vec(), "a header of 18446744073709551615 bytes"),
        ("no JSON", file("model", 0), "unreadable header"),
        ("a list", file("[]", 0), "unreadable header"),
        ("deep", file(&format!("{{\"a\":{}", "[".repeat(100_000)), 0), "unreadable header"),
        ("a gap", file(&of(&[t("a", "1", "0", "4"), t("b", "1", "8", "12")]), 12), "invalid offset"),
        ("an overlap", file(&of(&[t("a", "2", "0", "8"), t("b", "2", "4", "12")]), 12), "invalid offset"),
        ("one that begins late", file(&of(&[t("a", "1", "4", "8")]), 8), "invalid offset"),
        ("one that ends before it begins", file(&of(&[t("a", "1", "8", "4")]), 8), "invalid offset"),
        ("a shape that is smaller", file(&of(&[t("a", "1", "0", "8")]), 8), "unreadable header"),
        ("a product that wraps", file(&of(&[t("a", "4294967296,4294967296,4", "0", "0")]), 0), "unreadable header"),
        ("bytes that wrap", file(&of(&[t("a", "4611686018427387904", "0", "0")]), 0), "unreadable header"),
        ("beyond the end", file(&of(&[t("a", "9", "0", "36")]), 8), "cut short: tensor `a`"),
        (
            "far beyond the end",
            file(&of(&[t("a", "36028797018963968", "0", "144115188075855872")]), 8),
            "cut short: tensor `a`",
        ),
        ("bytes of none", file(&of(&[t("a", "1", "0", "4")]), 9), "its tensors end at byte"),
        ("a name twice", file(&of(&[t("a", "1", "0", "4"), t("a", "1", "4", "8")]), 8), "model.safetensors"),
        ("no name", file(&of(&[t("", "1", "0", "4")]), 4), "which is no name"),
        ("a long name", file(&of(&[t(&long, "1", "0", "4")]), 4), "which is no name"),
        ("a name that rings", file(&of(&[t("a\\u0007", "1", "0", "4")]), 4), "which is no name"),
        ("dimensions without number", file(&of(&[t("a", &rank, "0", "4")]), 4), "9 dimensions"),
        ("an unknown type", file(r#"{"a":{"dtype":"X9","shape":[1],"data_offsets":[0,4]}}"#, 4), "unreadable header"),
        ("a negative size", file(&of(&[t("a", "-1", "0", "4")]), 4), "unreadable header"),
        ("metadata that are none", file(r#"{"__metadata__":[]}"#, 0), "unreadable header"),
        ("no tensor", file("{}", 0), "is missing"),
    ] {
        let copy = Copy::of("relu_tied");
        copy.write(FILE, bytes);
        names(&load(&copy), "", said, what);
    }
    // A header that says that it has a gigabyte, in a file that has it, and holds nothing.
    let copy = Copy::of("relu_tied");
    copy.write(FILE, 1_000_000_000u64.to_le_bytes());
    std::fs::File::options().write(true).open(copy.path(FILE)).and_then(|f| f.set_len(2 << 30)).expect("a hole");
    names(&load(&copy), FILE, "a header of 1000000000 bytes, of which a safetensors file has at most", "large");
}

#[test]
fn numbers_that_are_none() {
    for (bits, value) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let copy = Copy::of("relu_tied");
        let mut bytes = std::fs::read(copy.path(FILE)).expect("file");
        let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight")) as usize;
        let told: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).expect("header");
        let name = "decoder.block.1.layer.0.SelfAttention.q.weight";
        let start = 8 + header + told[name]["data_offsets"][0].as_u64().expect("offset") as usize;
        assert_eq!(told[name]["shape"], serde_json::json!([14, 12]));
        // Row 2, column 3.
        let at = start + 4 * (2 * 12 + 3);
        bytes[at..at + 4].copy_from_slice(&bits.to_le_bytes());
        copy.write(FILE, bytes);
        names(&load(&copy), FILE, &format!("tensor `{name}` holds {value} at [2, 3]"), value);
    }
}

#[test]
fn indices() {
    let long = format!("{}.safetensors", "x".repeat(300));
    let named = |name: &str| serde_json::json!({"weight_map": {"shared.weight": name}}).to_string();
    let many = |n: usize| {
        let all: Vec<String> = (0..n).map(|i| format!("\"{i}\":\"{i}.safetensors\"")).collect();
        format!("{{\"weight_map\":{{{}}}}}", all.join(","))
    };
    for (text, said) in [
        (named("../model.safetensors"), "only files NAME.safetensors beside it"),
        (named("/etc/passwd"), "only files NAME.safetensors beside it"),
        (named("/tmp/x.safetensors"), "only files NAME.safetensors beside it"),
        (named("a/../../x.safetensors"), "only files NAME.safetensors beside it"),
        (named("a\\..\\x.safetensors"), "only files NAME.safetensors beside it"),
        (named("C:x.safetensors"), "only files NAME.safetensors beside it"),
        (named(""), "only files NAME.safetensors beside it"),
        (named("."), "only files NAME.safetensors beside it"),
        (named("config.json"), "only files NAME.safetensors beside it"),
        (named("pytorch_model.bin"), "only files NAME.safetensors beside it"),
        (named(".hidden.safetensors"), "only files NAME.safetensors beside it"),
        (named("x\u{0}.safetensors"), "only files NAME.safetensors beside it"),
        (named(&long), "only files NAME.safetensors beside it"),
        (named("absent.safetensors"), "absent.safetensors"),
        (many(1001), "weight_map names 1001 files"),
        (many(0), "weight_map names no file"),
        ("{}".into(), "not an index of shards"),
        ("{\"weight_map\":[]}".into(), "not an index of shards"),
        ("{\"weight_map\":{\"a\":3}}".into(), "not an index of shards"),
        (String::new(), "not an index of shards"),
    ] {
        let copy = Copy::of("relu_tied");
        std::fs::remove_file(copy.path(FILE)).expect("removed");
        copy.write(INDEX, &text);
        names(&load(&copy), "", said, &text);
    }
}

#[test]
fn a_tensor_in_two_shards_is_none() {
    let copy = Copy::of("relu_tied");
    std::fs::rename(copy.path(FILE), copy.path("a.safetensors")).expect("renamed");
    std::fs::copy(copy.path("a.safetensors"), copy.path("b.safetensors")).expect("copied");
    copy.write(INDEX, r#"{"weight_map":{"x":"a.safetensors","y":"b.safetensors"}}"#);
    names(&load(&copy), "b.safetensors", "is also in a.safetensors", "twice");
}
