//! Text to token ids and back, by a Hugging Face `tokenizer.json`. It knows nothing of models or feedback.

mod agreement;
mod chat;
mod stream;

use std::collections::HashSet;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use stream::TextStream;
use tokenizers::Tokenizer as Inner;

use crate::border::guarded;
use crate::chat::Writing;
use crate::error::{Error, Result};
use crate::store::within;

const PAD: &str = "<pad>";
const EOS: &str = "</s>";

/// Which end of a text is cut that is longer than allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// What comes last is lost, as transformers does by default.
    #[default]
    End,
    /// What comes first is lost: in a conversation, what was said last is what is to be answered.
    Start,
}

/// Token ids of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Ids, with what ends texts but for a response that was cut and the prompt of a decoder-only model.
    pub ids: Vec<u32>,
    /// Tokens of the whole text, `</s>` among them; more than there are ids if the text was cut.
    pub length: usize,
    /// How many ids are `<unk>`.
    pub unknown: usize,
    /// Whether there is nothing to see in the text: it is blank, or of control characters, invisible ones or `</s>` alone.
    pub blank: bool,
    /// How many special tokens the text spells out, such as `<extra_id_1>`, or `</s>` before its end.
    pub special: usize,
    /// A hash of the ids before any cut.
    pub whole: blake3::Hash,
    /// Whether it is a prompt that the model's chat template wrote.
    pub templated: bool,
}

impl Encoded {
    /// Whether the text was longer than allowed.
    pub fn truncated(&self) -> bool {
        self.length > self.ids.len()
    }
}

/// Texts of more bytes are encoded piece by piece, between words: the tokenizer needs some forty times their size at once.
/// Where twice as many bytes have no blank, which no language does, a piece ends all the same, and the tokens there may differ.
const PIECE: usize = 1 << 20;

/// A tokenizer with the special tokens that begin and end texts.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Inner,
    /// The largest id of a token.
    largest: u32,
    eos: u32,
    /// What ends an answer to a prompt that the chat template wrote.
    turn_end: u32,
    unk: Option<u32>,
    /// What it begins texts with of its own (BOS), if anything.
    begin: Vec<u32>,
    /// Whether a prompt ends with `eos`, as for an encoder, or is left open for what continues it.
    ends_prompts: bool,
    /// Special tokens but for `<unk>`.
    special: HashSet<u32>,
    /// What earlier outputs may leave at the ends of a text: the names of padding, beginning and end.
    ends: Vec<String>,
    /// How prompts are written.
    writing: Writing,
    /// Of the file and of how prompts are written.
    fingerprint: blake3::Hash,
}

/// The names of special tokens, as `tokenizer_config.json` has them.
#[derive(Clone, Debug, Default)]
struct Names {
    pad: Option<String>,
    bos: Option<String>,
    eos: Option<String>,
}

impl Names {
    /// Those of the settings beside `path`; none if there are none.
    fn beside(path: &Path) -> Result<Self> {
        let settings = within::read_if_there(&path.with_file_name("tokenizer_config.json"), within::SETTINGS)?;
        let settings: serde_json::Value =
            settings.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let name = |field: &str| {
            let value = &settings[field];
            value.as_str().or_else(|| value["content"].as_str()).map(str::to_string)
        };
        Ok(Self { pad: name("pad_token"), bos: name("bos_token"), eos: name("eos_token") })
    }
}

impl Tokenizer {
    /// Loads `path`, a `tokenizer.json` or a directory that holds one.
    ///
    /// # Errors
    /// If the file is missing or malformed, or has no token that ends a text: `</s>`, or the `eos_token` of the
    /// `tokenizer_config.json` beside it.
    pub fn load(path: &Path) -> Result<Self> {
        let (path, bytes) = match path.join("tokenizer.json") {
            inside if path.is_dir() => (inside.clone(), within::read(&inside, within::VOCABULARY)?),
            _ => (path.to_path_buf(), within::given(path, within::VOCABULARY)?),
        };
        let bad = |problem: String| Error::file(&path, format!("not a usable tokenizer.json: {problem}"));
        Self::of_bytes(&bytes, Names::beside(&path)?).map_err(bad)
    }

    /// A tokenizer from the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// If it is malformed, or has no `</s>`.
    pub fn parse(json: &str) -> Result<Self> {
        Self::of_bytes(json.as_bytes(), Names::default())
            .map_err(|problem| Error::Text(format!("not a usable tokenizer.json: {problem}")))
    }

    fn of_bytes(bytes: &[u8], names: Names) -> std::result::Result<Self, String> {
        let mut inner = guarded(|| Inner::from_bytes(bytes))?.map_err(|e| e.to_string())?;
        // Length limits stored in the file would cut in front of `</s>` and add it back; ours must not fake an end.
        inner.with_truncation(None).map_err(|e| e.to_string())?;
        inner.with_padding(None);
        let end = names.eos.unwrap_or_else(|| EOS.into());
        let eos = inner.token_to_id(&end).ok_or_else(|| format!("it has no token `{end}`"))?;
        let pad = names.pad.unwrap_or_else(|| PAD.into());
        let unk = inner.token_to_id("<unk>");
        let of_nothing = guarded(|| inner.encode_fast("", true))?.map_err(|e| e.to_string())?.get_ids().to_vec();
        let largest = inner.get_vocab(true).into_values().max().unwrap_or_default();
        let begin = of_nothing.strip_suffix(&[eos]).unwrap_or(&of_nothing).to_vec();
        let added = inner.get_added_tokens_decoder().into_iter().filter(|(_, token)| token.special).map(|(id, _)| id);
        let special = added.chain([eos]).chain(inner.token_to_id(&pad)).filter(|id| Some(*id) != unk).collect();
        let fingerprint = *blake3::Hasher::new().update(bytes).update(&eos.to_le_bytes()).finalize().as_bytes();
        let ends = [pad, end].into_iter().chain(names.bos).collect();
        let (writing, fingerprint) = (Writing::Plain, fingerprint.into());
        Ok(Self {
            inner,
            largest,
            eos,
            turn_end: eos,
            unk,
            begin,
            ends_prompts: true,
            special,
            ends,
            writing,
            fingerprint,
        })
    }

    /// The same tokenizer for a model that continues its prompts: these begin as the tokenizer begins texts and do not end.
    #[must_use]
    pub fn decoder_only(self) -> Self {
        let fingerprint = blake3::hash(&[self.fingerprint.as_bytes().as_slice(), b"decoder-only"].concat());
        Self { ends_prompts: false, fingerprint, ..self }
    }

    /// Encodes a prompt that is written plainly in at most `limit` ids. What begins and ends prompts is there however it is cut, as in transformers.
    ///
    /// # Errors
    /// If the tokenizer's own model fails on the text.
    pub fn prompt(&self, text: &str, limit: usize, cut: Cut) -> Result<Encoded> {
        let mut encoded = self.encode(text, self.eos)?;
        let text = encoded.length - 1;
        let (begin, end): (&[u32], &[u32]) = match self.ends_prompts {
            true => (&[], &[self.eos]),
            false => (&self.begin, &[]),
        };
        let room = limit.saturating_sub(begin.len() + end.len()).min(text);
        let kept = match cut {
            Cut::End => 0..room,
            Cut::Start => text - room..text,
        };
        encoded.ids = [begin, &encoded.ids[kept], end].concat();
        encoded.length = begin.len() + text + end.len();
        Ok(self.counted(encoded))
    }

    /// Encodes a response in at most `limit` ids. One that is cut has no end, for the text does not end there.
    ///
    /// # Errors
    /// If the tokenizer's own model fails on the text.
    pub fn response(&self, text: &str, limit: usize) -> Result<Encoded> {
        self.ended(text, limit, self.eos)
    }

    fn ended(&self, text: &str, limit: usize, end: u32) -> Result<Encoded> {
        let mut encoded = self.encode(text, end)?;
        encoded.ids.truncate(limit);
        Ok(self.counted(encoded))
    }

    fn counted(&self, encoded: Encoded) -> Encoded {
        let unknown = encoded.ids.iter().filter(|&&id| Some(id) == self.unk).count();
        Encoded { unknown, ..encoded }
    }

    /// Encodes a whole text and `end`. What earlier outputs leave at its ends, such as `<pad>` and `</s>`, is no part of it.
    fn encode(&self, text: &str, end: u32) -> Result<Encoded> {
        let text = without_ends(text, &self.ends);
        let mut ids = self.ids(text)?;
        let special = ids.iter().filter(|id| self.special.contains(id)).count();
        ids.push(end);
        let blank = is_blank(text) || ids.len() == 1;
        Ok(Encoded { length: ids.len(), unknown: 0, blank, special, whole: hash(&ids), templated: false, ids })
    }

    /// The ids of a text as it stands.
    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for piece in pieces(text, PIECE) {
            let encoding = guarded(|| self.inner.encode_fast(piece, false)).map_err(Error::Text)?;
            let encoding = encoding.map_err(|e| Error::Text(e.to_string()))?;
            ids.extend_from_slice(encoding.get_ids());
        }
        Ok(ids)
    }

    /// The text of `ids`, without special tokens.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        guarded(|| self.inner.decode(ids, true)).map_err(Error::Text)?.map_err(|e| Error::Text(e.to_string()))
    }

    /// The text of `ids` with special tokens spelled out.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn decode_with_special(&self, ids: &[u32]) -> Result<String> {
        guarded(|| self.inner.decode(ids, false)).map_err(Error::Text)?.map_err(|e| Error::Text(e.to_string()))
    }

    /// A hash of the file that it was loaded from and of how it writes prompts.
    pub fn fingerprint(&self) -> blake3::Hash {
        self.fingerprint
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The largest id of a token, which need not be their number less one.
    pub fn largest_id(&self) -> u32 {
        self.largest
    }

    /// Id of what ends a response.
    pub fn eos_id(&self) -> u32 {
        self.eos
    }
}

/// The text of a `tokenizer.json` of words that blanks part, for small languages: `<pad>` is 0, `</s>` 1 and `<unk>` 2, and the
/// words follow; those in angle brackets are special tokens too.
///
/// ```
/// use rpo::tokenizer::{Tokenizer, word_level};
///
/// let tokenizer = Tokenizer::parse(&word_level(&["say", "yes", "no"]))?;
/// assert_eq!(tokenizer.response("yes no", 9)?.ids, [4, 5, 1]);
/// # Ok::<(), rpo::Error>(())
/// ```
pub fn word_level(words: &[&str]) -> String {
    let tokens: Vec<&str> = [PAD, EOS, "<unk>"].iter().chain(words).copied().collect();
    let vocab: serde_json::Map<_, _> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_string(), id.into())).collect();
    let special = tokens.iter().enumerate().filter(|(_, token)| token.starts_with('<') && token.ends_with('>'));
    let added: Vec<_> = special
        .map(|(id, content)| {
            serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                               "normalized": false, "special": true})
        })
        .collect();
    let post = serde_json::json!({
        "type": "TemplateProcessing", "pair": [],
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": EOS, "type_id": 0}}],
        "special_tokens": {EOS: {"id": EOS, "ids": [1], "tokens": [EOS]}}
    });
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": post, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
    })
    .to_string()
}

/// Characters without width: spaces, joiners, marks of direction and of the order of bytes.
const INVISIBLE: [char; 10] = [
    '\u{ad}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{200e}', '\u{200f}', '\u{2060}', '\u{feff}', '\u{180e}',
    '\u{2063}',
];

/// Whether there is nothing to see in a text.
fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || c.is_control() || INVISIBLE.contains(&c))
}

fn hash(ids: &[u32]) -> blake3::Hash {
    blake3::hash(&ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>())
}

/// `text` without any of `ends` at its ends and the blanks beside them.
fn without_ends<'a>(text: &'a str, ends: &[String]) -> &'a str {
    let mut rest = text;
    loop {
        let trimmed = rest.trim();
        let strip = |end: &String| trimmed.strip_prefix(end.as_str()).or_else(|| trimmed.strip_suffix(end.as_str()));
        match ends.iter().filter(|end| !end.is_empty()).find_map(strip) {
            Some(shorter) => rest = shorter.trim(),
            None => return rest,
        }
    }
}

/// A text in pieces of about `most` bytes that end between words, which tokenizers look at one by one, or else after twice as
/// many.
fn pieces(text: &str, most: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while rest.len() > 2 * most {
        let (from, to) = (rest.ceil_char_boundary(most), rest.ceil_char_boundary(2 * most));
        // A blank behind a character that is none: runs of blanks stay together.
        let between = rest[from..to].char_indices().zip(rest[from..to].chars().skip(1));
        let end = between
            .into_iter()
            .find_map(|((i, c), next)| (!c.is_whitespace() && next == ' ').then(|| from + i + c.len_utf8()));
        let (piece, behind) = rest.split_at(end.unwrap_or(to));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Words by blanks, with T5's special tokens.
    pub(crate) fn words() -> Tokenizer {
        Tokenizer::parse(&word_level(&["<extra_id_0>", "a", "b", "c"])).expect("valid")
    }

    #[test]
    fn a_cut_prompt_keeps_its_end_of_sequence_and_a_cut_response_has_none() {
        let t = words();
        let prompt = |limit, cut| t.prompt("a b c", limit, cut).expect("encodes").ids;
        assert_eq!(prompt(4, Cut::End), [4, 5, 6, 1]);
        assert_eq!(prompt(3, Cut::End), [4, 5, 1]);
        assert_eq!(prompt(3, Cut::Start), [5, 6, 1]);
        assert_eq!(prompt(1, Cut::End), [1]);
        assert_eq!(prompt(1, Cut::Start), [1]);
        let cut = t.response("a b c", 3).expect("encodes");
        assert_eq!((cut.ids.as_slice(), cut.length, cut.truncated()), (&[4, 5, 6][..], 4, true));
        assert!(!t.response("a b c", 4).expect("encodes").truncated());
    }

    #[test]
    fn prompts_of_decoder_only_models_begin_and_do_not_end() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let json = word_level(&["<s>", "a", "b", "c"]).replace(
            r#"[{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"</s>","type_id":0}}]"#,
            r#"[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}]"#,
        );
        let json = json.replace(
            r#""special_tokens":{"</s>":{"id":"</s>","ids":[1],"tokens":["</s>"]}}"#,
            r#""special_tokens":{"<s>":{"id":"<s>","ids":[3],"tokens":["<s>"]}}"#,
        );
        std::fs::write(dir.path().join("tokenizer.json"), json).expect("write");
        let settings = r#"{"bos_token":{"content":"<s>"},"eos_token":"<unk>"}"#;
        std::fs::write(dir.path().join("tokenizer_config.json"), settings).expect("write");
        let t = Tokenizer::load(dir.path()).expect("valid").decoder_only();
        assert_eq!(t.eos_id(), 2);
        let prompt = |limit, cut| t.prompt("<s> a b c", limit, cut).expect("encodes");
        assert_eq!((prompt(9, Cut::End).ids, prompt(9, Cut::End).truncated()), (vec![3, 4, 5, 6], false));
        assert_eq!((prompt(3, Cut::End).ids, prompt(3, Cut::End).length), (vec![3, 4, 5], 4));
        assert_eq!(prompt(3, Cut::Start).ids, [3, 5, 6]);
        assert_eq!(t.response("a", 9).expect("encodes").ids, [4, 2]);
        assert_eq!(t.response("a b", 2).expect("encodes").ids, [4, 5]);
    }

    #[test]
    fn special_tokens_at_the_ends_are_no_part_of_a_text_and_those_inside_are_counted() {
        let t = words();
        let encode = |text: &str| t.response(text, 99).expect("encodes");
        for text in ["a b", "a b</s>", "<pad> a b</s>", "<pad><pad>a b </s></s><pad>\n", " a b </s>"] {
            assert_eq!((encode(text).ids, encode(text).special), (vec![4, 5, 1], 0), "{text}");
        }
        let inside = encode("a <extra_id_0> b </s> c");
        assert_eq!((inside.ids.as_slice(), inside.special), (&[4, 3, 5, 1, 6, 1][..], 2));
        assert_eq!((encode("x a").unknown, encode("x a").special), (1, 0), "unknown words are no special tokens");
        assert_eq!(encode("</s>").ids, [1]);
        assert_ne!(encode("a").whole, encode("b").whole);
    }

    #[test]
    fn long_texts_are_parted_between_words() {
        let text = "ab  cd efg   h ij";
        for most in 1..20 {
            let parts = pieces(text, most);
            assert_eq!(parts.concat(), text);
            assert!(parts.iter().all(|part| part.len() <= 2 * most.max(1)), "{parts:?}");
        }
        assert_eq!(pieces("ab cd efg h ij", 4), ["ab cd", " efg h", " ij"]);
        assert_eq!(pieces("abcd    cd ef", 3), ["abcd", "    cd", " ef"], "runs of blanks stay together");
        assert_eq!(pieces("abcdefgh", 2), ["abcd", "efgh"], "there is no blank to part it at");
        assert_eq!(pieces("äääää", 2), ["ää", "ää", "ä"]);
    }
}
