//! Texts to the ids of an encoder's tokens, by its `tokenizer.json` or, lacking that, by the vocabulary of BERT's or RoBERTa's own
//! tokenizer; and packed batches of them.

use std::path::Path;

use rayon::prelude::*;
use rpo_ops::Segments;
use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::bert::BertNormalizer;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, NormalizerWrapper, Tokenizer, TruncationParams};

use super::config::Config;
use crate::border::guarded;
use crate::error::{Error, Result};
use crate::store::within;

const TOKENIZER: &str = "tokenizer.json";
const WORDPIECE: &str = "vocab.txt";
const BPE_RANKS: [&str; 2] = ["vocab.json", "merges.txt"];
/// The files that an encoder's vocabulary may lie in, first choice first.
pub(super) const VOCABULARIES: [&[&str]; 3] = [&[TOKENIZER], &[WORDPIECE], &BPE_RANKS];

/// An encoder's tokenizer.
#[derive(Clone, Debug)]
pub struct Texts {
    inner: Tokenizer,
    /// What begins and ends a text.
    ends: [u32; 2],
    /// Tokens of the longest text, its ends among them.
    longest: usize,
    byte_level: bool,
    about: String,
}

/// The tokens of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Their ids, with what begins and ends a text.
    pub ids: Vec<u32>,
    /// Whether the text was longer than the encoder reads; then its end is lost.
    pub cut: bool,
}

/// What `tokenizer_config.json` and `special_tokens_map.json` say.
struct Settings([Value; 2]);

impl Settings {
    fn beside(dir: &Path) -> Result<Self> {
        let read = |name| {
            let text = within::read_if_there(&dir.join(name), within::SETTINGS)?;
            Ok(text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default())
        };
        Ok(Self([read("tokenizer_config.json")?, read("special_tokens_map.json")?]))
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.0[0][name].as_bool()
    }

    /// The name of a special token.
    fn token(&self, name: &str, otherwise: &str) -> String {
        let named =
            |value: &Value| value[name].as_str().or_else(|| value[name]["content"].as_str()).map(str::to_string);
        self.0.iter().find_map(named).unwrap_or_else(|| otherwise.into())
    }

    /// BERT's normaliser as transformers sets it up.
    fn normalizer(&self) -> BertNormalizer {
        let chinese = self.flag("tokenize_chinese_chars").unwrap_or(true);
        BertNormalizer::new(true, chinese, self.flag("strip_accents"), self.flag("do_lower_case").unwrap_or(true))
    }
}

impl Texts {
    /// Reads the tokenizer in `dir`.
    ///
    /// # Errors
    /// If there is none or it cannot be read, if it does not begin and end texts with one token each, or has more tokens than the
    /// encoder.
    pub fn load(dir: &Path, config: &Config) -> Result<Self> {
        let settings = Settings::beside(dir)?;
        let (path, about) = match VOCABULARIES.map(|names| dir.join(names[0])) {
            [whole, ..] if within::is_there(&whole) => (whole, TOKENIZER),
            [_, words, _] if within::is_there(&words) => (words, "BERT's WordPiece by vocab.txt"),
            [_, _, ranks] if within::is_there(&ranks) => {
                (ranks, "RoBERTa's byte-level BPE by vocab.json and merges.txt")
            }
            _ => {
                let problem = format!(
                    "no {TOKENIZER}, no {WORDPIECE} and no {}; transformers writes one: \
                     AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
                    BPE_RANKS.join(" with ")
                );
                return Err(Error::file(dir, problem));
            }
        };
        let bad = |problem: String| Error::file(&path, format!("not a usable tokenizer: {problem}"));
        within::check(&path, within::VOCABULARY)?;
        let read = guarded(|| match about {
            TOKENIZER => Ok(whole(&path, &settings)),
            _ if path.ends_with(WORDPIECE) => Ok(wordpiece(&path, &settings)),
            _ => within::check(&dir.join(BPE_RANKS[1]), within::VOCABULARY).map(|()| byte_level_bpe(dir, &settings)),
        });
        let mut inner = read.map_err(bad)??.map_err(|e| bad(e.to_string()))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| bad(e.to_string()))?;
        let of_nothing = guarded(|| inner.encode_fast("", true)).map_err(bad)?.map_err(|e| bad(e.to_string()))?;
        let [begin, end] = of_nothing.get_ids()[..] else {
            let problem = format!(
                "it makes of an empty text the ids {:?}, not one that begins texts and one that ends them",
                of_nothing.get_ids()
            );
            return Err(bad(problem));
        };
        let largest = inner.get_vocab(true).into_values().max().unwrap_or_default();
        if largest as usize >= config.vocab_size {
            let problem = format!(
                "it has a token of id {largest} but the encoder only {} (vocab_size); they are not made for each other",
                config.vocab_size
            );
            return Err(bad(problem));
        }
        // Some settings have 10^30 for no limit.
        let limit = settings.0[0]["model_max_length"].as_u64().map_or(usize::MAX, |limit| limit as usize);
        let longest = limit.min(config.longest()).max(2);
        inner
            .with_truncation(Some(TruncationParams { max_length: longest, ..TruncationParams::default() }))
            .map_err(|e| bad(e.to_string()))?;
        let byte_level = match inner.get_pre_tokenizer() {
            Some(PreTokenizerWrapper::ByteLevel(_)) => true,
            Some(PreTokenizerWrapper::Sequence(parts)) => {
                parts.as_ref().iter().any(|part| matches!(part, PreTokenizerWrapper::ByteLevel(_)))
            }
            _ => false,
        };
        Ok(Self { inner, ends: [begin, end], longest, byte_level, about: about.into() })
    }

    /// What begins and what ends every text: `[CLS]` and `[SEP]`, or `<s>` and `</s>`.
    pub fn ends(&self) -> [u32; 2] {
        self.ends
    }

    /// Tokens of the longest text, its ends among them.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Whether tokens are made of bytes, so that a blank before a word is part of its token.
    pub fn byte_level(&self) -> bool {
        self.byte_level
    }

    /// Where the vocabulary was read from.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// The tokens of each text, the end of which is cut off where it is too long.
    ///
    /// # Errors
    /// If the tokenizer's own model fails on a text.
    pub fn encode<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Tokens>> {
        let encode = |text: &T| {
            let encoding = guarded(|| self.inner.encode_fast(text.as_ref(), true)).map_err(Error::Text)?;
            let encoding = encoding.map_err(|e| Error::Text(e.to_string()))?;
            Ok(Tokens { ids: encoding.get_ids().to_vec(), cut: !encoding.get_overflowing().is_empty() })
        };
        texts.par_iter().map(encode).collect()
    }
}

type Read = std::result::Result<Tokenizer, tokenizers::Error>;

fn whole(path: &Path, settings: &Settings) -> Read {
    let mut inner = Tokenizer::from_file(path)?;
    // The settings beside it win, as in transformers.
    if let (Some(NormalizerWrapper::BertNormalizer(_)), Some(_)) =
        (inner.get_normalizer(), settings.flag("do_lower_case"))
    {
        inner.with_normalizer(Some(settings.normalizer()))?;
    }
    Ok(inner)
}

/// What all special tokens of BERT and RoBERTa are for.
const SPECIAL: [&str; 5] = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"];

fn finished(inner: &mut Tokenizer, special: [String; 5]) -> std::result::Result<(), tokenizers::Error> {
    let [_, _, begin, end, _] = special.clone().map(|token| {
        let id = inner.token_to_id(&token);
        (token, id)
    });
    let found = |(token, id): (String, Option<u32>)| {
        id.map(|id| (token.clone(), id)).ok_or(format!("it has no token `{token}`"))
    };
    let processor = BertProcessing::new(found(end)?, found(begin)?);
    inner.with_post_processor(Some(processor));
    let known: Vec<AddedToken> = special
        .into_iter()
        .filter(|token| inner.token_to_id(token).is_some())
        .map(|token| AddedToken::from(token, true))
        .collect();
    inner.add_special_tokens(known)?;
    Ok(())
}

fn wordpiece(path: &Path, settings: &Settings) -> Read {
    let names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let special: [String; 5] = std::array::from_fn(|i| settings.token(SPECIAL[i], names[i]));
    let model = WordPiece::from_file(&path.to_string_lossy()).unk_token(special[1].clone()).build()?;
    let mut inner = Tokenizer::new(model);
    inner.with_normalizer(Some(settings.normalizer()))?;
    inner.with_pre_tokenizer(Some(BertPreTokenizer));
    finished(&mut inner, special)?;
    Ok(inner)
}

fn byte_level_bpe(dir: &Path, settings: &Settings) -> Read {
    let names = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"];
    let special: [String; 5] = std::array::from_fn(|i| settings.token(SPECIAL[i], names[i]));
    let [ranks, merges] = BPE_RANKS.map(|name| dir.join(name).to_string_lossy().into_owned());
    let model = BPE::from_file(&ranks, &merges).unk_token(special[1].clone()).build()?;
    let mut inner = Tokenizer::new(model);
    inner.with_pre_tokenizer(Some(ByteLevel::new(settings.flag("add_prefix_space").unwrap_or(false), false, true)));
    finished(&mut inner, special)?;
    Ok(inner)
}

/// Texts in packed batches of about one length, the longest first.
pub struct Batches<'a> {
    texts: &'a [Tokens],
    /// By length; the rest is still to come.
    order: Vec<usize>,
    budget: usize,
    next: usize,
}

impl<'a> Batches<'a> {
    /// The texts `which` of `texts` in batches of at most `budget` tokens, or of one text.
    pub fn new(texts: &'a [Tokens], which: impl IntoIterator<Item = usize>, budget: usize) -> Self {
        let mut order: Vec<usize> = which.into_iter().collect();
        order.sort_by_key(|&i| std::cmp::Reverse(texts[i].ids.len()));
        Self { texts, order, budget, next: 0 }
    }
}

impl Iterator for Batches<'_> {
    /// Which texts, their ids end to end, and where each begins.
    type Item = (Vec<usize>, Vec<u32>, Segments);

    fn next(&mut self) -> Option<Self::Item> {
        let mut tokens = 0;
        let fits = |&&i: &&usize| {
            let before = tokens;
            tokens += self.texts[i].ids.len();
            before == 0 || tokens <= self.budget
        };
        let which: Vec<usize> = self.order[self.next..].iter().take_while(fits).copied().collect();
        self.next += which.len();
        if which.is_empty() {
            return None;
        }
        let ids = which.iter().flat_map(|&i| self.texts[i].ids.iter().copied()).collect();
        let segments = Segments::from_lengths(which.iter().map(|&i| self.texts[i].ids.len()));
        Some((which, ids, segments))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_text_once_and_keep_the_budget() {
        let texts: Vec<Tokens> =
            [3, 9, 2, 2, 5].map(|n| Tokens { ids: (0..n).collect(), cut: false }).into_iter().collect();
        let batches: Vec<_> = Batches::new(&texts, 0..5, 8).collect();
        let which: Vec<&[usize]> = batches.iter().map(|(which, ..)| which.as_slice()).collect();
        assert_eq!(which, [&[1][..], &[4, 0], &[2, 3]]);
        assert_eq!((batches[1].1.as_slice(), batches[1].2.range(1)), (&[0, 1, 2, 3, 4, 0, 1, 2][..], 5..8));
    }
}
