//! `rpo push` against a stand-in of the hub on this machine. With `RPO_PYTHON` set to a Python that has `huggingface_hub`, its client
//! sends the same directory to the stand-in too, and the two must agree.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, MutexGuard};

use common::Place;
use serde_json::{Value, json};

const TOKEN: &str = "hf_secret";
const CHUNK: usize = 100_000;

/// What the stand-in has and heard.
#[derive(Default)]
struct State {
    exists: bool,
    private: bool,
    branches: Vec<String>,
    /// Content of large files by their SHA-256.
    objects: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<(String, usize), Vec<u8>>,
    /// Files of the last commit: the content of small ones, the SHA-256 of large ones.
    small: BTreeMap<String, String>,
    large: BTreeMap<String, String>,
    /// Method and path of each request.
    heard: Vec<String>,
    /// Answers with this status to so many more requests whose line begins so.
    failing: Option<(&'static str, u16, usize)>,
    /// What it says then.
    saying: &'static str,
    /// Sends large files in parts.
    multipart: bool,
}

struct StandIn {
    url: String,
    state: Arc<Mutex<State>>,
}

impl StandIn {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, own) = (state.clone(), url.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, url) = (shared.clone(), own.clone());
                std::thread::spawn(move || serve(&stream, &url, &state));
            }
        });
        Self { url, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("state")
    }

    fn push(&self, place: &Place, more: &str) -> Output {
        let mut command = place.command(env!("CARGO_BIN_EXE_rpo"));
        command.env("HF_ENDPOINT", &self.url).env("HF_TOKEN", TOKEN).env("HF_HUB_OFFLINE", "0");
        command.args("push model user/first".split(' ')).args(more.split(' ').filter(|a| !a.is_empty()));
        command.output().expect("runs")
    }

    fn heard(&self, start: &str) -> usize {
        self.state().heard.iter().filter(|line| line.starts_with(start)).count()
    }
}

/// Reads one request and answers it.
fn serve(stream: &TcpStream, url: &str, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() || line.is_empty() {
        return;
    }
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default().to_string(), words.next().unwrap_or_default().to_string());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_lowercase(), value.trim().to_string());
        }
    }
    // An upload must say how long it is: where the hub keeps large files nothing else is taken.
    let length = headers.get("content-length").and_then(|n| n.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let mut state = state.lock().expect("state");
    let request = format!("{method} {path}");
    state.heard.push(request.clone());
    let to_hub = !path.starts_with("/storage/") && !path.starts_with("/complete/");
    let known = headers.get("authorization").is_some_and(|a| a == &format!("Bearer {TOKEN}"));
    let (status, etag, answer) = match state.failing {
        Some((start, status, n)) if n > 0 && request.starts_with(start) => {
            state.failing = Some((start, status, n - 1));
            (status, None, json!({"error": state.saying}))
        }
        _ if to_hub && !known => (401, None, json!({"error": "Invalid credentials"})),
        _ if !to_hub && headers.contains_key("authorization") => {
            (400, None, json!({"error": "a token told to strangers"}))
        }
        _ if method == "PUT" && length.is_none() => (411, None, json!({"error": "no length"})),
        _ => answer(&mut state, url, &method, path.split('?').next().unwrap_or_default(), &body),
    };
    drop(state);
    let answer = answer.to_string();
    let etag = etag.map_or_else(String::new, |etag| format!("ETag: {etag}\r\n"));
    let mut stream = stream;
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{etag}Content-Length: {}\r\nConnection: close\r\n\r\n{answer}",
        answer.len()
    );
}

type Answered = (u16, Option<String>, Value);

fn answer(state: &mut State, url: &str, method: &str, path: &str, body: &[u8]) -> Answered {
    let told: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let ok = |answer: Value| (200, None, answer);
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (method, &parts[..]) {
        ("POST", ["api", "repos", "create"]) => {
            assert_eq!((told["name"].as_str(), told["organization"].as_str()), (Some("first"), Some("user")));
            if state.exists {
                return (409, None, json!({"error": "You already created this model repo"}));
            }
            state.exists = true;
            state.private = told["private"] == true || told["visibility"] == "private";
            ok(json!({"url": format!("{url}/user/first")}))
        }
        ("GET", ["api", "models", "user", "first"]) if state.exists => ok(json!({"id": "user/first"})),
        ("POST", ["api", "models", "user", "first", "branch", branch]) => {
            state.branches.push((*branch).to_string());
            ok(json!({}))
        }
        ("POST", ["api", "models", "user", "first", "preupload", "main" | "refs%2Fx" | "trial"]) => {
            let files = told["files"].as_array().expect("files");
            let mode = |file: &Value| {
                let name = file["path"].as_str().expect("path");
                let large = name.ends_with(".safetensors");
                assert!(file["sample"].is_string() && file["size"].is_u64());
                json!({"path": name, "uploadMode": if large { "lfs" } else { "regular" }, "shouldIgnore": name == "notes.log"})
            };
            ok(json!({"files": files.iter().map(mode).collect::<Vec<_>>()}))
        }
        ("POST", ["user", "first.git", "info", "lfs", "objects", "batch"]) => {
            assert_eq!((told["operation"].as_str(), told["hash_algo"].as_str()), (Some("upload"), Some("sha256")));
            let objects = told["objects"].as_array().expect("objects").iter().map(|object| {
                let oid = object["oid"].as_str().expect("oid");
                let size = object["size"].as_u64().expect("size") as usize;
                if state.objects.contains_key(oid) {
                    return json!({"oid": oid, "size": size});
                }
                let verify = json!({"href": format!("{url}/verify/{oid}")});
                let upload = if state.multipart {
                    let mut header = serde_json::Map::from_iter([("chunk_size".into(), json!(CHUNK.to_string()))]);
                    for n in 1..=size.div_ceil(CHUNK) {
                        header.insert(format!("{n:05}"), json!(format!("{url}/storage/{oid}/{n}?X-Signature=abc")));
                    }
                    json!({"href": format!("{url}/complete/{oid}"), "header": header})
                } else {
                    json!({"href": format!("{url}/storage/{oid}?X-Signature=abc")})
                };
                json!({"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}})
            });
            ok(json!({"transfer": "basic", "objects": objects.collect::<Vec<_>>()}))
        }
        ("PUT", ["storage", oid]) => {
            state.objects.insert((*oid).to_string(), body.to_vec());
            ok(json!({}))
        }
        ("PUT", ["storage", oid, n]) => {
            state.parts.insert(((*oid).to_string(), n.parse().expect("number")), body.to_vec());
            (200, Some(format!("\"part-{n}\"")), json!({}))
        }
        ("POST", ["complete", oid]) => {
            let named = told["parts"].as_array().expect("parts");
            let whole: Vec<u8> =
                (1..=named.len()).flat_map(|n| state.parts[&((*oid).to_string(), n)].clone()).collect();
            for (i, part) in named.iter().enumerate() {
                assert_eq!(
                    (&part["partNumber"], &part["etag"]),
                    (&json!(i + 1), &json!(format!("\"part-{}\"", i + 1)))
                );
            }
            state.objects.insert((*oid).to_string(), whole);
            ok(json!({}))
        }
        ("POST", ["verify", oid]) => {
            let held = state.objects.get(*oid).map(Vec::len);
            let right = held.is_some_and(|held| told["size"].as_u64() == Some(held as u64));
            (if right { 200 } else { 404 }, None, json!({}))
        }
        ("POST", ["api", "models", "user", "first", "commit", _]) => {
            (state.small, state.large) = (BTreeMap::new(), BTreeMap::new());
            for line in std::str::from_utf8(body).expect("text").lines() {
                let line: Value = serde_json::from_str(line).expect("JSON lines");
                let value = &line["value"];
                let text = |name: &str| value[name].as_str().unwrap_or_default().to_string();
                match line["key"].as_str() {
                    Some("header") => assert!(!text("summary").is_empty()),
                    Some("file") => _ = state.small.insert(text("path"), text("content")),
                    Some("lfsFile") => {
                        assert!(state.objects.contains_key(&text("oid")), "committed before it was sent");
                        state.large.insert(text("path"), text("oid"));
                    }
                    other => panic!("{other:?}"),
                }
            }
            ok(json!({"commitUrl": format!("{url}/user/first/commit/abc"), "commitOid": "abc", "success": true}))
        }
        _ => (404, None, json!({"error": format!("no {method} {path}")})),
    }
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_model_goes_to_the_hub_and_is_not_sent_twice() {
    let (place, hub) = (Place::with_model(), StandIn::new());
    place.write("model/.env", "SECRET=1");
    place.write("model/resume/optimizer.safetensors", "x");
    place.write("model/notes.log", "x");
    let first = hub.push(&place, "--private");
    assert!(first.status.success(), "{}", said(&first));
    assert!(said(&first).contains("user/first/commit/abc: 1 large files sent"), "{}", said(&first));
    assert!(said(&first).contains("no README.md") && said(&first).contains("not wanted there"), "{}", said(&first));
    assert!(!said(&first).contains(TOKEN));
    {
        let state = hub.state();
        assert!(state.private);
        let names: Vec<&String> = state.small.keys().collect();
        assert_eq!(names, ["config.json", "generation_config.json", "tokenizer.json"]);
        let oid = &state.large["model.safetensors"];
        assert_eq!(state.objects[oid], std::fs::read(place.path("model/model.safetensors")).expect("weights"));
    }
    let again = hub.push(&place, "");
    assert!(said(&again).contains("0 large files sent, 1 were there already"), "{}", said(&again));
    assert!(said(&again).contains("user/first exists"), "{}", said(&again));
    assert_eq!(hub.heard("PUT /storage"), 1);
}

#[test]
fn large_files_go_in_parts_and_what_fails_is_tried_again() {
    let (place, hub) = (Place::with_model(), StandIn::new());
    hub.state().multipart = true;
    hub.state().failing = Some(("PUT /storage", 503, 2));
    let output = hub.push(&place, "--revision trial");
    assert!(output.status.success(), "{}", said(&output));
    let state = hub.state();
    let weights = std::fs::read(place.path("model/model.safetensors")).expect("weights");
    assert_eq!(state.objects[&state.large["model.safetensors"]], weights);
    let parts = state.heard.iter().filter(|line| line.starts_with("PUT /storage")).count();
    assert_eq!(parts, weights.len().div_ceil(CHUNK) + 2);
    assert_eq!(state.branches, ["trial"]);
}

#[test]
fn refusals_say_what_to_do_and_never_the_token() {
    let (place, hub) = (Place::with_model(), StandIn::new());
    let refused = |start: &'static str, status: u16, saying: &'static str| {
        hub.state().failing = Some((start, status, 99));
        hub.state().saying = saying;
        let output = hub.push(&place, "");
        assert!(!output.status.success() && !said(&output).contains(TOKEN), "{}", said(&output));
        assert!(!said(&output).contains("X-Signature"), "{}", said(&output));
        said(&output)
    };
    let unknown = refused("POST /api/repos", 401, "Invalid credentials");
    // Whether it exists already is asked first.
    assert!(unknown.contains("HF_TOKEN") && unknown.contains("Invalid credentials"), "{unknown}");
    assert!(refused("POST /api/repos", 403, "").contains("may not write to user/first"));
    let full = refused("POST /user/first.git", 413, "You have exceeded your storage quota");
    assert!(full.contains("there is no room for it") && full.contains("exceeded your storage quota"), "{full}");
    assert!(refused("PUT /storage", 403, "expired").contains("sending model.safetensors"));
    assert!(refused("POST /api/models/user/first/commit", 409, "").contains("meanwhile"));
    hub.state().failing = None;
    assert!(hub.push(&place, "").status.success(), "what was sent before does no harm");
    // No token, no network, nothing to send, or not a model.
    let mut command = place.command(env!("CARGO_BIN_EXE_rpo"));
    command.env("HF_HUB_OFFLINE", "0").env_remove("HF_TOKEN").args(["push", "model", "user/first"]);
    assert!(said(&command.output().expect("runs")).contains("there is no token: set HF_TOKEN"));
    assert!(place.complaint("push model user/first").contains("HF_HUB_OFFLINE"));
    assert!(place.complaint("push model first").contains("user/flan-t5-small-rpo"));
    place.write("empty/readme.txt", "x");
    assert!(place.complaint("push empty user/first").contains("config.json"));
}

#[test]
fn a_dry_run_lists_and_sends_nothing() {
    let place = Place::with_model();
    place.write("model/.env", "SECRET=1");
    place.write("model/adapter/adapter_config.json", "{\"base_model_name_or_path\": \"/home/me/t5\"}");
    let output = place.run("push model user/first --dry-run");
    let said = said(&output);
    assert!(
        output.status.success() && said.contains("model.safetensors") && said.contains("stays here  .env"),
        "{said}"
    );
    assert!(said.contains("nothing was sent") && said.contains("a path of this machine, /home/me/t5"), "{said}");
    let less = place.ok("push model user/first --dry-run --exclude adapter/*");
    assert!(!less.contains("KiB  adapter/") && less.contains("stays here  adapter/adapter_config.json"), "{less}");
}

#[test]
fn the_hubs_own_client_sends_the_same() {
    let Some(python) = std::env::var_os("RPO_PYTHON") else {
        eprintln!("skipped: RPO_PYTHON names no Python with huggingface_hub");
        return;
    };
    for multipart in [false, true] {
        let place = Place::with_model();
        let (ours, theirs) = (StandIn::new(), StandIn::new());
        ours.state().multipart = multipart;
        theirs.state().multipart = multipart;
        assert!(ours.push(&place, "").status.success());
        let script = "import os; from huggingface_hub import HfApi; api = HfApi(endpoint=os.environ['HF_ENDPOINT'], \
                      token=os.environ['HF_TOKEN']); api.create_repo('user/first', exist_ok=True); \
                      api.upload_folder(repo_id='user/first', folder_path='model', commit_message='Upload model')";
        let mut command = Command::new(&python);
        command.current_dir(place.path("")).env("HF_ENDPOINT", &theirs.url).env("HF_TOKEN", TOKEN);
        command.env("HF_HUB_DISABLE_XET", "1").env("HF_HOME", place.path("hub")).env("HF_HUB_OFFLINE", "0");
        let output = command.args(["-c", script]).output().expect("runs");
        assert!(output.status.success(), "{}", said(&output));
        let (ours, theirs) = (ours.state(), theirs.state());
        assert_eq!((&ours.small, &ours.large, &ours.objects), (&theirs.small, &theirs.large, &theirs.objects));
        assert!(!ours.small.is_empty() && !ours.large.is_empty());
    }
}
