//! A server in the place of a judge's: it replies, or fails, as a test says.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// What was sent to it.
#[derive(Clone, Debug)]
pub struct Received {
    /// Request line and headers.
    pub head: String,
    pub body: Value,
}

impl Received {
    /// What the judge is asked: the last message.
    pub fn asked(&self) -> &str {
        let messages = self.body["messages"].as_array().expect("messages");
        messages.last().and_then(|last| last["content"].as_str()).expect("a text")
    }
}

/// What it does.
pub enum Does {
    /// Replies so, in eleven tokens for the question and one for the reply.
    Says(String),
    /// Sends this status with these headers and this body.
    Sends(u16, &'static str, String),
    /// Sends these bytes and closes the connection.
    Breaks(Vec<u8>),
    /// Says nothing for a while.
    Waits(Duration),
}

impl Does {
    pub fn says(text: &str) -> Self {
        Self::Says(text.into())
    }

    pub fn status(status: u16, body: &str) -> Self {
        Self::Sends(status, "", body.into())
    }
}

/// A server on a port of its own, until the process ends.
pub struct StandIn {
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
    calls: Arc<AtomicUsize>,
}

impl StandIn {
    /// Starts one that does what `does` says of a call and of how many came before it, and keeps what it receives.
    pub fn start(does: impl Fn(&Received, usize) -> Does + Send + Sync + 'static) -> Self {
        Self::begin(does, true)
    }

    /// The same, and it forgets what it receives.
    pub fn forgetful(does: impl Fn(&Received, usize) -> Does + Send + Sync + 'static) -> Self {
        Self::begin(does, false)
    }

    fn begin(does: impl Fn(&Received, usize) -> Does + Send + Sync + 'static, keeps: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (received, calls) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (all, count, does) = (Arc::clone(&received), Arc::clone(&calls), Arc::new(does));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let (all, count, does) = (Arc::clone(&all), Arc::clone(&count), Arc::clone(&does));
                std::thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    let Ok(read) = stream.try_clone() else { return };
                    let mut reader = BufReader::new(read);
                    while let Some(request) = receive(&mut reader) {
                        let before = count.fetch_add(1, Ordering::SeqCst);
                        if keeps {
                            all.lock().expect("received").push(request.clone());
                        }
                        if !reply(&stream, does(&request, before)) {
                            return;
                        }
                    }
                });
            }
        });
        Self { url, received, calls }
    }

    /// How many calls came.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// All that it received.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("received").clone()
    }
}

fn receive(reader: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Received { head, body: serde_json::from_slice(&body).unwrap_or_default() })
}

/// Replies, and tells whether the connection stays open.
fn reply(mut stream: &TcpStream, does: Does) -> bool {
    let mut send = |status: u16, headers: &str, body: &str| {
        let length = body.len();
        let whole = format!("HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
        stream.write_all(whole.as_bytes()).is_ok()
    };
    match does {
        Does::Says(text) => send(200, "content-type: application/json\r\n", &completion(&text).to_string()),
        Does::Sends(status, headers, body) => send(status, headers, &body),
        Does::Breaks(bytes) => {
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Both);
            false
        }
        Does::Waits(time) => {
            std::thread::sleep(time);
            false
        }
    }
}

/// A reply as servers write it.
pub fn completion(text: &str) -> Value {
    json!({
        "id": "1", "object": "chat.completion", "model": "stand-in",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 1, "total_tokens": 12}
    })
}
