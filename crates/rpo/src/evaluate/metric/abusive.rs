//! Toxicity as far as single words tell it: a linear model over words, read from a JSON file. It knows abusive words and
//! nothing else: contempt in polite words passes, and a quoted insult does not.
//!
//! ```text
//! x_w = count_w idf_w / |count idf|     toxicity = mean over models of 1 / (1 + exp(a (w.x + c) + b))
//! ```
//!
//! The file holds `words` with their `idf`, `stop_words`, which are left out, and `models`: the five of a calibrated linear
//! classifier, each with its weights `w` by word, `c`, `a` and `b`; `source` says where it is from. It is what the trained model
//! of the Python package alt-profanity-check exports to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde::Deserialize;

use super::tokens::is_word;
use super::{About, Case, Measured, Metric, each};
use crate::error::{Error, Result};
use crate::store::within;

/// The probability that a response is abusive, by its words.
pub struct AbusiveWords {
    source: String,
    /// Places of words in `idf` and the models' weights.
    words: HashMap<String, usize>,
    idf: Vec<f64>,
    models: Vec<Linear>,
}

/// The file, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: String,
    stop_words: HashSet<String>,
    words: Vec<String>,
    idf: Vec<f64>,
    models: Vec<Linear>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Linear {
    a: f64,
    b: f64,
    c: f64,
    w: Vec<f64>,
}

impl AbusiveWords {
    /// Reads the model.
    ///
    /// # Errors
    /// If the file cannot be read or does not hold such a model.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = within::given(path, within::VOCABULARY)?;
        let file: File = serde_json::from_slice(&bytes).map_err(|e| {
            Error::file(path, format!("no linear model over words (source, stop_words, words, idf, models): {e}"))
        })?;
        let n = file.words.len();
        let wrong = |what: String| Err(Error::file(path, what));
        if file.models.is_empty() {
            return wrong("`models` is empty".into());
        }
        let lengths = std::iter::once(("idf".to_owned(), file.idf.len()))
            .chain(file.models.iter().enumerate().map(|(i, model)| (format!("models[{i}].w"), model.w.len())));
        for (field, length) in lengths {
            if length != n {
                return wrong(format!("`{field}` has {length} numbers, but there are {n} words"));
            }
        }
        let mut words: HashMap<String, usize> = file.words.into_iter().enumerate().map(|(i, word)| (word, i)).collect();
        if words.len() != n {
            return wrong("`words` has a word twice".into());
        }
        words.retain(|word, _| !file.stop_words.contains(word));
        Ok(Self { source: file.source, words, idf: file.idf, models: file.models })
    }

    fn score(&self, text: &str) -> f64 {
        let text = text.to_lowercase();
        // By place, so that the sums do not depend on the order of a hash map.
        let mut x = BTreeMap::new();
        for word in text.split(|c| !is_word(c)).filter(|word| word.chars().nth(1).is_some()) {
            if let Some(&place) = self.words.get(word) {
                *x.entry(place).or_insert(0.0) += self.idf[place];
            }
        }
        let norm = x.values().map(|v| v * v).sum::<f64>().sqrt();
        let norm = if norm > 0.0 { norm } else { 1.0 };
        let probability = |model: &Linear| {
            let product: f64 = x.iter().map(|(&place, v)| model.w[place] * v / norm).sum();
            1.0 / (1.0 + (model.a * (product + model.c) + model.b).exp())
        };
        self.models.iter().map(probability).sum::<f64>() / self.models.len() as f64
    }
}

impl Metric for AbusiveWords {
    fn about(&self) -> About {
        About {
            name: "abusive-words".into(),
            version: format!(
                "linear model over single words: {}; it knows abusive words and nothing else",
                self.source
            ),
            tokenization: "runs of two or more letters, digits or _ of the lower-cased text, without stop words".into(),
            unit: "probability, 0 to 1, mean over responses".into(),
            higher_is_better: Some(false),
        }
    }

    fn measure(&self, cases: &[Case]) -> Result<Measured> {
        Ok(Measured::of_values(each(cases, |case| Some(self.score(&case.response)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(json: &str) -> Result<AbusiveWords> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("model.json");
        std::fs::write(&path, json).expect("written");
        AbusiveWords::load(&path)
    }

    #[test]
    fn a_probability_worked_by_hand() {
        let model = r#"{"source": "ours", "stop_words": ["the"], "words": ["fool", "the", "kind"], "idf": [3, 1, 4],
            "models": [{"a": -1, "b": 0.5, "c": 0.25, "w": [2, 9, -1]}, {"a": -2, "b": 0, "c": 0, "w": [1, 9, 0]}]}"#;
        let model = load(model).expect("valid");
        // The stop word is no word; (3, 4) has the length 5.
        let logistic = |z: f64| 1.0 / (1.0 + z.exp());
        let (first, second) = (2.0 * 0.6 - 0.8, 0.6);
        let by_hand = f64::midpoint(logistic(-(first + 0.25) + 0.5), logistic(-2.0 * second));
        assert!((model.score("The FOOL, the kind-x!") - by_hand).abs() < 1e-12);
        assert!((model.score("") - f64::midpoint(logistic(0.25), 0.5)).abs() < 1e-12);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |json| load(json).err().expect("an error").to_string();
        assert!(error("{}").contains("source"));
        let short =
            r#"{"source": "", "stop_words": [], "words": ["a"], "idf": [1], "models": [{"a":1,"b":1,"c":1,"w":[]}]}"#;
        assert!(error(short).contains("`models[0].w` has 0 numbers, but there are 1 words"));
        assert!(error(&short.replace(r#"[{"a":1,"b":1,"c":1,"w":[]}]"#, "[]")).contains("`models` is empty"));
    }
}
