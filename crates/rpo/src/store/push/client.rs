//! Requests to the hub: with the token, again where that may help, and with refusals in plain words.

use std::io::{self, Read};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body, SendBody};

use super::Target;
use crate::error::{Error, Result};
use crate::store::hub;

/// How often something is tried.
const TRIES: u32 = 5;
/// The largest answer that is read.
const LARGEST: u64 = 16 << 20;

/// The hub, with whose token it is asked.
#[derive(Clone)]
pub struct Hub {
    endpoint: String,
    token: String,
    agent: Agent,
    /// Before the second try; doubled before each further one.
    pause: Duration,
}

/// What the hub answered.
#[derive(Debug)]
pub(super) struct Answer {
    what: String,
    pub status: u16,
    body: String,
}

impl Hub {
    /// The hub at `HF_ENDPOINT`, huggingface.co if it is not set, asked with the token of `HF_TOKEN` or of a login.
    ///
    /// # Errors
    /// If there is no token, or `HF_HUB_OFFLINE` forbids to ask.
    pub fn of_environment() -> Result<Self> {
        let endpoint = hub::endpoint();
        let refuse = |problem: &str| Err(Error::Hub { what: endpoint.clone(), problem: problem.into() });
        if hub::is_offline() {
            return refuse("HF_HUB_OFFLINE is set, and so nothing is sent");
        }
        let Some(token) = hub::token().map(|token| token.trim().to_string()).filter(|token| !token.is_empty()) else {
            return refuse(
                "there is no token: set HF_TOKEN to one that may write (the hub's settings make them), or log in with `hf auth \
                 login`",
            );
        };
        if token.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return refuse("the token holds blanks or control characters; check HF_TOKEN or log in again");
        }
        Ok(Self { endpoint, token, agent: agent(), pause: Duration::from_millis(500) })
    }

    /// The page of a repository.
    pub fn page(&self, repo: &str) -> String {
        format!("{}/{repo}", self.endpoint)
    }

    /// Where an address points that the hub gave, which may leave out the hub.
    pub(super) fn address(&self, href: &str) -> String {
        if href.starts_with('/') { format!("{}{href}", self.endpoint) } else { href.into() }
    }

    fn authorization(&self) -> String {
        format!("Bearer {}", self.token)
    }

    pub(super) fn get(&self, what: &str, path: &str) -> Result<Answer> {
        let url = format!("{}/{path}", self.endpoint);
        self.again(what, &url, || self.agent.get(&url).header("authorization", self.authorization()).call())
    }

    pub(super) fn post(&self, what: &str, path: &str, body: &Value) -> Result<Answer> {
        self.post_as(what, &format!("{}/{path}", self.endpoint), "application/json", true, &body.to_string())
    }

    /// One JSON object a line.
    pub(super) fn post_lines(&self, what: &str, path: &str, body: &str) -> Result<Answer> {
        self.post_as(what, &format!("{}/{path}", self.endpoint), "application/x-ndjson", true, body)
    }

    /// To Git LFS, at an address that the hub gave or that is its own; the hub alone is told the token.
    pub(super) fn post_lfs(&self, what: &str, url: &str, body: &Value) -> Result<Answer> {
        let is_hub = url.starts_with(&format!("{}/", self.endpoint));
        self.post_as(what, url, "application/vnd.git-lfs+json", is_hub, &body.to_string())
    }

    /// To where the parts of a file are put together, which the hub signed and which is not told the token.
    pub(super) fn post_signed(&self, what: &str, url: &str, body: &Value) -> Result<Answer> {
        self.post_as(what, url, "application/vnd.git-lfs+json", false, &body.to_string())
    }

    fn post_as(&self, what: &str, url: &str, kind: &str, is_hub: bool, body: &str) -> Result<Answer> {
        self.again(what, url, || {
            let request = self.agent.post(url).header("content-type", kind).header("accept", accepted(kind));
            let request = if is_hub { request.header("authorization", self.authorization()) } else { request };
            request.send(body)
        })
    }

    /// Sends bytes to where the hub wants them; they are opened anew at each try. The answer comes with its `etag`.
    pub(super) fn put<R: Read>(
        &self,
        what: &str,
        url: &str,
        length: u64,
        open: &mut dyn FnMut() -> io::Result<R>,
    ) -> Result<(Answer, Option<String>)> {
        let mut etag = None;
        let answer = self.again(what, url, || {
            let mut reader = open()?;
            let request = self.agent.put(url).header("content-length", length.to_string());
            let response = request.send(SendBody::from_reader(&mut reader))?;
            etag = response.headers().get("etag").and_then(|etag| etag.to_str().ok()).map(ToString::to_string);
            Ok(response)
        })?;
        Ok((answer, etag))
    }

    /// Tries until there is an answer that another try would not change.
    fn again(
        &self,
        what: &str,
        url: &str,
        mut attempt: impl FnMut() -> std::result::Result<Response<Body>, ureq::Error>,
    ) -> Result<Answer> {
        // An address that the hub signed is a key of its own: what follows the question mark is not told.
        let shown = url.split('?').next().unwrap_or(url);
        let failed = |problem: &ureq::Error| Error::Hub { what: format!("{what} ({shown})"), problem: told(problem) };
        let mut pause = self.pause;
        let mut tries = 1;
        loop {
            let (problem, wait) = match attempt() {
                Ok(mut response) => {
                    let status = response.status().as_u16();
                    let wait = retry_after(response.headers());
                    let body = response.body_mut().with_config().limit(LARGEST).read_to_string();
                    match body {
                        Ok(body) if !may_pass(status) || tries == TRIES => {
                            return Ok(Answer { what: format!("{what} ({shown})"), status, body });
                        }
                        Ok(_) => (format!("status {status}"), wait),
                        Err(problem) if tries == TRIES => return Err(failed(&problem)),
                        Err(problem) => (told(&problem), wait),
                    }
                }
                Err(problem) if tries == TRIES || !is_passing(&problem) => return Err(failed(&problem)),
                Err(problem) => (told(&problem), None),
            };
            tracing::info!("{what}: {problem}; try {} of {TRIES} follows", tries + 1);
            std::thread::sleep(wait.unwrap_or(pause).min(Duration::from_mins(1)));
            pause *= 2;
            tries += 1;
        }
    }
}

fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(concat!("rpo/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_mins(3)))
        .timeout_recv_body(Some(Duration::from_mins(3)))
        .build();
    config.new_agent()
}

fn accepted(kind: &str) -> &str {
    if kind.contains("lfs") { kind } else { "application/json" }
}

/// Whether a status may be another at the next try.
fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

fn is_passing(problem: &ureq::Error) -> bool {
    use ureq::Error as E;
    match problem {
        // Of the file, not of the network.
        E::Io(e) => !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied),
        problem => matches!(problem, E::Timeout(_) | E::ConnectionFailed | E::Protocol(_)),
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get("retry-after")?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// What went wrong on the way.
fn told(problem: &ureq::Error) -> String {
    use ureq::Error as E;
    match problem {
        E::HostNotFound => "there is no such host; check HF_ENDPOINT and the network".into(),
        E::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            "nobody answers there; check HF_ENDPOINT and the network".into()
        }
        E::Timeout(_) => "no answer in time".into(),
        problem => problem.to_string(),
    }
}

impl Answer {
    /// The answer, if it is that all is well.
    ///
    /// # Errors
    /// If it is not.
    pub fn check(self, target: &Target) -> Result<Self> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(self.refused(target)) }
    }

    /// Why it was refused, and what to do.
    pub fn refused(&self, target: &Target) -> Error {
        let Target { repo, revision, .. } = target;
        let said = said(&self.body);
        let full = ["storage", "quota", "space left"].iter().any(|word| said.to_lowercase().contains(word));
        let what_to_do = match self.status {
            _ if full => "there is no room for it: free some, or send less with --exclude".to_string(),
            401 => "the hub does not know the token: check HF_TOKEN, or log in with `hf auth login`".into(),
            403 => format!("the token may not write to {repo}: make one with the right to write there"),
            404 => format!("there is no {repo} with a branch {revision}, or the token may not see it"),
            409 | 412 => "somebody else changed the repository meanwhile: the same command again goes on".into(),
            413 => "it is too large for this hub".into(),
            429 => "the hub wants fewer requests: the same command goes on later".into(),
            500.. => "the hub failed repeatedly: the same command goes on later".into(),
            _ => "the hub refuses it".into(),
        };
        let said = if said.is_empty() { String::new() } else { format!("; it says: {said}") };
        Error::Hub { what: self.what.clone(), problem: format!("status {}: {what_to_do}{said}", self.status) }
    }

    /// What the body says.
    ///
    /// # Errors
    /// If it is not what the hub answers.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        let problem = |e| format!("the answer is not that of a hub ({e}): {}; check HF_ENDPOINT", said(&self.body));
        serde_json::from_str(&self.body).map_err(|e| Error::Hub { what: self.what.clone(), problem: problem(e) })
    }
}

/// The message in a body: its `error` or `message`, or its beginning.
fn said(body: &str) -> String {
    let message = serde_json::from_str::<Value>(body).ok().and_then(|value| {
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(ToString::to_string);
        text("error").or_else(|| text("message"))
    });
    let message = message.unwrap_or_else(|| body.to_string());
    let line: String = message.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_do() {
        let target = Target { repo: "a/b".into(), revision: "main".into(), private: false, message: String::new() };
        let refused = |status: u16, body: &str| {
            let answer = Answer { what: "committing (http://h/x)".into(), status, body: body.into() };
            answer.check(&target).expect_err("refused").to_string()
        };
        assert!(refused(401, r#"{"error":"Invalid token"}"#).contains("HF_TOKEN"));
        assert!(refused(401, r#"{"error":"Invalid token"}"#).ends_with("it says: Invalid token"));
        assert!(refused(403, "").contains("may not write to a/b"));
        assert!(refused(400, r#"{"error":"Private storage limit reached"}"#).contains("no room"));
        assert!(refused(409, "").contains("meanwhile"));
        assert!(refused(503, "<html>\n<b>down</b></html>").ends_with("it says: <html> <b>down</b></html>"));
        let html = Answer { what: "x".into(), status: 200, body: "<html>".into() };
        assert!(html.json::<Value>().expect_err("no JSON").to_string().contains("check HF_ENDPOINT"));
    }
}
