//! The card of a model: the `README.md` that a hub shows. It says what was trained and what was measured, and nothing else.

mod front;
mod sections;
mod yaml;

use std::path::Path;

use super::evaluation::Evaluation;
use crate::error::{Error, Result};
use crate::store::text_of;

/// All that a card says.
#[derive(Clone, Debug, Default)]
pub struct Card {
    /// What the model is called.
    pub name: String,
    /// Its id on the hub, `owner/name`, if it is to go there.
    pub repo: Option<String>,
    /// Its licence by the hub's identifier, such as `apache-2.0`; never guessed.
    pub license: Option<String>,
    /// Languages by their codes, such as `en`.
    pub languages: Vec<String>,
    /// Data sets by their ids on the hub.
    pub datasets: Vec<String>,
    /// Id on the hub of the model that it was trained from.
    pub base_model: Option<String>,
    /// What loads it.
    pub kind: Kind,
    /// Whether prompts are turns that go through its chat template.
    pub chat: bool,
    /// How it was trained, if that is known.
    pub training: Option<Training>,
    /// What was measured, with its number among the models there.
    pub evaluation: Option<(Evaluation, usize)>,
    /// Version of the program that writes the card.
    pub version: String,
}

/// What loads a model in transformers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// An encoder and a decoder, or a decoder alone.
    pub encoder_decoder: bool,
    /// Adapters that stand beside a base model.
    pub adapter: bool,
}

/// How a model was trained.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Training {
    /// The objective by its name, such as `rpo`.
    pub objective: String,
    /// What it started from, and what it was trained on, as a person wrote it.
    pub from: String,
    /// The data, likewise.
    pub data: String,
    /// Further facts: what, and its value.
    pub facts: Vec<(String, String)>,
    /// All settings as TOML.
    pub settings: String,
}

/// Opens the line by which a card knows its own.
const MARK: &str = "<!-- Written by rpo card, ";

/// The card as Markdown behind YAML.
///
/// # Errors
/// If a field cannot stand in a card; the message names it.
pub fn write(card: &Card) -> Result<String> {
    let front = front::front_matter(card)?;
    let body = sections::sections(card);
    let hash = blake3::hash(format!("{front}{body}").as_bytes()).to_hex();
    Ok(format!("{front}{MARK}{hash} -->\n\n{body}"))
}

/// Checks that `path` may be written: it does not exist, or [`write()`] wrote it and nobody has changed it since.
///
/// # Errors
/// If it may not, saying why and what to do.
pub fn check_replaceable(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let text = text_of(path)?;
    let own = text.split_once(MARK).and_then(|(front, rest)| {
        let (hash, body) = rest.split_once(" -->\n\n")?;
        Some(blake3::hash(format!("{front}{body}").as_bytes()).to_hex().as_str() == hash)
    });
    let problem = match own {
        Some(true) => return Ok(()),
        Some(false) => "was changed since `rpo card` wrote it",
        None => "was not written by `rpo card`",
    };
    Err(Error::file(path, format!("it {problem}; move it away, or let --force replace it")))
}

/// The licence that the front matter of a model's card names, if it names one.
pub fn license_of(card: &str) -> Option<String> {
    let front = card.strip_prefix("---")?.split("\n---").next()?;
    let value = front.lines().find_map(|line| line.strip_prefix("license:"))?.trim();
    let value = value.trim_matches(['"', '\'']);
    (!value.is_empty() && !value.contains(['[', '#'])).then(|| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::evaluation::tests::example;
    use super::*;

    fn card() -> Card {
        Card {
            name: "first".into(),
            repo: Some("user/first".into()),
            license: Some("apache-2.0".into()),
            languages: vec!["no".into()],
            datasets: vec!["openbmb/UltraFeedback".into()],
            base_model: Some("google/flan-t5-small".into()),
            kind: Kind { encoder_decoder: true, adapter: false },
            chat: false,
            training: Some(Training {
                objective: "rpo".into(),
                from: "google/flan-t5-small".into(),
                data: "openbmb/UltraFeedback".into(),
                facts: vec![("held-out loss".into(), "0.5".into())],
                settings: "[objective]\nname = \"rpo\"\n".into(),
            }),
            evaluation: Some((example(), 0)),
            version: "0.1.0".into(),
        }
    }

    #[test]
    fn front_matter_quotes_what_yaml_would_take_for_something_else() {
        let text = write(&card()).expect("a card");
        let front = text.strip_prefix("---\n").expect("front matter").split("---\n").next().expect("front");
        for line in [
            "license: apache-2.0",
            "- \"no\"",
            "base_model: google/flan-t5-small",
            "- openbmb/UltraFeedback",
            "library_name: transformers",
            "pipeline_tag: text2text-generation",
            "- reward-partitioning-optimization",
            "- type: rougeL",
            "value: 31.25",
        ] {
            assert!(front.lines().any(|l| l.trim() == line), "{line} is not in\n{front}");
        }
        // The judge that reads is there, with what was measured; the other's rates are not.
        assert!(front.contains("mistral") && front.contains("value: 75.0") && !front.contains("smollm2"), "{front}");
        let plain = Card { license: None, evaluation: None, ..card() };
        let text = write(&plain).expect("a card");
        assert!(!text.contains("\nlicense:") && !text.contains("model-index"), "{text}");
        assert!(text.contains("Nothing was measured") && text.contains("licence of"), "{text}");
        let broken = Card { license: Some("my licence".into()), ..card() };
        assert!(write(&broken).expect_err("refused").to_string().contains("license"));
    }

    #[test]
    fn a_judge_that_does_not_read_is_struck_out() {
        let text = write(&card()).expect("a card");
        let row =
            |judge: &str| text.lines().find(|l| l.starts_with(&format!("| {judge} |"))).expect("a row").to_string();
        let (reads, guesses) = (row("mistral"), row("smollm2"));
        assert!(reads.contains("75.0 % [") && !reads.contains("~~") && reads.contains("the \\| start"), "{reads}");
        assert!(guesses.contains("~~50.0 % [") && guesses.contains("~~ |"), "{guesses}");
        assert!(text.contains("it cannot be told from a judge that does not read them"), "{text}");
        assert!(text.contains("31.25 [30.25, 32.25]") && text.contains("rouge-score 0.1.2"), "{text}");
        // Seen from the other model it has lost what this one won.
        let other = write(&Card { evaluation: Some((example(), 1)), ..card() }).expect("a card");
        assert!(other.contains("| 25.0 % ["), "{other}");
        assert!(!other.contains("31.25 [30.25, 32.25] |\n") || other.contains("| rougeL |"), "{other}");
    }

    #[test]
    fn a_card_knows_its_own_and_leaves_what_people_wrote() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("README.md");
        check_replaceable(&path).expect("nothing there");
        let text = write(&card()).expect("a card");
        std::fs::write(&path, &text).expect("written");
        check_replaceable(&path).expect("its own");
        std::fs::write(&path, text.replace("Intended use", "Intended uses")).expect("written");
        assert!(check_replaceable(&path).expect_err("changed").to_string().contains("was changed since"));
        std::fs::write(&path, "# Mine\n").expect("written");
        let said = check_replaceable(&path).expect_err("foreign").to_string();
        assert!(said.contains("was not written by `rpo card`") && said.contains("--force"), "{said}");
    }

    #[test]
    fn licences_are_read_from_front_matter() {
        assert_eq!(license_of("---\nlicense: apache-2.0\nx: 1\n---\n# T\n").as_deref(), Some("apache-2.0"));
        assert_eq!(license_of("---\nx: 1\nlicense: \"mit\"\n---\n").as_deref(), Some("mit"));
        assert_eq!(license_of("---\nx: 1\n---\nlicense: mit\n"), None);
        assert_eq!(license_of("# T\nlicense: mit\n"), None);
    }
}
