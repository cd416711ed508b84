//! The text of tokens that come one by one, and what a text can be written with.

use std::collections::HashSet;

use super::Tokenizer;
use crate::error::{Error, Result};

/// What stands for bytes that are no character, or not yet.
const NO_CHARACTER: char = '\u{fffd}';

/// The text of token ids that come one by one. A token may be a part of a character, and what it is written as may depend on the
/// one before it: so what is new is what a few tokens together say beyond what they said without the last.
///
/// ```
/// use rpo::tokenizer::{TextStream, Tokenizer, word_level};
///
/// let tokenizer = Tokenizer::parse(&word_level(&["say", "yes"]))?;
/// let mut stream = TextStream::default();
/// assert_eq!(stream.push(3, &tokenizer)?, "say");
/// assert_eq!(stream.push(4, &tokenizer)?, "say yes");
/// # Ok::<(), rpo::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    /// The last tokens: at least one that says something, and all whose text is not settled.
    window: Vec<u32>,
    /// How many of them are settled.
    settled: usize,
    /// What those say.
    known: String,
    /// What all tokens say.
    text: String,
    /// Bytes of it that are settled.
    firm: usize,
}

impl TextStream {
    /// Takes up a token. Returns the text of all so far without special tokens and without a character that is not whole yet:
    /// it only grows, and once characters are whole it is what [`Tokenizer::decode`] gives for all ids together.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32, tokenizer: &Tokenizer) -> Result<&str> {
        self.window.push(id);
        let said = tokenizer.decode(&self.window)?;
        // Bytes of an unfinished character may spoil those before them until it is whole.
        let Some(new) = said.strip_prefix(&self.known) else { return Ok(&self.text) };
        let whole = new.trim_end_matches(NO_CHARACTER);
        if self.firm + whole.len() >= self.text.len() {
            self.text.truncate(self.firm);
            self.text.push_str(whole);
        }
        if whole.len() < new.len() {
            return Ok(&self.text);
        }
        self.firm = self.text.len();
        let alone = tokenizer.decode(&self.window[self.settled..])?;
        if alone.is_empty() {
            self.known = said;
        } else {
            self.window.drain(..self.settled);
            self.known = alone;
        }
        self.settled = self.window.len();
        Ok(&self.text)
    }
}

impl Tokenizer {
    /// The id of the token that is called `name`, as the vocabulary writes it.
    pub fn token_id(&self, name: &str) -> Option<u32> {
        self.inner.token_to_id(name)
    }

    /// The id of the special token `name`, which texts do not show.
    pub fn special_id(&self, name: &str) -> Option<u32> {
        self.token_id(name).filter(|id| self.special.contains(id))
    }

    /// The sequences of tokens that say `text`: a token of that name, and it as it is written at the beginning of a text and behind a
    /// blank; for a special token that alone. None of them is empty.
    ///
    /// # Errors
    /// If it cannot be written without `<unk>`, or the tokenizer's own model fails on it.
    pub fn spellings(&self, text: &str) -> Result<Vec<Vec<u32>>> {
        let named: Vec<Vec<u32>> = self.token_id(text).map(|id| vec![id]).into_iter().collect();
        if self.special_id(text).is_some() {
            return Ok(named);
        }
        let mut found = named;
        for written in [self.ids(text)?, self.ids(&format!(" {text}"))?] {
            let known = !written.is_empty() && written.iter().all(|id| Some(*id) != self.unk);
            if known && !found.contains(&written) {
                found.push(written);
            }
        }
        match found.is_empty() {
            true => Err(Error::Text(format!("it has no token for `{text}`"))),
            false => Ok(found),
        }
    }

    /// A character of `text` that no token has, if there is one: then no answer contains the text.
    ///
    /// # Errors
    /// If the tokenizer's own model fails on the text.
    pub fn unwritable(&self, text: &str) -> Result<Option<char>> {
        let ids = self.ids(text)?;
        if !self.unk.is_some_and(|unk| ids.contains(&unk)) {
            return Ok(None);
        }
        let vocabulary = self.inner.get_vocab(true);
        let known: HashSet<char> = vocabulary.keys().flat_map(|token| token.chars()).collect();
        Ok(text.chars().find(|c| !c.is_whitespace() && !known.contains(c)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::tests::words;

    /// Tokens `<0x00>` to `<0xFF>` with those of `words`, as Llama's tokenizer writes what it has no words for; a word begins
    /// with a blank.
    fn bytes_and(words: &[&str]) -> Tokenizer {
        let names = ["<pad>", "</s>", "<unk>"].map(String::from).into_iter();
        let names = names.chain((0..256).map(|byte| format!("<0x{byte:02X}>")));
        let names = names.chain(words.iter().map(|word| (*word).to_string()));
        let vocab: serde_json::Map<_, _> = names.enumerate().map(|(id, name)| (name, id.into())).collect();
        let special = serde_json::json!([{"id": 1, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                                          "normalized": false, "special": true}]);
        let decoder = serde_json::json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": special, "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": decoder,
            "model": {"type": "BPE", "vocab": vocab, "merges": [], "unk_token": "<unk>", "byte_fallback": true}
        });
        Tokenizer::parse(&json.to_string()).expect("valid")
    }

    const BYTES: u32 = 3;
    const WORDS: u32 = BYTES + 256;

    fn texts(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
        let mut stream = TextStream::default();
        ids.iter().map(|id| stream.push(*id, tokenizer).expect("decodes").to_string()).collect()
    }

    #[test]
    fn characters_come_when_they_are_whole() {
        let t = bytes_and(&["▁a", "b"]);
        // a, the three bytes of 你, b, the two of ä, the end.
        let ids: Vec<u32> = [0xE4, 0xBD, 0xA0].map(|byte| BYTES + byte).to_vec();
        let ids = [&[WORDS], &ids[..], &[WORDS + 1, BYTES + 0xC3, BYTES + 0xA4, WORDS, 1]].concat();
        assert_eq!(texts(&t, &ids), ["a", "a", "a", "a你", "a你b", "a你b", "a你bä", "a你bä a", "a你bä a"]);
        // Two characters of bytes in a row: the first byte of the second spoils the first for a moment.
        let two = [0xC3, 0xA4, 0xC3, 0xB6].map(|byte| BYTES + byte);
        assert_eq!(texts(&t, &two), ["", "ä", "ä", "äö"]);
        // Bytes that never become a character show when something else follows.
        assert_eq!(texts(&t, &[WORDS, BYTES + 0xC3, WORDS]), ["a", "a", "a\u{fffd} a"]);
    }

    /// Tokens for all bytes from 3 on, as GPT-2's tokenizer writes them.
    fn bytes_as_letters() -> Tokenizer {
        let shown = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let hidden = |byte: u32| 256 + (0..byte).filter(|other| !shown(*other)).count() as u32;
        let letter = |byte: u32| char::from_u32(if shown(byte) { byte } else { hidden(byte) }).expect("a letter");
        let names = ["<pad>", "</s>", "<unk>"].map(String::from).into_iter();
        let names = names.chain((0..256).map(|byte| letter(byte).to_string()));
        let vocab: serde_json::Map<_, _> = names.enumerate().map(|(id, name)| (name, id.into())).collect();
        let level = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": level, "post_processor": null, "decoder": level,
            "model": {"type": "BPE", "vocab": vocab, "merges": []}
        });
        Tokenizer::parse(&json.to_string()).expect("valid")
    }

    #[test]
    fn every_byte_may_be_a_token() {
        let t = bytes_as_letters();
        let text = "né 猫👩‍👧\n ok";
        let ids: Vec<u32> = text.bytes().map(|byte| BYTES + u32::from(byte)).collect();
        for (n, now) in (1..).zip(texts(&t, &ids)) {
            let whole = (0..=n).rev().find(|end| text.is_char_boundary(*end)).expect("the beginning");
            assert_eq!(now, text[..whole]);
        }
    }

    #[test]
    fn blanks_between_words_and_special_tokens_are_as_in_the_whole_text() {
        let t = bytes_and(&["▁", "▁a", "b"]);
        for ids in [[0, 1, 2, 1], [1, 0, 0, 2], [2, 2, 1, 0], [0, 0, 0, 1]] {
            let ids: Vec<u32> = [1].into_iter().chain(ids.map(|id| WORDS + id)).chain([1]).collect();
            let all = texts(&t, &ids);
            for (n, text) in all.iter().enumerate() {
                assert_eq!(*text, t.decode(&ids[..=n]).expect("decodes"), "{ids:?}");
            }
        }
        let t = words();
        let ids = [4, 1, 5, 3, 3, 6];
        assert_eq!(texts(&t, &ids).last(), Some(&t.decode(&ids).expect("decodes")), "words that blanks part");
    }

    #[test]
    fn what_no_token_has_is_found() {
        let t = words();
        assert_eq!(t.unwritable("a b").expect("encodes"), None);
        assert_eq!(t.unwritable("ab").expect("encodes"), None, "an unknown word of known letters may be a part of one");
        assert_eq!(t.unwritable("a zebra").expect("encodes"), Some('z'));
        assert_eq!(t.spellings("a c").expect("words"), [[4, 6]]);
        assert_eq!(t.spellings("</s>").expect("special"), [[1]]);
        assert!(t.spellings("a zebra").expect_err("unknown").to_string().contains("no token for `a zebra`"));
        let t_of_bytes = bytes_as_letters();
        let byte = |letter: u8| BYTES + u32::from(letter);
        let expected = [vec![byte(b'o')], vec![byte(b' '), byte(b'o')]];
        assert_eq!(t_of_bytes.spellings("o").expect("bytes"), expected, "at the beginning and behind a blank");
        assert_eq!((t.special_id("</s>"), t.special_id("a"), t.token_id("a")), (Some(1), None, Some(4)));
    }
}
