//! Whether two tokenizers mean the same by their ids, so that two models can score the same tokens.

use rayon::prelude::*;

use super::Tokenizer;
use crate::error::Result;

impl Tokenizer {
    /// The token that `id` stands for, as the vocabulary spells it; `None` for no token.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// What `other` does otherwise with these token ids and these texts, in words; `None` if it does nothing otherwise. What
    /// either adds around a text does not matter.
    ///
    /// # Errors
    /// If the model of a tokenizer fails on a text.
    pub(crate) fn differs_from(&self, other: &Self, ids: &[u32], texts: &[&str]) -> Result<Option<String>> {
        let spelt = |token: Option<String>| token.map_or("no token".into(), |token| format!("`{token}`"));
        if let Some(&id) = ids.iter().find(|&&id| self.token(id) != other.token(id)) {
            return Ok(Some(format!(
                "token {id} is {} to one and {} to the other",
                spelt(self.token(id)),
                spelt(other.token(id))
            )));
        }
        let same = |text: &&str| Ok(self.ids(text)? == other.ids(text)?);
        let same: Vec<bool> = texts.par_iter().map(same).collect::<Result<_>>()?;
        let first = same.into_iter().position(|same| !same);
        Ok(first.map(|i| {
            let shown: String = texts[i].chars().take(40).collect();
            format!("they cut up {shown:?} into different tokens")
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::word_level;
    use super::*;

    #[test]
    fn tokenizers_agree_by_what_their_ids_mean_and_how_they_part_texts() {
        let of = |words: &[&str]| Tokenizer::parse(&word_level(words)).expect("valid");
        let (ours, more, other) = (of(&["a", "b"]), of(&["a", "b", "c"]), of(&["b", "a"]));
        assert_eq!(ours.token(3).as_deref(), Some("a"));
        assert_eq!(ours.differs_from(&more, &[3, 4, 1], &["a b"]).expect("encodes"), None, "tokens that nobody uses");
        let said = ours.differs_from(&other, &[3, 4], &["a b"]).expect("encodes").expect("other ids");
        assert_eq!(said, "token 3 is `a` to one and `b` to the other");
        let said = ours.differs_from(&more, &[3, 2], &["a", "a c"]).expect("encodes").expect("c is known to one");
        assert!(said.contains("\"a c\""), "{said}");
    }
}
