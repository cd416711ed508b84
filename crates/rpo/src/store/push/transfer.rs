//! Large files: Git LFS's batch says which of them the hub lacks and where they go, in one piece (`basic`) or in parts.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, Read};

use serde::Deserialize;
use serde_json::json;

use super::client::Hub;
use super::{Event, Known, Target};
use crate::error::{Error, Result};

/// What the hub says of one object.
#[derive(Deserialize)]
struct Object {
    oid: String,
    #[serde(default)]
    actions: Option<Actions>,
    #[serde(default)]
    error: Option<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Actions {
    #[serde(default)]
    upload: Option<Action>,
    #[serde(default)]
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Batch {
    objects: Vec<Object>,
}

/// Sends the files that the hub lacks; how many were sent, and of how many it had the content.
pub(super) fn send(hub: &Hub, target: &Target, files: &[Known], tell: &mut dyn FnMut(Event)) -> Result<(usize, usize)> {
    let url = format!("{}.git/info/lfs/objects/batch", hub.page(&target.repo));
    let mut wanted: BTreeMap<String, Actions> = BTreeMap::new();
    for some in files.chunks(256) {
        let objects: Vec<_> = some.iter().map(|known| json!({"oid": known.oid, "size": known.file.size})).collect();
        let asked = json!({
            "operation": "upload", "transfers": ["basic", "multipart"], "objects": objects, "hash_algo": "sha256",
            "ref": {"name": target.revision},
        });
        let answer = hub.post_lfs("asking which files the hub has", &url, &asked)?.check(target)?;
        for object in answer.json::<Batch>()?.objects {
            let name = || files.iter().find(|known| known.oid == object.oid).map_or("?", |known| &known.file.name);
            if let Some(Fault { code, message }) = &object.error {
                let problem = format!("the hub does not take it (status {code}): {message}");
                return Err(Error::Hub { what: name().into(), problem });
            }
            if let Some(actions) = object.actions.filter(|actions| actions.upload.is_some()) {
                wanted.insert(object.oid, actions);
            }
        }
    }
    // Two files of one content are sent once.
    let mut lacking: Vec<&Known> = files.iter().filter(|known| wanted.contains_key(&known.oid)).collect();
    lacking.sort_by(|a, b| a.oid.cmp(&b.oid));
    lacking.dedup_by(|a, b| a.oid == b.oid);
    let (bytes, present) = (lacking.iter().map(|known| known.file.size).sum(), files.len() - lacking.len());
    tell(Event::Sending { bytes, present });
    for known in &lacking {
        let Some(Actions { upload: Some(upload), verify }) = wanted.get(&known.oid) else { continue };
        match upload.header.get("chunk_size") {
            Some(size) => in_parts(hub, target, known, upload, size, tell)?,
            None => {
                put(hub, target, known, &hub.address(&upload.href), 0..known.file.size, tell)?;
            }
        }
        if let Some(verify) = verify {
            let body = json!({"oid": known.oid, "size": known.file.size});
            let what = format!("verifying {}", known.file.name);
            hub.post_lfs(&what, &hub.address(&verify.href), &body)?.check(target)?;
        }
    }
    Ok((lacking.len(), present))
}

/// Sends a file in parts of `chunk_size` bytes, each to an address of its own under its number, and names them at the end.
fn in_parts(
    hub: &Hub,
    target: &Target,
    known: &Known,
    upload: &Action,
    chunk_size: &serde_json::Value,
    tell: &mut dyn FnMut(Event),
) -> Result<()> {
    let odd = |problem: &str| Error::Hub { what: known.file.name.clone(), problem: problem.into() };
    let size = chunk_size.as_u64().or_else(|| chunk_size.as_str()?.parse().ok()).filter(|size| *size > 0);
    let size = size.ok_or_else(|| odd("the hub names no size of its parts"))?;
    let numbered = upload.header.iter().filter_map(|(name, url)| Some((name.parse::<u64>().ok()?, url.as_str()?)));
    let urls: BTreeMap<u64, &str> = numbered.collect();
    if urls.len() as u64 != known.file.size.div_ceil(size) {
        return Err(odd("the hub names another number of parts than its size makes"));
    }
    let mut parts = Vec::new();
    for (i, url) in urls.values().enumerate() {
        let start = i as u64 * size;
        let range = start..(start + size).min(known.file.size);
        let etag = put(hub, target, known, &hub.address(url), range, tell)?;
        let etag = etag.ok_or_else(|| odd("the hub did not say what it took a part for (no etag)"))?;
        parts.push(json!({"partNumber": i + 1, "etag": etag}));
    }
    let what = format!("putting the parts of {} together", known.file.name);
    hub.post_signed(&what, &hub.address(&upload.href), &json!({"oid": known.oid, "parts": parts}))?.check(target)?;
    Ok(())
}

/// Sends these bytes of a file; the `etag` of the answer.
fn put(
    hub: &Hub,
    target: &Target,
    known: &Known,
    url: &str,
    range: std::ops::Range<u64>,
    tell: &mut dyn FnMut(Event),
) -> Result<Option<String>> {
    let length = range.end - range.start;
    // What was told of an attempt is taken back before the next.
    let (told, tell) = (&Cell::new(0), &RefCell::new(tell));
    let mut open = || {
        if told.get() > 0 {
            (tell.borrow_mut())(Event::Unsent(told.take()));
        }
        let heard = move |bytes: u64| {
            told.set(told.get() + bytes);
            (tell.borrow_mut())(Event::Sent(bytes));
        };
        Ok(Heard { reader: known.file.from(range.start)?.take(length), heard })
    };
    let (answer, etag) = hub.put(&format!("sending {}", known.file.name), url, length, &mut open)?;
    answer.check(target)?;
    Ok(etag)
}

/// A reader that tells how much was read.
struct Heard<R, F> {
    reader: R,
    heard: F,
}

impl<R: Read, F: Fn(u64)> Read for Heard<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        (self.heard)(n as u64);
        Ok(n)
    }
}
