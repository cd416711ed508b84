//! Models and data from a stand-in of the hub on this machine, which tells the truth or lies.

#![cfg(unix)]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex, MutexGuard};

use common::{Place, names};
use sha1::Sha1;
use sha2::Sha256;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the stand-in has and how it lies.
#[derive(Default)]
struct State {
    /// The commit of `main`.
    commit: String,
    /// Files by commit and name.
    files: BTreeMap<(String, String), Vec<u8>>,
    /// Names that it lists besides.
    listed: Vec<String>,
    /// What it sends in the place of a file of this name.
    sends: BTreeMap<String, Vec<u8>>,
    /// What it calls a file's hash.
    etags: BTreeMap<String, String>,
    /// Breaks off after so many bytes of a large file, once.
    breaks: Option<usize>,
    /// Method and path of each request, and where a range begins.
    heard: Vec<String>,
}

struct Hub {
    url: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    /// A hub that has the files of `dir` at [`COMMIT`].
    fn of(dir: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let state = Arc::new(Mutex::new(State { commit: COMMIT.into(), ..State::default() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || serve(&stream, &state));
            }
        });
        let hub = Self { url, state };
        for name in dir.is_dir().then(|| names(dir)).into_iter().flatten() {
            hub.put(COMMIT, &name, std::fs::read(dir.join(&name)).expect("file"));
        }
        hub
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("state")
    }

    fn put(&self, commit: &str, name: &str, bytes: impl Into<Vec<u8>>) {
        self.state().files.insert((commit.into(), name.into()), bytes.into());
    }

    fn run(&self, place: &Place, arguments: &str) -> Output {
        let mut command = place.command(env!("CARGO_BIN_EXE_rpo"));
        command.env("HF_ENDPOINT", &self.url).env("HF_HUB_OFFLINE", "0").env_remove("HF_TOKEN");
        command.args(arguments.split(' ')).output().expect("runs")
    }

    fn ok(&self, place: &Place, arguments: &str) {
        let output = self.run(place, arguments);
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn complaint(&self, place: &Place, arguments: &str) -> String {
        let output = self.run(place, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash by which the hub calls a content.
fn hash(name: &str, bytes: &[u8]) -> String {
    match is_large(name) {
        true => hexadecimal(&<Sha256 as sha2::Digest>::digest(bytes)),
        false => {
            hexadecimal(&<Sha1 as sha1::Digest>::digest([format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat()))
        }
    }
}

/// Reads one request and answers it.
fn serve(mut stream: &TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let lower = head.to_lowercase();
    let range = lower.lines().find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok());
    let mut state = state.lock().expect("state");
    state.heard.push(format!("{method} {path} {}", range.unwrap_or(0)));
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let mut say = |status: u16, headers: &str, body: &[u8]| {
        let _ = write!(stream, "HTTP/1.1 {status} X\r\n{headers}Connection: close\r\n\r\n");
        let _ = stream.write_all(body);
    };
    match parts[..] {
        ["api", _, _, _, "revision", revision] => {
            let commit = if revision == "main" { state.commit.clone() } else { revision.to_string() };
            let own = state.files.keys().filter(|(at, _)| *at == commit).map(|(_, name)| name.clone());
            let siblings = own.chain(state.listed.clone()).map(|name| format!("{{\"rfilename\":{name:?}}}"));
            let siblings = siblings.collect::<Vec<_>>().join(",");
            let body = format!("{{\"sha\":{commit:?},\"siblings\":[{siblings}]}}");
            say(200, &format!("Content-Length: {}\r\n", body.len()), body.as_bytes());
        }
        [.., "resolve", commit, name] => {
            let Some(bytes) = state.files.get(&(commit.to_string(), name.to_string())).cloned() else {
                return say(404, "Content-Length: 0\r\n", b"");
            };
            let etag = state.etags.get(name).cloned().unwrap_or_else(|| hash(name, &bytes));
            let bytes = state.sends.get(name).cloned().unwrap_or(bytes);
            let length = bytes.len();
            match (is_large(name), method) {
                (true, _) => {
                    let place = format!("Location: /storage/{commit}/{name}\r\n");
                    let place =
                        if method == "HEAD" { place.replace("/storage", "https://elsewhere/storage") } else { place };
                    let known = state.files[&(commit.to_string(), name.to_string())].len();
                    let told = format!("X-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {known}\r\nContent-Length: 0\r\n");
                    say(302, &format!("{place}{told}"), b"");
                }
                (_, "HEAD") => say(200, &format!("ETag: \"{etag}\"\r\nContent-Length: {length}\r\n"), b""),
                _ => say(200, &format!("Content-Length: {length}\r\n"), &bytes),
            }
        }
        ["storage", commit, name] => {
            let bytes = state.sends.get(name).unwrap_or_else(|| &state.files[&(commit.to_string(), name.to_string())]);
            let bytes = bytes[range.unwrap_or(0).min(bytes.len())..].to_vec();
            let end = state.breaks.take().unwrap_or(bytes.len()).min(bytes.len());
            let status = if range.is_some() { 206 } else { 200 };
            say(status, &format!("Content-Length: {}\r\n", bytes.len()), &bytes[..end]);
        }
        _ => say(404, "Content-Length: 0\r\n", b""),
    }
}

const GENERATE: &str = "generate --model user/tiny --max-new-tokens 3 say";

/// A place and a hub that has its model.
fn hub() -> (Place, Hub) {
    let place = Place::with_model();
    let hub = Hub::of(&place.path("model"));
    (place, hub)
}

#[test]
fn a_run_stays_at_the_commit_that_it_began_with() {
    let (place, hub) = hub();
    let train = "train rpo --model user/tiny --data data.jsonl --out run --max-steps 2";
    hub.ok(&place, train);
    let saved = std::fs::read_to_string(place.path("run/config.toml")).expect("settings");
    assert!(saved.contains(&format!("model = \"user/tiny@{COMMIT}\"")), "{saved}");
    assert!(place.path("run/last/tokenizer.json").is_file());
    // The hub moves on to a model that is none; the run does not.
    hub.state().commit = COMMIT.replace('0', "f");
    hub.put(&COMMIT.replace('0', "f"), "config.json", "{}");
    hub.ok(&place, "train --resume run --max-steps 3");
    hub.ok(&place, &GENERATE.replace("user/tiny", &format!("user/tiny@{COMMIT}")));
    let snapshots = place.path("hub/hub/models--user--tiny/snapshots");
    assert_eq!(names(&snapshots), [COMMIT]);
    let link = std::fs::read_link(snapshots.join(COMMIT).join("config.json")).expect("a link");
    assert!(link.starts_with("../../blobs"), "{}", link.display());
    // Once it is here, nobody is asked again, and the snapshot is a model's directory like any other.
    let heard = hub.state().heard.len();
    hub.ok(&place, GENERATE);
    assert_eq!(hub.state().heard.len(), heard);
    place.ok(&GENERATE.replace("user/tiny", &snapshots.join(COMMIT).display().to_string()));
}

#[test]
fn what_has_not_the_hash_that_the_hub_names_is_not_used() {
    for name in ["model.safetensors", "config.json"] {
        let (place, hub) = hub();
        let mut other = std::fs::read(place.path("model").join(name)).expect("file");
        *other.last_mut().expect("bytes") ^= 1;
        hub.state().sends.insert(name.into(), other);
        let said = hub.complaint(&place, GENERATE);
        assert!(said.contains(name) && said.contains("has not the hash"), "{said}");
        let blobs = place.path("hub/hub/models--user--tiny/blobs");
        assert!(!names(&blobs).iter().any(|blob| blob.contains(".part")), "{:?}", names(&blobs));
        hub.state().sends.clear();
        hub.ok(&place, GENERATE);
    }
}

#[test]
fn more_or_less_than_was_announced_is_no_file() {
    let (place, hub) = hub();
    let name = "model.safetensors";
    let whole = std::fs::read(place.path("model").join(name)).expect("file");
    hub.state().sends.insert(name.into(), [whole.clone(), vec![0; 5_000_000]].concat());
    let said = hub.complaint(&place, GENERATE);
    assert!(said.contains("more came than the"), "{said}");
    hub.state().sends.clear();
    // Broken off, it goes on where it stopped.
    hub.state().breaks = Some(1000);
    hub.complaint(&place, GENERATE);
    hub.ok(&place, GENERATE);
    assert!(
        hub.state().heard.iter().any(|line| line == &format!("GET /storage/{COMMIT}/{name} 1000")),
        "{:?}",
        hub.state().heard
    );
}

#[test]
fn damage_in_the_cache_is_found_when_files_are_brought() {
    let (place, hub) = hub();
    hub.ok(&place, GENERATE);
    let snapshot = place.path("hub/hub/models--user--tiny/snapshots").join(COMMIT);
    let weights = std::fs::canonicalize(snapshot.join("model.safetensors")).expect("blob");
    let mut bytes = std::fs::read(&weights).expect("blob");
    *bytes.last_mut().expect("bytes") ^= 1;
    std::fs::write(&weights, bytes).expect("write");
    std::fs::remove_file(snapshot.join("config.json")).expect("remove");
    let said = hub.complaint(&place, GENERATE);
    assert!(said.contains("is damaged") && said.contains("remove it"), "{said}");
    std::fs::remove_file(&weights).expect("remove");
    hub.ok(&place, GENERATE);
}

#[test]
fn nothing_that_a_hub_says_leads_out_of_its_cache() {
    let outside = |place: &Place| names(place.0.path());
    for name in [
        "../../../../evil.safetensors",
        "/tmp/evil.safetensors",
        "a/b.safetensors",
        "..",
        "",
        "evil",
        ".evil.safetensors",
    ] {
        let (place, hub) = hub();
        let before = outside(&place);
        let index = format!("{{\"weight_map\":{{\"shared.weight\":{name:?}}}}}");
        hub.state().files.remove(&(COMMIT.into(), "model.safetensors".into()));
        hub.put(COMMIT, "model.safetensors.index.json", index);
        hub.put(COMMIT, name, "evil");
        let said = hub.complaint(&place, GENERATE);
        assert!(said.contains("model.safetensors.index.json: weight_map names"), "{name}: {said}");
        let after: Vec<String> =
            outside(&place).into_iter().filter(|name| !["hub", "cache"].contains(&name.as_str())).collect();
        assert_eq!(after, before, "{name}");
    }
    // A commit, or a hash, that is a path.
    let (place, hub) = hub();
    hub.state().commit = "../../../../evil".into();
    assert!(hub.complaint(&place, GENERATE).contains("the commit that it tells of user/tiny is none"));
    hub.state().commit = COMMIT.into();
    hub.state().etags.insert("config.json".into(), "../../../../../evil".into());
    let output = hub.run(&place, GENERATE);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("names no hash of config.json"), "{said}");
    assert!(!outside(&place).contains(&"evil".to_string()));
}

#[test]
fn names_of_data_that_are_paths_are_left_out() {
    let place = Place::new();
    let hub = Hub::of(&place.path("none"));
    hub.put(COMMIT, "train.jsonl", std::fs::read(place.path("data.jsonl")).expect("data"));
    place.write("secret.jsonl", "{\"prompt\":\"a\",\"response\":\"b\",\"reward\":1}\n");
    let secret = place.path("secret.jsonl").display().to_string();
    hub.state().listed = vec![secret, "../../../../../secret.jsonl".into(), "a//b.jsonl".into()];
    let output = hub.run(&place, "inspect data user/ratings --tokenizer tokenizer.json");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success() && said.contains("3 files are left out whose names are none"), "{said}");
    assert!(said.contains("40 rated responses"), "{said}");
    assert!(
        hub.complaint(
            &place,
            "inspect data hf://datasets/user/ratings/../../../../../secret.jsonl --tokenizer tokenizer.json"
        )
        .contains("no file")
    );
}

#[test]
fn an_adapter_of_the_hub_names_no_place_on_this_machine() {
    let (place, hub) = hub();
    hub.state().files.clear();
    let base = place.path("model").display().to_string();
    for base in [base.as_str(), "./model", "../model"] {
        let settings =
            format!("{{\"peft_type\":\"LORA\",\"base_model_name_or_path\":{base:?},\"r\":1,\"lora_alpha\":1}}");
        let name = format!("user/adapter{}", base.len());
        hub.put(COMMIT, "adapter_config.json", settings);
        hub.put(COMMIT, "adapter_model.safetensors", "none");
        let said = hub.complaint(&place, &GENERATE.replace("user/tiny", &name));
        assert!(said.contains("an adapter from the hub must name a model on the hub"), "{said}");
    }
}
