//! Files of the hub into its local cache: at one commit, never more bytes than the hub announced, and only when they have the hash that
//! the hub names. A download that is broken off goes on where it stopped.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::{HeaderMap, Uri};
use ureq::{Agent, config::RedirectAuthHeaders};

use super::cache::Cache;
use super::hashes::{is_hash, matches, named};
use super::{Repo, endpoint, is_path_below, is_revision, token};
use crate::store::checksums::sha256;

/// Most bytes of what the hub tells of a repository: names of some hundred thousand files.
const LISTING: u64 = 64 << 20;
/// Most bytes of one file: a tebibyte.
const FILE: u64 = 1 << 40;
/// So long may nothing come of a file.
const SILENCE: Duration = Duration::from_mins(1);
/// So often a download that lasts is told of.
const TOLD: Duration = Duration::from_secs(15);
/// Most times that a file may have moved.
const MOVES: usize = 5;

/// The hub, with the token of `HF_TOKEN` or of a login.
pub(crate) struct Hub {
    endpoint: String,
    token: Option<String>,
    agent: Agent,
}

/// A repository at a commit.
#[derive(Debug)]
pub(crate) struct Listing {
    /// The commit that its revision is now.
    pub(crate) commit: String,
    /// Its files, as paths below its root.
    pub(crate) names: Vec<String>,
}

/// What the hub tells of a file.
struct Facts {
    /// None where it names no hash.
    hash: Option<String>,
    /// None where it announces no size.
    size: Option<u64>,
}

impl Hub {
    /// The hub of the environment.
    pub(crate) fn of_environment() -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("rpo/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_mins(1)))
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .build()
            .new_agent();
        Self { endpoint: endpoint(), token: token(), agent }
    }

    /// The commit and the files of `repo`.
    ///
    /// # Errors
    /// If the hub does not tell, or tells what cannot be.
    pub(crate) fn list(&self, repo: &Repo) -> Result<Listing, String> {
        #[derive(Deserialize)]
        struct Told {
            sha: String,
            #[serde(default)]
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        if !is_revision(&repo.revision) {
            return Err(format!("`{}` is no revision", repo.revision));
        }
        let (kind, revision) = (repo.kind.plural(), repo.revision.replace('/', "%2F"));
        let url = format!("{}/api/{kind}/{}/revision/{revision}", self.endpoint, repo.id);
        let request = self.agent.get(&url).config().timeout_recv_body(Some(Duration::from_mins(3))).build();
        let mut response = self.authorized(request).call().map_err(|e| e.to_string())?;
        status(response.status().as_u16())?;
        let body = response.body_mut().with_config().limit(LISTING).read_to_vec().map_err(|e| e.to_string())?;
        let told: Told =
            serde_json::from_slice(&body).map_err(|e| format!("what it tells of {} cannot be read: {e}", repo.id))?;
        if !is_hash(&told.sha) {
            return Err(format!("the commit that it tells of {} is none", repo.id));
        }
        let (names, odd): (Vec<String>, Vec<String>) =
            told.siblings.into_iter().map(|file| file.rfilename).partition(|name| is_path_below(name));
        if let Some(first) = odd.first() {
            tracing::warn!("{}: {} files are left out whose names are none, the first {first:?}", repo.id, odd.len());
        }
        Ok(Listing { commit: told.sha, names })
    }

    /// The file `name` of `repo` at `commit`, downloaded; its content is what the hub's hash says.
    ///
    /// # Errors
    /// If the hub does not give it, gives something else than it announced, or the cache cannot be written.
    pub(crate) fn get(&self, repo: &Repo, commit: &str, name: &str) -> Result<PathBuf, String> {
        if !is_path_below(name) || !is_hash(commit) {
            return Err(format!("`{name}` at commit `{commit}` is no file of a repository"));
        }
        let encoded: Vec<String> = name.split('/').map(encoded).collect();
        let url = format!("{}/{}/resolve/{commit}/{}", self.endpoint, repo.path(), encoded.join("/"));
        let facts = self.facts(&url)?;
        let cache = Cache::of(repo);
        // Without a hash the content gets its own name, and nothing says whether it is what it should be.
        let wanted = facts.hash.clone().unwrap_or_else(|| blake3::hash(url.as_bytes()).to_hex()[..40].to_string());
        let failed = |what: &Path, e: std::io::Error| format!("cannot write {}: {e}", what.display());
        let blob = cache.blob(&wanted);
        let blobs = blob.parent().unwrap_or(&blob);
        fs::create_dir_all(blobs).map_err(|e| failed(blobs, e))?;
        let lock = blob.with_extension("lock");
        let held = File::create(&lock).map_err(|e| failed(&lock, e))?;
        held.lock().map_err(|e| failed(&lock, e))?;
        // Another download may have brought it meanwhile, or one of an earlier commit.
        let is_there = facts.hash.is_some() && blob.is_file() && check(&blob, &wanted).is_ok();
        let mut hash = wanted.clone();
        if !is_there {
            let part = blob.with_extension("part");
            self.fetch(&url, &part, facts.size, name)?;
            match &facts.hash {
                Some(hash) => check(&part, hash).inspect_err(|_| _ = fs::remove_file(&part))?,
                None => {
                    tracing::warn!("{}: the hub names no hash of {name}, so that it cannot be checked", repo.id);
                    hash =
                        File::open(&part).and_then(|part| sha256(part, &mut |_| ())).map_err(|e| failed(&part, e))?;
                }
            }
            let blob = cache.blob(&hash);
            fs::rename(&part, &blob).map_err(|e| failed(&blob, e))?;
        }
        let path = cache.link(&hash, commit, name).map_err(|e| failed(&cache.snapshot(commit), e))?;
        drop(held);
        Ok(path)
    }

    /// What the hub tells of the file at `url`, which may have moved on the hub itself.
    fn facts(&self, url: &str) -> Result<Facts, String> {
        let mut url = url.to_string();
        for _ in 0..MOVES {
            let request = self.agent.head(&url).config().max_redirects(0).max_redirects_will_error(false).build();
            let request = request.header("accept-encoding", "identity");
            let response = self.authorized(request).call().map_err(|e| e.to_string())?;
            let (code, headers) = (response.status().as_u16(), response.headers());
            let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
            let hash = text("x-linked-etag").or_else(|| text("etag")).and_then(named);
            let elsewhere = text("location").filter(|_| (300..400).contains(&code));
            match elsewhere {
                // A renamed repository; the token goes along, for it stays with the hub.
                Some(path) if path.starts_with('/') && !path.starts_with("//") => {
                    url = format!("{}{path}", origin(&url)?);
                }
                // Where large files are kept.
                Some(_) => return Ok(Facts { hash, size: number(headers, "x-linked-size") }),
                None => {
                    status(code)?;
                    let size = number(headers, "x-linked-size").or_else(|| number(headers, "content-length"));
                    return Ok(Facts { hash, size });
                }
            }
        }
        Err(format!("it moved more than {MOVES} times"))
    }

    /// Brings what is at `url` to `part`, going on where an earlier try ended.
    fn fetch(&self, url: &str, part: &Path, size: Option<u64>, name: &str) -> Result<(), String> {
        let failed = |e: std::io::Error| format!("cannot write {}: {e}", part.display());
        let mut file =
            File::options().create(true).truncate(false).read(true).write(true).open(part).map_err(failed)?;
        let most = size.unwrap_or(FILE);
        if most > FILE {
            return Err(format!("it would be of {most} bytes; at most {FILE} are taken"));
        }
        let mut there = file.metadata().map_err(failed)?.len();
        if there > most || size.is_none() {
            there = 0;
        }
        if there == most {
            return Ok(());
        }
        let request = self.agent.get(url).header("accept-encoding", "identity");
        let request = if there > 0 { request.header("range", format!("bytes={there}-")) } else { request };
        let response = self.authorized(request).call().map_err(|e| e.to_string())?;
        status(response.status().as_u16())?;
        if response.status().as_u16() != 206 {
            there = 0;
        }
        file.set_len(there).and_then(|()| file.seek(SeekFrom::Start(there))).map_err(failed)?;
        let mut told = Instant::now();
        // A call cannot be broken off, so it has a thread of its own, which is left alone if nothing comes.
        let (sender, receiver) = mpsc::sync_channel(4);
        let mut body = response.into_body().into_reader();
        std::thread::spawn(move || {
            loop {
                let mut chunk = vec![0; 1 << 20];
                let read = body.read(&mut chunk).map(|n| {
                    chunk.truncate(n);
                    chunk
                });
                let last = read.as_ref().map_or(true, Vec::is_empty);
                if sender.send(read).is_err() || last {
                    return;
                }
            }
        });
        loop {
            let silent =
                |_| format!("nothing came for {} s, after {there} bytes; the next try goes on", SILENCE.as_secs());
            let chunk = receiver.recv_timeout(SILENCE).map_err(silent)?.map_err(|e| e.to_string())?;
            if chunk.is_empty() {
                break;
            }
            there += chunk.len() as u64;
            if there > most {
                drop(file);
                let _ = fs::remove_file(part);
                return Err(format!("more came than the {most} bytes that were announced"));
            }
            file.write_all(&chunk).map_err(failed)?;
            if told.elapsed() >= TOLD {
                told = Instant::now();
                let of = size.map_or(String::new(), |size| format!(" of {}", size >> 20));
                tracing::info!("{name}: {}{of} MiB", there >> 20);
            }
        }
        match size {
            Some(size) if there < size => Err(format!("only {there} of {size} bytes came; the next try goes on")),
            _ => file.sync_all().map_err(failed),
        }
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }
}

/// Checks that a content is what its hash says.
///
/// # Errors
/// If it is not, or cannot be read.
fn check(path: &Path, hash: &str) -> Result<(), String> {
    match matches(path, hash) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("what came has not the hash {hash} that the hub names; it is not used")),
        Err(e) => Err(format!("cannot read {}: {e}", path.display())),
    }
}

/// Checks files of a snapshot against the hashes that their places in the cache name.
///
/// # Errors
/// The first whose content is another, with what to do.
pub(crate) fn check_cached(files: &[PathBuf]) -> Result<(), String> {
    for file in files {
        let blob = fs::canonicalize(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        let hash = blob.file_name().and_then(|name| name.to_str()).filter(|name| is_hash(name));
        let is_blob = blob.parent().and_then(Path::file_name).is_some_and(|name| name == "blobs");
        let Some(hash) = hash.filter(|_| is_blob) else { continue };
        if !matches(&blob, hash).map_err(|e| format!("cannot read {}: {e}", blob.display()))? {
            return Err(format!("{} is damaged: its content has not the hash {hash}; remove it", blob.display()));
        }
    }
    Ok(())
}

/// Why a status is none that brings anything.
fn status(code: u16) -> Result<(), String> {
    match code {
        200..=299 => Ok(()),
        401 | 403 => Err(format!(
            "HTTP {code}: there is no such thing, or it is not for everybody; in that case set HF_TOKEN to a token that may read it"
        )),
        404 => Err("HTTP 404: there is none".into()),
        _ => Err(format!("HTTP {code}")),
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// Scheme and host of an address.
fn origin(url: &str) -> Result<String, String> {
    let parsed: Uri = url.parse().map_err(|_| format!("`{url}` is no address"))?;
    match (parsed.scheme_str(), parsed.authority()) {
        (Some(scheme), Some(authority)) => Ok(format!("{scheme}://{authority}")),
        _ => Err(format!("`{url}` is no address")),
    }
}

/// A part of a path as an address has it.
fn encoded(part: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    part.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_addresses() {
        assert_eq!(encoded("train 1#ä.csv"), "train%201%23%C3%A4.csv");
        assert_eq!(origin("http://127.0.0.1:80/a/b").as_deref(), Ok("http://127.0.0.1:80"));
        assert!(origin("nothing").is_err());
    }
}
