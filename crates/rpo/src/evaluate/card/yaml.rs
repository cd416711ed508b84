//! Texts and numbers as YAML.

use std::fmt::Write;

/// A text: plain where that can mean nothing else, else in double quotes.
pub fn text(text: &str) -> String {
    // What YAML 1.1 readers, such as PyYAML, take for something else.
    const WORDS: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if plain {
        return text.into();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            // What YAML does not print, and its own line ends.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A number that every reader takes for one: with a point, and without an exponent.
pub fn number(value: f64) -> String {
    let plain = value.to_string();
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_else_is_quoted() {
        assert_eq!(text("google/flan-t5-small"), "google/flan-t5-small");
        for (plain, quoted) in [
            ("no", "\"no\""),
            ("1.0", "\"1.0\""),
            ("a: b", "\"a: b\""),
            ("- x", "\"- x\""),
            ("", "\"\""),
            ("say \"x\\y\"\n", "\"say \\\"x\\\\y\\\"\\n\""),
            ("\u{7f}\u{1}\u{85}", "\"\\u007F\\u0001\\u0085\""),
            ("größer", "\"größer\""),
        ] {
            assert_eq!(text(plain), quoted);
        }
        assert_eq!([75.0, 0.25, 1e20].map(number), ["75.0", "0.25", "100000000000000000000.0"]);
    }
}
