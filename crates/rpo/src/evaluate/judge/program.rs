//! A program of the user's that judges: JSON in, a verdict out, within a time and an amount of output. What it starts ends with it.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::endpoint::hidden;
use super::{Case, Fault, GLANCE, Judge, Question, Reply, Template, Until};
use crate::world::launcher;

/// What a program may take.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// Until it has ended.
    pub time: Duration,
    /// What it prints, in bytes.
    pub output: usize,
}

/// A program that judges one question a call: it gets a line of JSON (`prompt` with `first` and `second`, or with `response`;
/// `template`; and `system` and `user`, the question in the words of the template) and prints a verdict as the template reads it.
pub struct Program {
    command: String,
    name: String,
    allowed: Allowed,
}

impl Program {
    /// The program that the shell runs for `command`, called `name` or else by the command.
    pub fn new(command: &str, name: Option<&str>, allowed: Allowed) -> Self {
        let name = name.map_or_else(|| format!("`{}`", without_values(command)), str::to_string);
        Self { command: command.into(), name, allowed }
    }
}

/// The command without the values of the variables that it sets, which may be secrets.
fn without_values(command: &str) -> String {
    let mut before = true;
    let word = |word: &str| match word.split_once('=') {
        Some((name, _)) if before && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => format!("{name}=…"),
        _ => {
            before = false;
            word.to_string()
        }
    };
    command.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

impl Judge for Program {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "a program"
    }

    fn request(&self, question: &Question, template: &Template) -> Value {
        let mut request = match &question.case {
            Case::Pair { prompt, first, second } => json!({"prompt": prompt, "first": first, "second": second}),
            Case::Single { prompt, response } => json!({"prompt": prompt, "response": response}),
        };
        request["template"] = template.name.as_str().into();
        request["system"] = question.system.as_deref().into();
        request["user"] = question.user.as_str().into();
        request
    }

    fn ask(&self, question: &Question, template: &Template, until: Until<'_>) -> Result<Reply, Fault> {
        let line = format!("{}\n", self.request(question, template));
        let said = run(&self.command, line, self.allowed, &|| until.over());
        match said {
            Ok(text) => {
                let text = hidden(text);
                Ok(Reply { raw: text.clone(), text, ..Reply::default() })
            }
            Err(Ended::Stopped) => Err(Fault::Stopped),
            Err(ended @ Ended::NotStarted(_)) => Err(Fault::Fatal(format!("it {ended}"))),
            // The shell's way to say that there is no such program, or that it cannot be run.
            Err(Ended::Failed(status)) if matches!(status.code(), Some(126 | 127)) => {
                Err(Fault::Fatal(format!("it cannot be run ({status})")))
            }
            Err(ended) => Err(Fault::Question(format!("it {ended}"))),
        }
    }
}

/// Why a program gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// It could not be started.
    #[error("cannot be started: {0}")]
    NotStarted(String),
    /// It ended with a failure.
    #[error("ended with {0}")]
    Failed(ExitStatus),
    /// It was ended because it took too long.
    #[error("had not ended after {} s and was ended", .0.as_secs_f64())]
    TooSlow(Duration),
    /// It was ended because it printed too much.
    #[error("printed more than {0} bytes and was ended")]
    TooMuch(usize),
    /// Somebody wished to stop.
    #[error("was ended, as was wished")]
    Stopped,
}

/// Runs `command` by the shell with `input` and gives what it prints; its standard error stays that of this program. At its limits,
/// or when `over` says so, it is ended with all that it has started.
///
/// # Errors
/// If it cannot be started, fails or reaches a limit.
pub fn run(command: &str, input: String, allowed: Allowed, over: &dyn Fn() -> bool) -> Result<String, Ended> {
    let began = Instant::now();
    let mut child = start(command).map_err(|e| Ended::NotStarted(e.to_string()))?;
    // Written beside reading, or a program that answers as it reads would block both sides. One that ends early closes its
    // input; its exit status and its answers say what is wrong.
    if let Some(mut stdin) = child.stdin.take() {
        std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    }
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let (mut said, mut stdout) = (Vec::new(), stdout.take(allowed.output as u64 + 1));
            // Not closed before it is known that it was too much, which would end the program in another way.
            let read = stdout.read_to_end(&mut said);
            sender.send(read.map(|_| said))
        });
    }
    let mut said = None;
    let mut pause = Duration::from_millis(1);
    let ended = loop {
        match said {
            None => said = receiver.recv_timeout(GLANCE.min(pause * 8)).ok(),
            Some(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(GLANCE);
        if matches!(&said, Some(Ok(said)) if said.len() > allowed.output) {
            break Err(Ended::TooMuch(allowed.output));
        }
        match (&said, child.try_wait()) {
            (Some(Ok(_)), Ok(Some(status))) if status.success() => break Ok(()),
            // What it printed does not matter then, nor that something that it started goes on.
            (_, Ok(Some(status))) if !status.success() => break Err(Ended::Failed(status)),
            (_, Err(e)) => break Err(Ended::NotStarted(e.to_string())),
            (Some(Err(e)), _) => break Err(Ended::NotStarted(e.to_string())),
            _ => {}
        }
        if over() {
            break Err(Ended::Stopped);
        }
        if began.elapsed() >= allowed.time {
            break Err(Ended::TooSlow(allowed.time));
        }
    };
    if ended.is_err() {
        end(&mut child);
    }
    ended.map(|()| String::from_utf8_lossy(&said.and_then(Result::ok).unwrap_or_default()).into_owned())
}

fn start(command: &str) -> std::io::Result<Child> {
    let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    let mut shell = Command::new(shell);
    // It is no process of a run that was started with others, whatever started this one.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(launcher::is_theirs)) {
        shell.env_remove(name);
    }
    shell.args([flag, command]).stdin(Stdio::piped()).stdout(Stdio::piped());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut shell, 0);
    shell.spawn()
}

/// Ends a program with its whole group, where there are groups.
fn end(child: &mut Child) {
    if cfg!(unix) {
        // The shell can signal a group, which the standard library cannot. It may have ended by itself.
        let group = format!("kill -s KILL -- -{}", child.id());
        let _ = Command::new("sh").args(["-c", &group]).stdin(Stdio::null()).stderr(Stdio::null()).status();
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const ALLOWED: Allowed = Allowed { time: Duration::from_secs(20), output: 100 };

    fn ask(command: &str, allowed: Allowed) -> Result<String, String> {
        run(command, "{\"x\":1}\n".into(), allowed, &|| false).map_err(|e| e.to_string())
    }

    #[test]
    fn a_program_reads_and_prints() {
        assert_eq!(ask("read line; echo \"$line!\"", ALLOWED), Ok("{\"x\":1}!\n".into()));
        assert_eq!(ask("true", ALLOWED), Ok(String::new()), "one that does not read");
        assert!(ask("exit 3", ALLOWED).expect_err("failed").contains("exit status: 3"));
        assert!(ask("kill -9 $$", ALLOWED).expect_err("failed").contains("signal: 9"));
    }

    #[test]
    fn its_limits_end_it_with_all_that_it_has_started() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let alive = dir.path().join("alive");
        let began = Instant::now();
        // A child of its own that would write later, and one that keeps the output open.
        let command = format!("(sleep 2; touch '{}') & sleep 60", alive.display());
        let short = Allowed { time: Duration::from_millis(300), ..ALLOWED };
        assert!(ask(&command, short).expect_err("slow").contains("had not ended after 0.3 s"));
        assert!(ask("sleep 60 & echo A", short).expect_err("open").contains("had not ended"));
        assert!(ask("yes", ALLOWED).expect_err("much").contains("more than 100 bytes"));
        let stopped = run("sleep 60", String::new(), ALLOWED, &|| true);
        assert!(matches!(stopped, Err(Ended::Stopped)));
        assert!(began.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(2200));
        assert!(!alive.exists(), "what it has started went on");
    }
}
