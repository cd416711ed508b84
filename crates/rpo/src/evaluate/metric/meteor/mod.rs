//! METEOR as NLTK 3.9.1 computes it (`meteor_score`, after Lavie and Agarwal 2007): words that match exactly, by their stems or
//! by WordNet's synonyms, and in how many pieces.
//!
//! ```text
//! METEOR = (1 - 0.5 (chunks / matches)^3) P R / (0.9 P + 0.1 R)
//! ```
//!
//! Of several references the best counts. NLTK looks for synonyms of what the stemmer left, and so does this.

mod porter;
mod wordnet;

use std::borrow::Cow;
use std::sync::Arc;

use rustc_hash::FxHashMap;

pub(super) use porter::stem;
pub use wordnet::{USUAL as USUAL_WORDNET, WordNet};

use super::grams::numbered;
use super::tokens::word_tokenize;
use super::{About, Case, Measured, Metric, each};
use crate::error::Result;

/// METEOR.
#[derive(Clone, Default)]
pub struct Meteor {
    /// Where synonyms are looked up. Without it the metric is another one, `meteor-no-synonyms`.
    pub wordnet: Option<Arc<WordNet>>,
}

impl Metric for Meteor {
    fn about(&self) -> About {
        let (name, synonyms) = match &self.wordnet {
            Some(wordnet) => ("meteor", format!("synonyms of WordNet {}", wordnet.version())),
            None => ("meteor-no-synonyms", "no synonyms".into()),
        };
        About {
            name: name.into(),
            version: format!("nltk 3.9.1 meteor_score, alpha 0.9, beta 3, gamma 0.5; exact, Porter stems, {synonyms}"),
            tokenization: "nltk word_tokenize(preserve_line=True), lower-cased; no splitting into sentences".into(),
            unit: "0 to 1, mean over responses".into(),
            higher_is_better: Some(true),
        }
    }

    fn measure(&self, cases: &[Case]) -> Result<Measured> {
        let tokens = |text: &str| word_tokenize(text).iter().map(|word| word.to_lowercase()).collect::<Vec<_>>();
        Ok(Measured::of_values(each(cases, |case| {
            let response = if case.references.is_empty() { Vec::new() } else { tokens(&case.response) };
            let score = |reference: &String| score(&response, &tokens(reference), self.wordnet.as_deref());
            case.references.iter().map(score).reduce(f64::max)
        })))
    }
}

fn score(response: &[String], reference: &[String], wordnet: Option<&WordNet>) -> f64 {
    let mut matches = alignment(response, reference, wordnet);
    if matches.is_empty() {
        return 0.0;
    }
    matches.sort_unstable();
    let chunks = 1 + matches.windows(2).filter(|w| w[1] != (w[0].0 + 1, w[0].1 + 1)).count();
    let n = matches.len() as f64;
    let (precision, recall) = (n / response.len() as f64, n / reference.len() as f64);
    (1.0 - 0.5 * (chunks as f64 / n).powi(3)) * precision * recall / (0.9 * precision + 0.1 * recall)
}

/// A word with its place in the text.
type Placed<'a> = (usize, Cow<'a, str>);

/// Places of words that match, in the response and in the reference.
fn alignment(response: &[String], reference: &[String], wordnet: Option<&WordNet>) -> Vec<(usize, usize)> {
    let (mut ours, mut theirs) = (placed(response), placed(reference));
    let mut matches = Vec::new();
    match_equal(&mut ours, &mut theirs, &mut matches);
    ours.iter_mut().chain(&mut theirs).for_each(|(_, word)| *word = stem(word).into());
    match_equal(&mut ours, &mut theirs, &mut matches);
    if let Some(wordnet) = wordnet {
        match_synonyms(&ours, &theirs, wordnet, &mut matches);
    }
    matches
}

fn placed(words: &[String]) -> Vec<Placed<'_>> {
    words.iter().map(|word| Cow::Borrowed(word.as_str())).enumerate().collect()
}

/// Matches equal words, from the end, and takes them away.
fn match_equal<'a>(ours: &mut Vec<Placed<'a>>, theirs: &mut Vec<Placed<'a>>, matches: &mut Vec<(usize, usize)>) {
    let words = numbered([&*ours, &*theirs].map(|words| words.iter().map(|(_, word)| word.as_ref())));
    // By word, where it is last among what is open of the reference, and from there where it is before.
    let mut last = vec![None; words.different];
    let before: Vec<Option<usize>> =
        words.sequences[1].iter().enumerate().map(|(at, &word)| last[word as usize].replace(at)).collect();
    let (mut our_left, mut their_left) = (vec![true; ours.len()], vec![true; theirs.len()]);
    for (at, &word) in words.sequences[0].iter().enumerate().rev() {
        let place = &mut last[word as usize];
        if let Some(other) = *place {
            *place = before[other];
            (our_left[at], their_left[other]) = (false, false);
            matches.push((ours[at].0, theirs[other].0));
        }
    }
    for (words, left) in [(ours, our_left), (theirs, their_left)] {
        let mut left = left.into_iter();
        words.retain(|_| left.next() == Some(true));
    }
}

/// Matches words of the reference that are in a synset with a word of the response, from the end.
fn match_synonyms(ours: &[Placed], theirs: &[Placed], wordnet: &WordNet, matches: &mut Vec<(usize, usize)>) {
    let mut open: FxHashMap<u32, Vec<usize>> = FxHashMap::default();
    for (place, word) in theirs {
        if let Some(word) = wordnet.word(word) {
            open.entry(word).or_default().push(*place);
        }
    }
    for (place, word) in ours.iter().rev() {
        let last = |synonym| Some((*open.get(&synonym)?.last()?, synonym));
        let nearest = wordnet.synonyms(word).into_iter().filter_map(last).max();
        if let Some(other) = nearest.and_then(|(_, synonym)| open.get_mut(&synonym)?.pop()) {
            matches.push((*place, other));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_and_chunks_worked_by_hand() {
        let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        // `the` and `ran home` in two pieces, `cats` by its stem: one piece with `the`.
        let found = score(&words("the cats ran home"), &words("the cat then ran home"), None);
        let (p, r) = (1.0, 4.0 / 5.0);
        assert!((found - (1.0 - 0.5 * 0.125) * p * r / (0.9 * p + 0.1 * r)).abs() < 1e-12, "{found}");
        assert_eq!(score(&words("a"), &words("b"), None), 0.0);
        // From the end: the last `a` of each first.
        assert_eq!(alignment(&words("a b"), &words("a c a"), None), [(0, 2)]);
    }
}
