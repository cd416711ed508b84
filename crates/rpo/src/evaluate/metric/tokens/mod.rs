//! How texts become tokens: as the references of the metrics do it, which are written in Python and its regular expressions.

mod nltk;
mod sacrebleu;

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};
use unicode_segmentation::UnicodeSegmentation;

pub(super) use nltk::word_tokenize;
pub use sacrebleu::Tokenization;

/// Python's whitespace: Unicode's, and the four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Python's `\w`: letters, numbers and `_`, but no marks.
pub(super) fn is_word(c: char) -> bool {
    match c.is_ascii() {
        true => c.is_ascii_alphanumeric() || c == '_',
        false => matches!(c.general_category_group(), GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number),
    }
}

/// Python's `text.split()`.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// The words of a text in any script: what lies between the boundaries of Unicode's annex 29 and has a letter or a number.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_word_bounds().filter(|word| word.chars().any(|c| is_word(c) && c != '_'))
}

/// A text that is rewritten pass by pass, as a list of Python's `re.sub` does it.
struct Rewriting {
    text: Vec<char>,
    next: Vec<char>,
}

impl Rewriting {
    fn of(text: &str) -> Self {
        Self { text: text.chars().collect(), next: Vec::new() }
    }

    /// One pass from left to right, if the text has any of these characters, without which the rule applies nowhere. The rule is
    /// given the text and a place in it; it writes what stands for the characters there and says how many these are, or 0 if it
    /// does not apply.
    fn sub(&mut self, marks: &[char], rule: impl Fn(&[char], usize, &mut Vec<char>) -> usize) {
        if self.has(|c| marks.contains(&c)) {
            self.sub_anywhere(rule);
        }
    }

    /// The same for rules that may apply to any text.
    fn sub_anywhere(&mut self, rule: impl Fn(&[char], usize, &mut Vec<char>) -> usize) {
        self.next.clear();
        let mut at = 0;
        while at < self.text.len() {
            match rule(&self.text, at, &mut self.next) {
                0 => {
                    self.next.push(self.text[at]);
                    at += 1;
                }
                read => at += read,
            }
        }
        std::mem::swap(&mut self.text, &mut self.next);
    }

    /// A blank around each of these characters.
    fn space_around(&mut self, class: impl Fn(char) -> bool) {
        if self.has(&class) {
            self.sub_anywhere(|text, at, out| match class(text[at]) {
                true => put(out, 1, &[' ', text[at], ' ']),
                false => 0,
            });
        }
    }

    fn has(&self, class: impl Fn(char) -> bool) -> bool {
        self.text.iter().any(|&c| class(c))
    }

    fn finish(self) -> String {
        self.text.into_iter().collect()
    }
}

/// Writes for so many characters.
fn put(out: &mut Vec<char>, read: usize, written: &[char]) -> usize {
    out.extend_from_slice(written);
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::metric::golden;

    #[test]
    fn tokens_equal_the_references() {
        let golden = golden();
        let rows = golden["tokens"].as_array().expect("list");
        assert!(rows.len() > 100);
        for row in rows {
            let text = row["text"].as_str().expect("a text");
            assert_eq!(serde_json::json!(word_tokenize(text)), row["nltk"], "NLTK of {text:?}");
            let lower = text.to_lowercase();
            assert_eq!(serde_json::json!(words(&lower).collect::<Vec<_>>()), row["words"], "words of {text:?}");
            for tokenization in Tokenization::ALL {
                let line = tokenization.line(text);
                let found = serde_json::json!(split(&line).collect::<Vec<_>>());
                assert_eq!(found, row[tokenization.name()], "{} of {text:?}", tokenization.name());
            }
        }
    }
}
