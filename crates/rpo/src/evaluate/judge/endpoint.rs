//! A judge behind an OpenAI-compatible endpoint for chat completions. The key is held here and nowhere else: it is in no name, no
//! stored request and no message, even where a server sends it back.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::Read;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use ureq::http::{HeaderMap, Uri};
use ureq::{Agent, Proxy};

use super::completion::{self, Garbage};
use super::{Fault, Judge, Question, Reply, Template, Until, excerpt};
use crate::error::{Error, Result};

/// Most bytes of a reply.
const LARGEST: u64 = 8 << 20;
/// Where the key stood in what a server said.
const HIDDEN: &str = "[key]";
/// Environment variables in which the key is looked for.
const KEYS: [&str; 2] = ["RPO_JUDGE_KEY", "OPENAI_API_KEY"];

/// How an endpoint is asked.
#[derive(Clone)]
pub struct EndpointSettings {
    /// Its address: of the server, of its `/v1`, or of `/chat/completions` itself.
    pub url: String,
    /// Which of its models judges.
    pub model: String,
    /// What it is called in the place of its address, so that replies stay known when it moves.
    pub name: Option<String>,
    /// What proves who asks, if anything.
    pub key: Option<String>,
    /// How long a reply may take.
    pub deadline: Duration,
    /// How many calls are under way together.
    pub parallel: usize,
}

/// An endpoint that judges.
pub struct Endpoint {
    agent: Agent,
    url: String,
    model: String,
    name: String,
    key: Option<String>,
    deadline: Duration,
    /// Parameters that it has refused.
    without: Mutex<BTreeSet<&'static str>>,
    /// Whether it has ever replied.
    replied: AtomicBool,
}

/// The key of the `number`th of several addresses, from 1, from the environment: `RPO_JUDGE_KEY_1` and so on, else
/// `RPO_JUDGE_KEY`, else `OPENAI_API_KEY` for OpenAI's own server or where there is `one` server alone.
///
/// # Errors
/// If it cannot stand in a header; the message names the variable alone.
pub fn key_of_environment(number: usize, url: &str, one: bool) -> Result<Option<String>> {
    let own = format!("{}_{number}", KEYS[0]);
    let theirs = one || url.contains("://api.openai.com/");
    for name in [own.as_str(), KEYS[0]].into_iter().chain(theirs.then_some(KEYS[1])) {
        let Some(value) = std::env::var_os(name) else { continue };
        let key = value.to_str().map(str::trim).filter(|key| key.chars().all(|c| c.is_ascii_graphic()));
        match key {
            None => return Err(Error::Data(format!("{name}: what is in it is no key, for a header cannot hold it"))),
            Some("") => {}
            Some(key) => return Ok(Some(key.into())),
        }
    }
    Ok(None)
}

/// A text without the keys of the environment.
pub(super) fn hidden(mut text: String) -> String {
    for (name, key) in std::env::vars() {
        if key.len() >= 8 && KEYS.iter().any(|known| name.starts_with(known)) {
            text = text.replace(&key, "…");
        }
    }
    text
}

impl Endpoint {
    /// The endpoint that the settings name; nothing is sent yet.
    ///
    /// # Errors
    /// If the address is none, or holds a password.
    pub fn new(settings: EndpointSettings) -> Result<Self> {
        let EndpointSettings { url, model, name, key, deadline, parallel } = settings;
        let refuse = |problem: &str| Err(Error::Setting { field: "judge-url", problem: problem.into() });
        // What is wrong is said without what stands there, which may hold a secret.
        let Ok(parsed) = url.trim().parse::<Uri>() else {
            return refuse("it is no address, such as http://127.0.0.1:8000/v1");
        };
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (parsed.scheme_str(), parsed.authority()) else {
            return refuse("it is no address that begins with http:// or https://");
        };
        if authority.as_str().contains('@') {
            return refuse("it holds a password; a key is given by the environment variable RPO_JUDGE_KEY");
        }
        let path = parsed.path().trim_end_matches('/');
        let path = match path {
            "" => "/v1/chat/completions".to_string(),
            path if path.ends_with("/chat/completions") => path.to_string(),
            path => format!("{path}/chat/completions"),
        };
        let shown = format!("{scheme}://{authority}{path}");
        let url = parsed.query().map_or_else(|| shown.clone(), |query| format!("{shown}?{query}"));
        if model.trim().is_empty() {
            return Err(Error::Setting { field: "judge-model", problem: "it is empty".into() });
        }
        let host = parsed.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let agent = Agent::config_builder()
            // No proxy reaches this machine's own servers.
            .proxy(Proxy::try_from_env().filter(|_| !is_here))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(deadline))
            .max_idle_connections(parallel)
            .max_idle_connections_per_host(parallel)
            .user_agent(concat!("rpo/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let name = format!("{model} at {}", name.as_deref().unwrap_or(&shown));
        let (without, replied) = (Mutex::default(), AtomicBool::new(false));
        Ok(Self { agent, url, model, name, key, deadline, without, replied })
    }

    fn refused(&self) -> BTreeSet<&'static str> {
        self.without.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does without a parameter that the server's complaint is about, if there is one that was sent.
    fn adjusts(&self, said: &str, sent: &Value) -> bool {
        let said = said.to_lowercase();
        let about = |words: &[&str]| words.iter().any(|word| said.contains(word));
        let has_system = sent["messages"].as_array().is_some_and(|all| all.len() > 1);
        let refused = match () {
            () if sent.get("response_format").is_some()
                && about(&["response_format", "json_schema", "json_object"]) =>
            {
                "response_format"
            }
            () if sent.get("logprobs").is_some() && about(&["logprobs"]) => "logprobs",
            () if sent.get("max_tokens").is_some()
                && about(&["max_tokens", "max_completion_tokens"])
                && about(&["unsupported", "not supported", "unknown", "use 'max_completion_tokens'"]) =>
            {
                "max_tokens"
            }
            () if sent.get("temperature").is_some() && about(&["temperature"]) => "temperature",
            () if has_system && about(&["system role", "system message", "roles must alternate"]) => "system",
            () => return false,
        };
        self.without.lock().unwrap_or_else(PoisonError::into_inner).insert(refused);
        true
    }

    /// What a server said, without the key.
    fn hide(&self, said: &str) -> String {
        // A key that is shorter is none that needs to be hidden, and may be any word.
        match &self.key {
            Some(key) if key.len() >= 6 && said.contains(key.as_str()) => said.replace(key.as_str(), HIDDEN),
            _ => said.into(),
        }
    }

    /// What is to be done about a reply with this status.
    fn understand(&self, got: &Got, sent: &Value) -> std::result::Result<Reply, Fault> {
        let body = self.hide(&String::from_utf8_lossy(&got.body));
        let status = got.status;
        let mut problem = format!("HTTP {status}");
        if !body.trim().is_empty() {
            let _ = write!(problem, ", which says: {}", excerpt(&body));
        }
        let passing = |wait| Err(Fault::Passing { problem: problem.clone(), wait });
        match status {
            _ if got.too_large => Err(Fault::Question(format!("a reply of more than {} MiB", LARGEST >> 20))),
            200..=299 => self.completed(body),
            300..=399 => Err(Fault::Fatal(format!(
                "{problem}; it points to {}, give that address if you trust it",
                got.location
            ))),
            400 | 422 | 500 if self.adjusts(&body, sent) => Err(Fault::Adjusted),
            401 | 403 => {
                let what = if self.key.is_some() { "the key was refused" } else { "it wants a key" };
                Err(Fault::Fatal(format!("{problem}; {what} (set {} or {})", KEYS[0], KEYS[1])))
            }
            404 | 405 => Err(Fault::Fatal(format!("{problem}; is the address right, and is there such a model?"))),
            408 | 409 | 425 | 429 | 500..=599 => passing(got.wait),
            _ => Err(Fault::Question(problem)),
        }
    }

    fn completed(&self, body: String) -> std::result::Result<Reply, Fault> {
        match completion::read(&body) {
            Ok(found) => {
                self.replied.store(true, Ordering::Relaxed);
                let completion::Completion { text, usage, tokens } = found;
                Ok(Reply { raw: body, text, usage, tokens, without: Vec::new() })
            }
            Err(Garbage::Html) => {
                let problem = format!("a page of HTML instead of JSON: {}", excerpt(&body));
                match self.replied.load(Ordering::Relaxed) {
                    true => Err(Fault::Passing { problem, wait: None }),
                    false => Err(Fault::Fatal(format!("{problem}; is the address right?"))),
                }
            }
            Err(Garbage::Error(said, code @ (None | Some(408 | 409 | 425 | 429 | 500..=599)))) => {
                let code = code.map_or(String::new(), |code| format!(" {code}"));
                Err(Fault::Passing { problem: format!("an error{code} instead of a reply: {said}"), wait: None })
            }
            Err(Garbage::Error(said, Some(code))) => {
                Err(Fault::Question(format!("an error {code} instead of a reply: {said}")))
            }
            Err(Garbage::Other(what)) => {
                Err(Fault::Passing { problem: format!("a reply that cannot be read: {what}"), wait: None })
            }
        }
    }

    /// What is to be done about a call that brought nothing.
    fn failed(&self, problem: &ureq::Error) -> Fault {
        use ureq::Error as E;
        let said = match problem {
            E::Timeout(_) => format!("no reply within {} s", self.deadline.as_secs_f64()),
            E::HostNotFound => return Fault::Fatal("there is no such host".into()),
            E::Rustls(_) | E::Tls(_) | E::TlsRequired | E::BadUri(_) | E::Http(_) | E::InvalidProxyUrl => {
                return Fault::Fatal(self.hide(&problem.to_string()));
            }
            E::Io(e) => match e.kind() {
                std::io::ErrorKind::ConnectionRefused => "the connection was refused; is the server running?".into(),
                std::io::ErrorKind::UnexpectedEof => "the connection was closed before the end of the reply".into(),
                _ => format!("the connection failed: {e}"),
            },
            other => format!("the connection failed: {other}"),
        };
        Fault::Passing { problem: self.hide(&said), wait: None }
    }
}

impl Judge for Endpoint {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "an endpoint"
    }

    fn request(&self, question: &Question, template: &Template) -> Value {
        let message = |role: &str, text: &str| json!({"role": role, "content": text});
        let system = question.system.as_deref().map(|text| message("system", text));
        let messages: Vec<Value> = system.into_iter().chain([message("user", &question.user)]).collect();
        let mut request = json!({
            "model": self.model, "messages": messages, "max_tokens": template.max_tokens,
            "temperature": template.temperature, "stream": false
        });
        if let Some(wanted) = template.logprobs {
            request["logprobs"] = true.into();
            request["top_logprobs"] = wanted.into();
        }
        if let Some(format) = template.response_format.as_ref().and_then(|format| serde_json::to_value(format).ok()) {
            request["response_format"] = format;
        }
        request
    }

    fn ask(&self, question: &Question, template: &Template, until: Until<'_>) -> std::result::Result<Reply, Fault> {
        let without = self.refused();
        let sent = body(&self.request(question, template), &without);
        let (sender, receiver) = mpsc::channel();
        // A call cannot be broken off, so it has a thread of its own, which is left alone if it is not to be waited for.
        let (agent, url, key, body) = (self.agent.clone(), self.url.clone(), self.key.clone(), sent.to_string());
        let call = std::thread::Builder::new().name("judge".into());
        let started = call.spawn(move || sender.send(exchange(&agent, &url, key.as_deref(), body)));
        started.map_err(|e| Fault::Fatal(format!("no thread can be started: {e}")))?;
        let got = until.receive(&receiver).ok_or(Fault::Stopped)?.map_err(|e| self.failed(&e))?;
        let reply = self.understand(&got, &sent)?;
        Ok(Reply { without: without.into_iter().collect(), ..reply })
    }
}

/// What is sent: `wished` but for what the server refuses.
fn body(wished: &Value, without: &BTreeSet<&'static str>) -> Value {
    let mut sent = wished.clone();
    let Some(fields) = sent.as_object_mut() else { return sent };
    for name in without {
        match *name {
            // Told apart from the question, as a text above it.
            "system" => {
                let said = fields.get("messages").and_then(Value::as_array).into_iter().flatten();
                let texts: Vec<&str> = said.filter_map(|message| message["content"].as_str()).collect();
                let whole = texts.join("\n\n");
                fields.insert("messages".into(), json!([{"role": "user", "content": whole}]));
            }
            "max_tokens" => {
                fields.remove("max_tokens").map(|limit| fields.insert("max_completion_tokens".into(), limit));
            }
            "logprobs" => {
                fields.remove("logprobs");
                fields.remove("top_logprobs");
            }
            name => _ = fields.remove(name),
        }
    }
    sent
}

/// What came back.
struct Got {
    status: u16,
    /// How long to wait, as it says.
    wait: Option<Duration>,
    /// Where it points to, if anywhere.
    location: String,
    body: Vec<u8>,
    too_large: bool,
}

fn exchange(agent: &Agent, url: &str, key: Option<&str>, body: String) -> std::result::Result<Got, ureq::Error> {
    let mut request = agent.post(url).header("content-type", "application/json").header("accept", "application/json");
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let mut response = request.send(body)?;
    let header =
        |headers: &HeaderMap, name: &str| headers.get(name).and_then(|it| it.to_str().ok()).map(str::to_string);
    let status = response.status().as_u16();
    let wait = header(response.headers(), "retry-after").and_then(|text| wait_of(&text, Utc::now()));
    let location = header(response.headers(), "location").unwrap_or_default();
    let streams = header(response.headers(), "content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    let mut reader = response.body_mut().as_reader().take(LARGEST + 1);
    let (mut body, mut piece) = (Vec::new(), [0; 1 << 14]);
    loop {
        let n = reader.read(&mut piece).map_err(ureq::Error::from)?;
        body.extend_from_slice(&piece[..n]);
        // A stream says when it is over, and the server may leave it open.
        let tail = &body[body.len().saturating_sub(n + 16)..];
        if n == 0 || (streams && tail.windows(12).any(|bytes| bytes == b"data: [DONE]")) {
            break;
        }
    }
    let too_large = body.len() as u64 > LARGEST;
    Ok(Got { status, wait, location, body, too_large })
}

/// How long a `Retry-After` of seconds or of a date wants one to wait at the time `now`.
fn wait_of(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    match text.trim().parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => {
            let date = DateTime::parse_from_rfc2822(text.trim()).ok()?;
            Some((date.to_utc() - now).to_std().unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Result<Endpoint> {
        Endpoint::new(EndpointSettings {
            url: url.into(),
            model: "m".into(),
            name: None,
            key: Some("sk-verysecret".into()),
            deadline: Duration::from_secs(1),
            parallel: 2,
        })
    }

    #[test]
    fn an_address_is_completed_and_its_query_is_not_told() {
        for (given, whole) in [
            ("http://h:1", "http://h:1/v1/chat/completions"),
            ("https://h/v1/", "https://h/v1/chat/completions"),
            ("http://h/api/v3", "http://h/api/v3/chat/completions"),
            ("http://h/x/chat/completions", "http://h/x/chat/completions"),
        ] {
            let endpoint = endpoint(given).expect(given);
            assert_eq!((endpoint.url.as_str(), endpoint.name()), (whole, format!("m at {whole}").as_str()));
        }
        let with_query = endpoint("http://h/v1?api-version=2&secret=s").expect("valid");
        assert_eq!(with_query.url, "http://h/v1/chat/completions?api-version=2&secret=s");
        assert!(!with_query.name().contains("secret"));
        for (bad, complaint) in [
            ("h:1/v1", "http://"),
            ("ftp://h", "http://"),
            ("http://user:word@h/v1", "password"),
            ("", "no address"),
            ("http://a b", "no address"),
        ] {
            let said = endpoint(bad).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(said.contains(complaint) && !said.contains("word@"), "{bad}: {said}");
        }
    }

    #[test]
    fn a_wait_is_of_seconds_or_until_a_date() {
        let now = DateTime::parse_from_rfc2822("Wed, 21 Oct 2015 07:28:00 GMT").expect("a date").to_utc();
        assert_eq!(wait_of("2.5", now), Some(Duration::from_millis(2500)));
        assert_eq!(wait_of("Wed, 21 Oct 2015 07:28:30 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(wait_of("Wed, 21 Oct 2015 07:27:30 GMT", now), Some(Duration::ZERO));
        assert_eq!([wait_of("-1", now), wait_of("soon", now), wait_of("1e300", now)], [None; 3]);
    }

    #[test]
    fn what_a_server_refuses_is_left_out() {
        let endpoint = endpoint("http://h").expect("valid");
        let template = Template::named("alpacaeval-like").expect("built in");
        let case = super::super::Case::Pair { prompt: "p".into(), first: "x".into(), second: "y".into() };
        let question = template.fill(case).expect("a question");
        let wished = endpoint.request(&question, &template);
        let sent = body(&wished, &endpoint.refused());
        assert_eq!((&sent, sent["messages"].as_array().map(Vec::len)), (&wished, Some(2)));
        assert!(!endpoint.adjusts("temperature of the cooling water: response_format", &json!({"messages": []})));
        for said in ["`top_logprobs` is unknown", "Unsupported parameter: 'max_tokens'", "System role not supported"] {
            let sent = body(&wished, &endpoint.refused());
            assert!(endpoint.adjusts(said, &sent), "{said}");
        }
        let sent = body(&wished, &endpoint.refused());
        assert_eq!([sent.get("logprobs"), sent.get("top_logprobs"), sent.get("max_tokens")], [None; 3]);
        assert_eq!(sent["max_completion_tokens"], wished["max_tokens"]);
        let merged = sent["messages"][0]["content"].as_str().expect("a text");
        assert!(merged.contains("careful human") && merged.contains("<instruction>\np\n"), "{merged}");
        assert_eq!(sent["messages"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn a_key_that_comes_back_is_hidden() {
        let endpoint = endpoint("http://h").expect("valid");
        let body = b"{\"error\":{\"message\":\"bad key sk-verysecret\"}}".to_vec();
        let got = Got { status: 401, wait: None, location: String::new(), body, too_large: false };
        let Err(Fault::Fatal(said)) = endpoint.understand(&got, &json!({})) else { panic!("fatal") };
        assert!(said.contains("HTTP 401") && said.contains("bad key [key]") && said.contains("refused"), "{said}");
    }
}
