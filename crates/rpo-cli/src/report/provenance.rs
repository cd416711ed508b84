//! Where a report comes from: what a reader needs in order to believe it or to make it again.

use std::fmt::Write;

use time::OffsetDateTime;

use super::html::escape;

/// What a report says of its origin.
#[derive(Clone, Debug, Default)]
pub struct Provenance {
    facts: Vec<(&'static str, String)>,
    settings: Vec<(String, String)>,
}

/// Of this program as it runs now.
pub fn provenance() -> Provenance {
    let threads = crate::place::threads();
    let machine = format!("{} {}, {threads} threads", std::env::consts::ARCH, std::env::consts::OS);
    Provenance::default()
        .fact("program", format!("rpo {}", crate::version::version()))
        .fact("command", command_line())
        .fact("written", date(OffsetDateTime::now_utc()))
        .fact("machine", machine)
}

impl Provenance {
    /// With one more fact.
    #[must_use]
    pub fn fact(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.facts.push((name, value.into()));
        self
    }

    /// With the settings of something, as TOML.
    #[must_use]
    pub fn settings(mut self, of: impl Into<String>, toml: String) -> Self {
        self.settings.push((of.into(), toml));
        self
    }

    /// As HTML; settings are folded.
    pub fn html(&self) -> String {
        let mut html = String::from("<dl>");
        for (name, value) in &self.facts {
            let value = escape(value);
            let value = if *name == "command" { format!("<code>{value}</code>") } else { value };
            let _ = write!(html, "<dt>{name}</dt><dd>{value}</dd>");
        }
        html += "</dl>";
        for (of, toml) in &self.settings {
            let _ = write!(html, "<details><summary>{}</summary><pre>{}</pre></details>", escape(of), escape(toml));
        }
        html
    }
}

/// The command that runs, as a shell takes it.
pub fn command_line() -> String {
    command(&std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>())
}

fn command(arguments: &[String]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=,:+@%".contains(c);
    let quoted = |argument: &String| match &masked(argument) {
        argument if !argument.is_empty() && argument.chars().all(plain) => argument.clone(),
        argument => format!("'{}'", argument.replace('\'', r"'\''")),
    };
    std::iter::once("rpo".to_string()).chain(arguments.iter().map(quoted)).collect::<Vec<_>>().join(" ")
}

/// An argument without what may be a secret: the query of an address, and the values of variables that a command sets.
fn masked(argument: &str) -> String {
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit());
    let mask = |word: &str| match word.split_once('=') {
        Some((name, _)) if is_name(name) => format!("{name}=…"),
        _ => match (word.contains("://"), word.split_once('?')) {
            (true, Some((address, _))) => format!("{address}?…"),
            _ => word.to_string(),
        },
    };
    argument.split(' ').map(mask).collect::<Vec<_>>().join(" ")
}

/// `2026-01-31 08:05 UTC`.
fn date(at: OffsetDateTime) -> String {
    let month = u8::from(at.month());
    format!("{}-{month:02}-{:02} {:02}:{:02} UTC", at.year(), at.day(), at.hour(), at.minute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_pasted_into_a_shell() {
        let arguments = ["compare", "--judge", "sh 'my' judge", "--set", "a=\"b\"", ""].map(str::to_string);
        assert_eq!(command(&arguments), r#"rpo compare --judge 'sh '\''my'\'' judge' --set 'a="b"' ''"#);
        let secret = ["--judge-url", "http://h/v1?key=s3", "--judge-command", "API_KEY=s3 ask a=b"].map(str::to_string);
        assert_eq!(command(&secret), "rpo --judge-url 'http://h/v1?…' --judge-command 'API_KEY=… ask a=b'");
    }

    #[test]
    fn dates_are_those_of_utc() {
        let at = |seconds| date(OffsetDateTime::from_unix_timestamp(seconds).expect("in range"));
        assert_eq!(at(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(at(951_782_400 + 8 * 3600 + 5 * 60), "2000-02-29 08:05 UTC");
    }

    #[test]
    fn facts_and_settings_stay_text() {
        let html = Provenance::default().fact("data", "<b>").settings("of <i>", "a = \"</pre><script>\"".into()).html();
        assert!(!html.contains("<b>") && !html.contains("<i>") && !html.contains("<script>"), "{html}");
    }
}
