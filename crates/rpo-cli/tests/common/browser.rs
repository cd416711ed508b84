//! A headless Chromium that tests look at pages with, by the DevTools protocol over a pipe: nothing is needed but the browser
//! itself. Where there is none, tests say that they are skipped.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

/// Longer than anything takes here, also beside other work.
const PATIENCE: Duration = Duration::from_mins(1);

/// A browser with one tab.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Json>,
    /// Number of the last message.
    id: u64,
    session: Option<String>,
    /// What must not happen: errors on the console, exceptions, and requests for anything but the page.
    problems: Vec<String>,
    _profile: tempfile::TempDir,
}

/// What a page is looked at with.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// CSS pixels.
    pub width: u32,
    /// Whether the user prefers dark colours.
    pub dark: bool,
}

/// What the page must look right on.
pub const SCREENS: [Screen; 4] = [
    Screen { width: 1280, dark: false },
    Screen { width: 1280, dark: true },
    Screen { width: 400, dark: false },
    Screen { width: 400, dark: true },
];

/// What `CHROMIUM` names, nothing if that is empty, else what is installed.
fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("CHROMIUM") {
        return (!named.is_empty()).then(|| named.into());
    }
    let path = std::env::var_os("PATH")?;
    let named = |name| std::env::split_paths(&path).map(move |dir| dir.join(name)).find(|program| program.is_file());
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(named)
}

impl Browser {
    /// `None`, and a line on the standard error, where no browser is installed.
    pub fn start() -> Option<Self> {
        let Some(program) = program() else {
            eprintln!("skipped: no Chromium is installed, nor named by CHROMIUM; the page was not looked at");
            return None;
        };
        let profile = tempfile::tempdir().expect("temporary directory");
        // Chromium reads messages from descriptor 3 and writes to 4. Its sandbox does not work in many containers, nor for
        // root; the pages are our own.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1"])
            .arg(program)
            .args(["--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--hide-scrollbars",
                "--force-color-profile=srgb",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let to = child.stdin.take().expect("piped");
        let messages = BufReader::new(child.stdout.take().expect("piped")).split(0);
        let (send, from) = channel();
        std::thread::spawn(move || {
            for message in messages.map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { break };
                if send.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self { child, to, from, id: 0, session: None, problems: Vec::new(), _profile: profile };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        browser.session = browser.call("Target.attachToTarget", &attach)["sessionId"].as_str().map(str::to_string);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        Some(browser)
    }

    /// Sends a message and waits for its answer.
    pub fn call(&mut self, method: &str, parameters: &Json) -> Json {
        self.id += 1;
        let mut message = json!({"id": self.id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).expect("the browser listens");
        loop {
            let mut answer = self.from.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{method}: no answer"));
            if answer["id"] == self.id {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].take();
            }
            self.hear(&answer);
        }
    }

    fn hear(&mut self, event: &Json) {
        let said = &event["params"];
        let problem = match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => said["exceptionDetails"].to_string(),
            "Runtime.consoleAPICalled" if said["type"] == "error" || said["type"] == "assert" => {
                said["args"].to_string()
            }
            "Log.entryAdded" if said["entry"]["level"] == "error" => said["entry"].to_string(),
            "Network.requestWillBeSent" => match said["request"]["url"].as_str().unwrap_or_default() {
                url if url.starts_with("file:") || url.starts_with("blob:") || url == "about:blank" => return,
                url => format!("asked for {url}"),
            },
            _ => return,
        };
        self.problems.push(problem);
    }

    /// Loads a page, whose part after `#` may be empty, and waits for it.
    pub fn open(&mut self, page: &Path, fragment: &str, screen: Screen) {
        let scheme = if screen.dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", &features);
        let size = json!({"width": screen.width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &size);
        // Elsewhere first, or a change of the part after # would load nothing.
        self.call("Page.navigate", &json!({"url": "about:blank"}));
        self.call("Page.navigate", &json!({"url": format!("file://{}{fragment}", page.display())}));
        self.wait("location.protocol === 'file:' && document.readyState === 'complete'");
    }

    /// The value of an expression in the page, or of the promise that it is.
    pub fn eval(&mut self, expression: &str) -> Json {
        let parameters =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true});
        let mut answer = self.call("Runtime.evaluate", &parameters);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].take()
    }

    /// The text of an expression.
    pub fn text(&mut self, expression: &str) -> String {
        let value = self.eval(expression);
        value.as_str().map_or_else(|| value.to_string(), str::to_string)
    }

    /// Waits until a condition holds.
    pub fn wait(&mut self, condition: &str) {
        let begun = Instant::now();
        while self.eval(condition) != true {
            assert!(begun.elapsed() < PATIENCE, "never: {condition}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses a key, by its name in `KeyboardEvent.key`.
    pub fn press(&mut self, key: &str) {
        let text = if key.chars().count() == 1 { key } else { "" };
        let code = if key == "Tab" { 9 } else { 0 };
        let down = json!({"type": "keyDown", "key": key, "text": text, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", &down);
        self.call("Input.dispatchKeyEvent", &json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code}));
    }

    /// What has happened that must not, since the last time.
    pub fn problems(&mut self) -> Vec<String> {
        // What was said before is heard with the answer.
        self.eval("0");
        std::mem::take(&mut self.problems)
    }

    /// How far the page reaches beyond its window sideways, in CSS pixels, and what does.
    pub fn overflow(&mut self) -> (f64, String) {
        let wide = self.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth");
        let who = self.text(
            "[...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && \
             !e.closest('.scroll') && !e.closest('.heard')).map((e) => e.tagName + '.' + e.className).join(' ')",
        );
        (wide.as_f64().unwrap_or(f64::NAN), who)
    }

    /// Texts whose contrast is less than WCAG's AA asks for, 4.5, with what it is.
    pub fn faint(&mut self) -> Vec<String> {
        let faint = self.eval(FAINT);
        faint.as_array().into_iter().flatten().map(ToString::to_string).collect()
    }

    /// Saves a picture of the whole page, or of what `within` selects.
    pub fn picture(&mut self, path: &Path, within: &str) {
        let rect = self.eval(&format!(
            "(() => {{ const b = document.querySelector({within:?}).getBoundingClientRect();
             return {{x: 0, y: b.top + scrollY, width: innerWidth, height: Math.min(b.height, 4000), scale: 1}} }})()"
        ));
        let parameters = json!({"format": "png", "captureBeyondViewport": true, "clip": rect});
        let taken = self.call("Page.captureScreenshot", &parameters);
        let mut decode = Command::new("base64")
            .arg("-d")
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(path).expect("file"))
            .spawn()
            .expect("base64");
        let data = taken["data"].as_str().expect("a picture");
        decode.stdin.take().expect("piped").write_all(data.as_bytes()).expect("write");
        assert!(decode.wait().expect("base64").success());
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its helpers end with it.
        let _ = self.to.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// By the formula of WCAG 2.1. Colours are laid over each other on a canvas, which knows every way to write one.
const FAINT: &str = r#"(() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const pixel = (colours) => {
    paint.fillStyle = "white";
    paint.fillRect(0, 0, 1, 1);
    for (const colour of colours) { paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1); }
    return paint.getImageData(0, 0, 1, 1).data;
  };
  const light = (colours) => {
    const [r, g, b] = [...pixel(colours)].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const known = new Map(), faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!says || element.closest("script, noscript, style, title, :disabled, .heard") || !element.checkVisibility()) continue;
    const behind = [];
    for (let up = element; up; up = up.parentElement) behind.unshift(getComputedStyle(up).backgroundColor);
    const style = getComputedStyle(element), colour = element.closest("svg") ? style.fill : style.color;
    const pair = behind.join() + "|" + colour;
    if (known.has(pair)) continue;
    const [a, b] = [light(behind), light([...behind, colour])];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    known.set(pair, ratio);
    if (ratio < 4.5) faint.push(`${element.tagName}.${element.getAttribute("class")} ${ratio.toFixed(2)} ${element.textContent.slice(0, 40)}`);
  }
  return known.size < 3 ? ["nothing to look at"] : faint;
})()"#;
