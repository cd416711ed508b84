//! WordNet's dictionary as NLTK 3.9.1 reads it: words to their base forms, and these to the words of their synsets.
//!
//! The directory holds `index.*`, `data.*` (wndb(5WN)) and `*.exc` (morphy(7WN)) for nouns, verbs, adjectives and adverbs.

use std::path::Path;

use rustc_hash::FxHashMap;

use crate::error::{Error, Result};
use crate::store::within;

/// Where Debian's `wordnet-base` puts it.
pub const USUAL: &str = "/usr/share/wordnet";

/// WordNet.
pub struct WordNet {
    version: String,
    parts: [Part; 4],
    /// The single words of each synset.
    synsets: Vec<Box<[u32]>>,
    words: FxHashMap<Box<str>, u32>,
}

/// A part of speech.
struct Part {
    /// Endings of inflected forms, and those of base forms.
    endings: &'static [(&'static str, &'static str)],
    /// Base forms to synsets.
    forms: FxHashMap<Box<str>, Box<[u32]>>,
    /// Irregular forms to base forms.
    irregular: FxHashMap<Box<str>, Vec<String>>,
}

const NOUNS: &[(&str, &str)] = &[
    ("s", ""),
    ("ses", "s"),
    ("ves", "f"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
];
const VERBS: &[(&str, &str)] =
    &[("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")];
const ADJECTIVES: &[(&str, &str)] = &[("er", ""), ("est", ""), ("er", "e"), ("est", "e")];

impl WordNet {
    /// Reads the dictionary in a directory.
    ///
    /// # Errors
    /// If a file is missing or not as WordNet's are.
    pub fn load(dir: &Path) -> Result<Self> {
        let mut wordnet = Self {
            version: String::new(),
            parts: [NOUNS, VERBS, ADJECTIVES, &[]].map(|endings| Part {
                endings,
                forms: FxHashMap::default(),
                irregular: FxHashMap::default(),
            }),
            synsets: Vec::new(),
            words: FxHashMap::default(),
        };
        for (part, name) in ["noun", "verb", "adj", "adv"].into_iter().enumerate() {
            let mut synsets = FxHashMap::default();
            rows(dir, &format!("data.{name}"), |line| {
                let (offset, words) = synset(line)?;
                synsets.insert(offset, wordnet.synsets.len() as u32);
                let words = words.into_iter().map(|word| wordnet.number(word)).collect();
                wordnet.synsets.push(words);
                Some(())
            })?;
            let part = &mut wordnet.parts[part];
            rows(dir, &format!("index.{name}"), |line| {
                let (form, offsets) = entry(line)?;
                let found = offsets.iter().map(|offset| synsets.get(offset).copied()).collect::<Option<_>>()?;
                part.forms.insert(form.into(), found);
                Some(())
            })?;
            rows(dir, &format!("{name}.exc"), |line| {
                let mut fields = line.split_ascii_whitespace();
                part.irregular.insert(fields.next()?.into(), fields.map(String::from).collect());
                Some(())
            })?;
        }
        wordnet.version = version(&text(dir, "data.adj")?).unwrap_or("?").into();
        Ok(wordnet)
    }

    /// Its version, such as `3.0`; `?` if it does not say.
    pub fn version(&self) -> &str {
        &self.version
    }

    fn number(&mut self, word: &str) -> u32 {
        match self.words.get(word) {
            Some(&number) => number,
            None => {
                let number = self.words.len() as u32;
                self.words.insert(word.into(), number);
                number
            }
        }
    }

    /// The number of a word that is in a synset as it is written here.
    pub fn word(&self, word: &str) -> Option<u32> {
        self.words.get(word).copied()
    }

    /// The words in the synsets of a word in lower case, which may be inflected.
    pub fn synonyms(&self, word: &str) -> Vec<u32> {
        let mut found = Vec::new();
        for part in &self.parts {
            part.base_forms(word, |synsets| {
                found.extend(synsets.iter().flat_map(|&synset| &self.synsets[synset as usize]));
            });
        }
        found
    }
}

impl Part {
    /// Hears the synsets of each base form.
    fn base_forms(&self, word: &str, mut hear: impl FnMut(&[u32])) {
        let mut look_up = |form: &str| self.forms.get(form).into_iter().for_each(|synsets| hear(synsets));
        look_up(word);
        if let Some(forms) = self.irregular.get(word) {
            return forms.iter().for_each(|form| look_up(form));
        }
        let mut form = String::new();
        for (ending, by) in self.endings {
            if let Some(stem) = word.strip_suffix(ending) {
                form.clear();
                form.extend([stem, by]);
                look_up(&form);
            }
        }
    }
}

/// As the notice at the head of a file says it.
fn version(text: &str) -> Option<&str> {
    text.match_indices(" Copyright").find_map(|(at, _)| {
        let mut before = text[..at].rsplit(' ');
        let version = before.next()?;
        before.next().is_some_and(|name| name.eq_ignore_ascii_case("WordNet")).then_some(version)
    })
}

/// Byte offset of a line of `data.*` and the single words of its synset, without the marks of syntax that adjectives have.
fn synset(line: &str) -> Option<(u32, Vec<&str>)> {
    let mut fields = line.split_ascii_whitespace();
    let offset = fields.next()?.parse().ok()?;
    let count = usize::from_str_radix(fields.nth(2)?, 16).ok()?;
    let words: Vec<&str> = fields.step_by(2).take(count).collect();
    let single = words.iter().map(|word| word.split('(').next().unwrap_or(word)).filter(|word| !word.contains('_'));
    (words.len() == count).then(|| (offset, single.collect()))
}

/// The form and the offsets of a line of `index.*`: form, part, synsets, pointers, their symbols, synsets, tagged ones, offsets.
fn entry(line: &str) -> Option<(&str, Vec<u32>)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let count: usize = fields.get(2)?.parse().ok()?;
    let pointers: usize = fields.get(3)?.parse().ok()?;
    let offsets = fields.get(pointers.checked_add(6)?..)?;
    let offsets = offsets.iter().map(|offset| offset.parse().ok()).collect::<Option<Vec<_>>>()?;
    (count > 0 && offsets.len() == count).then(|| (fields[0], offsets))
}

fn text(dir: &Path, name: &str) -> Result<String> {
    let path = dir.join(name);
    let bytes = within::given(&path, within::VOCABULARY).map_err(|cause| {
        let problem = format!(
            "{cause}. METEOR needs the dictionary for synonyms; `apt-get install wordnet-base` \
             puts it into {USUAL}, and `--wordnet DIR` names another place. `meteor-no-synonyms` does without it"
        );
        Error::file(dir, problem)
    })?;
    // NLTK reads UTF-8 too; the notice at the head may be anything.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads the lines of a file, but for the notice at its head, which is indented.
fn rows(dir: &Path, name: &str, mut read: impl FnMut(&str) -> Option<()>) -> Result<()> {
    let text = text(dir, name)?;
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with(' ') && !line.is_empty()) {
        read(line).ok_or_else(|| Error::Row {
            path: dir.join(name),
            place: format!("line {}", number + 1),
            problem: "no line of a WordNet dictionary; is the directory one (`dict` of WordNet 3.0 or 3.1)?".into(),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_dictionary() {
        let line = "00001740 03 n 02 Big_Thing 0 thing(p) 1 001 ~ 00001930 n 0000 | that which is";
        assert_eq!(synset(line), Some((1740, vec!["thing"])));
        assert_eq!(synset("00001740 03 n 02 thing 0"), None);
        assert_eq!(entry("thing n 2 1 ~ 2 1 00001740 00001930"), Some(("thing", vec![1740, 1930])));
        assert_eq!(entry("thing n 2 1 ~ 2 1 00001740"), None);
        assert_eq!(version("  1 This is WordNet 3.0 Copyright 2006 by\n"), Some("3.0"));
    }

    #[test]
    fn what_is_missing_or_broken_is_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let error = |dir: &Path| WordNet::load(dir).err().expect("an error").to_string();
        assert!(error(dir.path()).contains("data.noun") && error(dir.path()).contains("wordnet-base"));
        std::fs::write(dir.path().join("data.noun"), "  1 notice\nnonsense\n").expect("written");
        assert!(error(dir.path()).contains("data.noun, line 2"), "{}", error(dir.path()));
    }
}
