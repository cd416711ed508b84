//! The metrics of texts by their names, as a command line has them: `bleu,chrf,rouge-l`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Metric;
use super::abusive::AbusiveWords;
use super::bleu::Bleu;
use super::chrf::Chrf;
use super::diversity::{Distinct, SelfRepetition};
use super::length::{Beside, Length, LengthRatio, Unit};
use super::meteor::{Meteor, USUAL_WORDNET, WordNet};
use super::rouge::{Overlap, Rouge};
use super::tokens::Tokenization;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// The names, where N is a number from 1 to 9, and what they are.
pub const TEXT: [(&str, &str); 19] = [
    ("bleu", "BLEU of sacrebleu, tokenized by 13a"),
    ("bleu-intl", "the same, all of Unicode's punctuation and symbols apart"),
    ("bleu-zh", "the same, Chinese characters apart"),
    ("bleu-char", "the same, of characters"),
    ("bleu-none", "the same, of texts that are tokenized already"),
    ("chrf", "chrF of sacrebleu"),
    ("chrf++", "chrF with words and pairs of words"),
    ("rouge-N", "ROUGE-N of rouge-score; rouge-N-stemmed: of stems"),
    ("rouge-l", "ROUGE-L; rouge-l-stemmed: of stems"),
    ("rouge-lsum", "ROUGE-L by lines; rouge-lsum-stemmed: of stems"),
    ("meteor", "METEOR of NLTK with WordNet's synonyms"),
    ("meteor-no-synonyms", "METEOR without synonyms, which is another metric"),
    ("distinct-N", "different N-grams of all responses"),
    ("self-repetition-N", "N-grams that a response has had before"),
    ("length-characters", "length in characters"),
    ("length-words", "length in words"),
    ("length-tokens", "length in a model's tokens"),
    ("length-ratio-UNIT", "length by that of the references, in characters, words or tokens"),
    ("abusive-words", "toxicity as far as single words tell it"),
];

/// Files that metrics need beside the texts.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The directory of WordNet's dictionary, for `meteor`; without it, where Debian has it.
    pub wordnet: Option<PathBuf>,
    /// The linear model of `abusive-words`.
    pub abusive_words: Option<PathBuf>,
    /// The directory of the model whose tokens are counted.
    pub tokenizer: Option<PathBuf>,
}

/// The metric of this name.
///
/// # Errors
/// If there is none, or a file that it needs is missing or unusable.
pub fn text(name: &str, files: &Files) -> Result<Box<dyn Metric>> {
    Ok(match name.split_once('-').unwrap_or((name, "")) {
        ("bleu", "") => Box::new(Bleu::default()),
        ("bleu", rest) => {
            let tokenization = Tokenization::ALL.into_iter().find(|known| known.name() == rest);
            Box::new(Bleu { tokenization: known(name, tokenization)? })
        }
        ("chrf", "") => Box::new(Chrf { words: false }),
        ("chrf++", "") => Box::new(Chrf { words: true }),
        ("rouge", rest) => {
            let (overlap, stemmed) = rest.strip_suffix("-stemmed").map_or((rest, false), |rest| (rest, true));
            let overlap = match overlap {
                "l" => Overlap::Subsequence,
                "lsum" => Overlap::Lines,
                n => Overlap::Grams(digit(name, n)?),
            };
            Box::new(Rouge { overlap, stemmed })
        }
        ("meteor", "") => {
            let dir = files.wordnet.as_deref().unwrap_or(Path::new(USUAL_WORDNET));
            Box::new(Meteor { wordnet: Some(Arc::new(WordNet::load(dir)?)) })
        }
        ("meteor", "no-synonyms") => Box::new(Meteor { wordnet: None }),
        ("distinct", n) => Box::new(Distinct { n: digit(name, n)? }),
        ("self", rest) => Box::new(SelfRepetition { n: digit(name, known(name, rest.strip_prefix("repetition-"))?)? }),
        ("length", rest) => match rest.strip_prefix("ratio-") {
            Some(rest) => Box::new(LengthRatio { unit: unit(name, rest, files)?, beside: Beside::References }),
            None => Box::new(Length { unit: unit(name, rest, files)? }),
        },
        ("abusive", "words") => {
            let file =
                needed("abusive-words", "the JSON file of a linear model over words", files.abusive_words.as_deref());
            Box::new(AbusiveWords::load(file?)?)
        }
        _ => return known(name, None),
    })
}

fn known<T>(name: &str, found: Option<T>) -> Result<T> {
    found.ok_or_else(|| {
        let names = TEXT.map(|(name, _)| name).join(", ");
        Error::Setting { field: "metrics", problem: format!("there is no `{name}`; there are {names}") }
    })
}

fn digit(name: &str, n: &str) -> Result<usize> {
    known(name, n.parse().ok().filter(|n| (1..=9).contains(n)))
}

fn unit(name: &str, unit: &str, files: &Files) -> Result<Unit> {
    match unit {
        "characters" => Ok(Unit::Characters),
        "words" => Ok(Unit::Words),
        "tokens" => {
            let dir =
                needed("tokenizer", "the directory of the model whose tokens are counted", files.tokenizer.as_deref());
            Ok(Unit::Tokens(Arc::new(Tokenizer::load(dir?)?)))
        }
        _ => known(name, None),
    }
}

fn needed<'a>(field: &'static str, what: &str, path: Option<&'a Path>) -> Result<&'a Path> {
    path.ok_or_else(|| Error::Setting { field, problem: format!("this metric needs {what}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_gives_the_metric_that_is_called_so() {
        let names = "bleu bleu-intl bleu-zh bleu-char bleu-none chrf chrf++ rouge-1 rouge-9 rouge-2-stemmed rouge-l rouge-lsum \
            rouge-lsum-stemmed meteor-no-synonyms distinct-1 distinct-2 self-repetition-4 length-characters length-words \
            length-ratio-words";
        for name in names.split_whitespace() {
            let metric = text(name, &Files::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(metric.about().name, name);
            assert!(metric.measure(&[]).expect("nothing to measure").estimate().is_none(), "{name}");
        }
    }

    #[test]
    fn what_is_unknown_or_missing_is_said() {
        let error = |name| text(name, &Files::default()).err().unwrap_or_else(|| panic!("{name} is none")).to_string();
        for name in [
            "blue",
            "bleu-14a",
            "rouge-0",
            "rouge-l-stem",
            "rouge",
            "distinct-10",
            "self-4",
            "length",
            "length-ratio-x",
            "",
        ] {
            assert!(error(name).contains(&format!("there is no `{name}`; there are bleu, ")), "{}", error(name));
        }
        assert!(error("abusive-words").contains("JSON file") && error("length-tokens").contains("directory"));
        let nowhere = Files { wordnet: Some("nowhere".into()), ..Files::default() };
        assert!(text("meteor", &nowhere).err().expect("an error").to_string().contains("apt-get install wordnet-base"));
    }
}
