//! A directory goes to the hub, as the hub's own client sends it: the repository is made, the hub says which files are large,
//! these are sent unless it has their content, and one commit names them all.
//!
//! The protocols are those of `huggingface_hub`: `api/repos/create`, `preupload`, Git LFS's batch with the transfers `basic` and
//! `multipart`, and `commit` with one JSON object a line. (The crate `hf-hub` 1.0 can also upload, but sends large files by way
//! of Xet alone, which other hubs than huggingface.co do not have, and brings an asynchronous runtime along.)

mod client;
mod files;
mod transfer;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

pub use client::Hub;
pub use files::{File, Listing, list};

use crate::error::{Error, Result};

/// Where a directory goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// `owner/name`.
    pub repo: String,
    /// The branch; made if it is missing.
    pub revision: String,
    /// Whether a repository that is made is private.
    pub private: bool,
    /// What the commit says.
    pub message: String,
}

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The repository is there; whether it was made now.
    Repository {
        /// It did not exist before.
        made: bool,
    },
    /// So many bytes are about to be read, to know their names.
    Reading(u64),
    /// So many bytes more were read.
    Read(u64),
    /// So many bytes of large files are about to be sent; of so many others the hub has the content.
    Sending {
        /// Bytes that it lacks.
        bytes: u64,
        /// Files that it has.
        present: usize,
    },
    /// So many bytes more were sent.
    Sent(u64),
    /// So many of them have to be sent again.
    Unsent(u64),
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Address of the commit or, if the hub does not tell it, of the repository.
    pub url: String,
    /// Large files that were sent.
    pub sent: usize,
    /// Large files whose content the hub had.
    pub present: usize,
    /// Files that are part of the commit itself.
    pub small: usize,
    /// Files that the hub does not want, as a `.gitignore` there says.
    pub ignored: Vec<String>,
}

/// Checks that `repo` can be a repository's id.
///
/// # Errors
/// If it cannot, with what it should look like.
pub fn check_repo(repo: &str) -> Result<()> {
    let legal = |part: &str| {
        let inner = part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        inner && !part.is_empty() && part.len() <= 96 && !part.starts_with(['-', '.']) && !part.ends_with(['-', '.'])
    };
    let parts: Vec<&str> = repo.split('/').collect();
    if parts.len() == 2 && parts.iter().all(|part| legal(part)) && !repo.contains("--") && !repo.contains("..") {
        return Ok(());
    }
    let problem = "not the id of a repository; it is the name of a user or an organization and that of the model, as in \
                   user/flan-t5-small-rpo";
    Err(Error::Hub { what: repo.into(), problem: problem.into() })
}

/// A file with what the hub says of it.
struct Known<'a> {
    file: &'a File,
    oid: String,
}

/// Sends `files` to the hub; `tell` hears how it goes.
///
/// # Errors
/// If a file cannot be read, or the hub refuses something or cannot be reached; what was sent till then need not be sent again.
pub fn push(hub: &Hub, target: &Target, files: &[File], tell: &mut dyn FnMut(Event)) -> Result<Pushed> {
    check_repo(&target.repo)?;
    let made = create(hub, target)?;
    tell(Event::Repository { made });
    let modes = modes(hub, target, files)?;
    let of_mode = |wanted: &str| -> Vec<&File> {
        files.iter().filter(|file| modes.get(&file.name).is_some_and(|mode| mode == wanted)).collect()
    };
    let (large, small) = (of_mode("lfs"), of_mode("regular"));
    tell(Event::Reading(large.iter().map(|file| file.size).sum()));
    let known = large.iter().map(|file| Ok(Known { file, oid: file.sha256(&mut |bytes| tell(Event::Read(bytes)))? }));
    let known = known.collect::<Result<Vec<Known>>>()?;
    let (sent, present) = transfer::send(hub, target, &known, tell)?;
    let url = commit(hub, target, &small, &known)?;
    let ignored = files.iter().filter(|file| modes.get(&file.name).is_none_or(|mode| mode == IGNORED));
    let ignored = ignored.map(|file| file.name.clone()).collect();
    Ok(Pushed { url, sent, present, small: small.len(), ignored })
}

/// Makes the repository and the branch, unless they exist; whether the repository was made.
fn create(hub: &Hub, target: &Target) -> Result<bool> {
    let (owner, name) = target.repo.split_once('/').unwrap_or(("", &target.repo));
    let wanted = json!({"name": name, "organization": owner, "type": "model", "private": target.private});
    let answer = hub.post("making the repository", "api/repos/create", &wanted)?;
    let made = match answer.status {
        409 => false,
        // A token may write to a repository without being allowed to make one.
        401..=403 => {
            let there = hub.get("looking for the repository", &format!("api/models/{}", target.repo))?;
            if there.status != 200 {
                return Err(answer.refused(target));
            }
            false
        }
        _ => answer.check(target).map(|_| true)?,
    };
    if target.revision != "main" {
        let path = format!("api/models/{}/branch/{}", target.repo, encoded(&target.revision));
        let answer = hub.post("making the branch", &path, &json!({}))?;
        if answer.status != 409 {
            answer.check(target)?;
        }
    }
    Ok(made)
}

/// The mode of a file that the hub does not want.
const IGNORED: &str = "ignored";

/// How the hub wants each file, by its name: `lfs`, `regular` or [`IGNORED`].
fn modes(hub: &Hub, target: &Target, files: &[File]) -> Result<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    struct Wish {
        path: String,
        #[serde(rename = "uploadMode")]
        mode: String,
        #[serde(rename = "shouldIgnore", default)]
        ignored: bool,
    }
    #[derive(Deserialize)]
    struct Modes {
        files: Vec<Wish>,
    }
    let path = format!("api/models/{}/preupload/{}", target.repo, encoded(&target.revision));
    let mut modes = BTreeMap::new();
    for some in files.chunks(256) {
        let described = some
            .iter()
            .map(|file| Ok(json!({"path": file.name, "sample": STANDARD.encode(file.sample()?), "size": file.size})));
        let described = described.collect::<Result<Vec<Value>>>()?;
        let answer = hub.post("describing the files", &path, &json!({"files": described}))?;
        for Wish { path, mode, ignored } in answer.check(target)?.json::<Modes>()?.files {
            modes.insert(path, if ignored { IGNORED.into() } else { mode });
        }
        let unknown = some.iter().find(|file| {
            !modes.get(&file.name).is_some_and(|mode| ["lfs", "regular", IGNORED].contains(&mode.as_str()))
        });
        if let Some(file) = unknown {
            let problem = format!("the hub does not say how it wants `{}`", file.name);
            return Err(Error::Hub { what: "describing the files".into(), problem });
        }
    }
    Ok(modes)
}

/// One commit with all files; its address.
fn commit(hub: &Hub, target: &Target, small: &[&File], large: &[Known]) -> Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Committed {
        commit_url: Option<String>,
    }
    let header = json!({"key": "header", "value": {"summary": target.message, "description": ""}});
    let mut lines = vec![header];
    for file in small {
        let content = STANDARD.encode(file.bytes()?);
        lines.push(json!({"key": "file", "value": {"content": content, "path": file.name, "encoding": "base64"}}));
    }
    for Known { file, oid } in large {
        let value = json!({"path": file.name, "algo": "sha256", "oid": oid, "size": file.size});
        lines.push(json!({"key": "lfsFile", "value": value}));
    }
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let path = format!("api/models/{}/commit/{}", target.repo, encoded(&target.revision));
    let answer = hub.post_lines("committing", &path, &body)?;
    let committed: Committed = answer.check(target)?.json()?;
    Ok(committed.commit_url.unwrap_or_else(|| hub.page(&target.repo)))
}

/// A name as one part of an address.
fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    name.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_branches() {
        for legal in ["user/model", "a/b-1.5_x"] {
            check_repo(legal).expect(legal);
        }
        for broken in ["model", "a/b/c", "a/", "a/.b", "a/b c", "../b", "a/b--c", "a/-b", "https://h/a"] {
            assert!(check_repo(broken).expect_err(broken).to_string().contains("user/flan-t5-small-rpo"));
        }
        assert_eq!((encoded("main"), encoded("refs/pr/1")), ("main".into(), "refs%2Fpr%2F1".into()));
    }
}
