//! BERTScore (arXiv 1904.09675) as the package bert-score 0.3.13 computes it: each token of a response is matched with that of the
//! reference whose state after some layer of an encoder is most like its own, and the other way round.
//!
//! ```text
//! P = sum_i w_i max_j cos(x_i, y_j) / sum_i w_i     over the response's tokens x
//! R = sum_j w_j max_i cos(x_i, y_j) / sum_j w_j     over the reference's tokens y
//! F1 = 2 P R / (P + R)
//! ```
//!
//! The weights `w` are 1, and 0 for the tokens that begin and end a text, which can still be matched; or inverse document
//! frequencies over the references. Of several references the best of each value counts. Where bert-score fills a batch up with
//! padding it lets tokens match that with 0; here nothing is padded, as there with one pair in a batch.

mod layers;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use rayon::prelude::*;
use rpo_ops::best_matches;

use super::{About, Case, Measured, Metric};
use crate::error::{Error, Result};
use crate::host::host;
use crate::model::encoder::{Batches, Encoder, Files, Texts, Tokens};
use crate::store::text_of;

/// Tokens that are encoded together.
const BATCH: usize = 2048;
/// Tokens of the texts whose states are held for their pairs, beside those of texts that later pairs share.
const WINDOW: usize = 64 * 1024;

/// Which of the three values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// How much of the response is found in the reference.
    Precision,
    /// How much of the reference is found in the response.
    Recall,
    /// Their harmonic mean.
    F1,
}

impl Part {
    /// In the order of [`BertScore::measure_parts`].
    pub const ALL: [Self; 3] = [Self::Precision, Self::Recall, Self::F1];

    fn name(self) -> &'static str {
        match self {
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::F1 => "f1",
        }
    }
}

/// How BERTScore is computed.
#[derive(Clone, Debug, Default)]
pub struct BertScoreOptions {
    /// After which layer states are compared, 0 being the embeddings; bert-score's choice for well-known models if not given.
    pub layer: Option<usize>,
    /// Whether tokens weigh by their inverse document frequency over the references.
    pub idf: bool,
    /// A file of bert-score's baselines (`LAYER,P,R,F`): values become `(value - baseline) / (1 - baseline)`.
    pub baseline: Option<PathBuf>,
}

/// Hears how many of how many texts are done, and may end the work.
type Hears = Box<dyn Fn(usize, usize) -> Result<()>>;

/// BERTScore; as a [`Metric`], its F1.
pub struct BertScore {
    name: String,
    encoder: Encoder,
    texts: Texts,
    layer: usize,
    idf: bool,
    baseline: Option<[f64; 3]>,
    hears: Hears,
}

impl BertScore {
    /// Reads the encoder `name`, a directory or hub id.
    ///
    /// # Errors
    /// If it is not found or cannot be read, no layer is given and none is known, or the baselines cannot be read.
    pub fn load(name: &str, options: &BertScoreOptions, device: &Device) -> Result<Self> {
        let files = Files::find(name)?;
        let most = files.config().layers;
        let setting = |problem| Error::Setting { field: "bertscore-layer", problem };
        let layer = match options.layer.or_else(|| layers::known(name)) {
            Some(layer) if layer <= most => layer,
            Some(layer) => {
                return Err(setting(format!("{layer}, but `{name}` has {most} layers; 0 to {most} are allowed")));
            }
            None => {
                let problem = format!(
                    "bert-score knows no best layer of `{name}`; choose one of 0 (the embeddings) to {most} (the last)"
                );
                return Err(setting(problem));
            }
        };
        Ok(Self {
            name: name.into(),
            encoder: files.encoder(layer, device)?,
            texts: files.texts()?,
            layer,
            idf: options.idf,
            baseline: options.baseline.as_deref().map(|path| baseline(path, layer)).transpose()?,
            hears: Box::new(|_, _| Ok(())),
        })
    }

    /// Lets `hears` know how many of how many texts are encoded; an error of it ends the work, as where somebody wishes to stop.
    #[must_use]
    pub fn heard_by(self, hears: impl Fn(usize, usize) -> Result<()> + 'static) -> Self {
        Self { hears: Box::new(hears), ..self }
    }

    /// What one of the three values is.
    pub fn about_part(&self, part: Part) -> About {
        let idf = if self.idf { "idf over the references" } else { "no idf" };
        let scaled = if self.baseline.is_some() { ", rescaled with a baseline" } else { "" };
        let unit = match self.baseline {
            Some(_) => "cosine similarity above that of unrelated texts, which is 0; at most 1",
            None => "cosine similarity, -1 to 1",
        };
        About {
            name: format!("bertscore-{}", part.name()),
            version: format!("bert-score 0.3.13, {}, layer {}, {idf}{scaled}", self.name, self.layer),
            tokenization: format!(
                "{}{}; at most {} tokens",
                self.texts.about(),
                if self.texts.byte_level() { ", a blank before the first word" } else { "" },
                self.texts.longest()
            ),
            unit: unit.into(),
            higher_is_better: Some(true),
        }
    }

    /// Precision, recall and F1 of all cases; nothing is said of a case without references. What bert-score gives as not a number,
    /// as where no token has a weight, is unknown.
    ///
    /// # Errors
    /// If the encoder fails or the work is ended.
    pub fn measure_parts(&self, cases: &[Case]) -> Result<[Measured; 3]> {
        let pairs = Pairs::of(cases);
        let tokens = self.encode(&pairs.texts)?;
        let nothing = |pair: &&Pair| [pair.response, pair.reference].iter().any(|&text| tokens[text].ids.len() == 2);
        let empty = pairs.pairs.iter().filter(nothing).count();
        if empty > 0 {
            tracing::warn!(
                "bertscore: {empty} responses or references have no token; these pairs score 0, as in bert-score"
            );
        }
        let weights = self.weights(&pairs, &tokens);
        let scores = self.scores(&pairs, &tokens, &weights)?;
        let mut best: Vec<Option<[f64; 3]>> = vec![None; cases.len()];
        for (pair, scores) in pairs.pairs.iter().zip(scores) {
            let so_far = best[pair.case].get_or_insert(scores);
            // Not a number stays so.
            *so_far =
                std::array::from_fn(
                    |i| if so_far[i] > scores[i] || so_far[i].is_nan() { so_far[i] } else { scores[i] },
                );
        }
        if let Some(baseline) = self.baseline {
            let scaled = |scores: [f64; 3]| std::array::from_fn(|i| (scores[i] - baseline[i]) / (1.0 - baseline[i]));
            best.iter_mut().for_each(|scores| *scores = scores.map(scaled));
        }
        let part = |i: usize| Measured::of_values(best.iter().map(|s| s.map(|s| s[i]).filter(|value| !value.is_nan())));
        Ok([part(0), part(1), part(2)])
    }

    /// The tokens of all texts, written as bert-score does.
    fn encode(&self, texts: &[&str]) -> Result<Vec<Tokens>> {
        // A word is then the same token whether it comes first or not.
        let written: Vec<String> = match self.texts.byte_level() {
            true => texts.iter().map(|text| if text.is_empty() { String::new() } else { format!(" {text}") }).collect(),
            false => texts.iter().map(ToString::to_string).collect(),
        };
        let tokens = self.texts.encode(&written)?;
        let cut = tokens.iter().filter(|tokens| tokens.cut).count();
        if cut > 0 {
            let longest = self.texts.longest();
            tracing::warn!(
                "bertscore: {cut} of {} texts have more than {longest} tokens; their ends are not seen",
                texts.len()
            );
        }
        Ok(tokens)
    }

    /// The weight of every token of every text.
    fn weights(&self, pairs: &Pairs<'_>, tokens: &[Tokens]) -> Vec<Vec<f32>> {
        let of: Box<dyn Fn(u32) -> f32> = match self.idf {
            false => Box::new(|id| if self.texts.ends().contains(&id) { 0.0 } else { 1.0 }),
            true => {
                let mut documents: HashMap<u32, usize> = HashMap::new();
                for pair in &pairs.pairs {
                    let different: HashSet<u32> = tokens[pair.reference].ids.iter().copied().collect();
                    different.into_iter().for_each(|id| *documents.entry(id).or_default() += 1);
                }
                let all = pairs.pairs.len() as f64 + 1.0;
                Box::new(move |id| (all / (documents.get(&id).copied().unwrap_or(0) as f64 + 1.0)).ln() as f32)
            }
        };
        tokens.iter().map(|tokens| tokens.ids.iter().map(|id| of(*id)).collect()).collect()
    }

    /// Precision, recall and F1 of every pair. Each text is encoded once, and held from its first pair to its last.
    fn scores(&self, pairs: &Pairs<'_>, tokens: &[Tokens], weights: &[Vec<f32>]) -> Result<Vec<[f64; 3]>> {
        let width = self.encoder.config().d_model;
        let mut last = vec![0; tokens.len()];
        for (i, pair) in pairs.pairs.iter().enumerate() {
            (last[pair.response], last[pair.reference]) = (i, i);
        }
        let mut states: HashMap<usize, Vec<f32>> = HashMap::new();
        let mut scores = Vec::with_capacity(pairs.pairs.len());
        let mut done = 0;
        while scores.len() < pairs.pairs.len() {
            let (mut wanted, mut held) = (HashSet::new(), 0);
            let rest = &pairs.pairs[scores.len()..];
            let window = rest.iter().take_while(|pair| {
                let room = held < WINDOW;
                for text in [pair.response, pair.reference] {
                    if room && !states.contains_key(&text) && wanted.insert(text) {
                        held += tokens[text].ids.len();
                    }
                }
                room
            });
            let window = &rest[..window.count()];
            for (which, ids, segments) in Batches::new(tokens, wanted, BATCH) {
                let batch = host(self.encoder.forward(&ids, &segments)?)?;
                let unit = which.par_iter().enumerate().map(|(i, text)| {
                    let range = segments.range(i);
                    Some((*text, unit_rows(&batch[range.start * width..range.end * width], width)?))
                });
                let unit: Vec<_> = unit.collect::<Option<_>>().ok_or_else(|| {
                    let problem = "has states of zeros or of what is no number; its weights are broken";
                    Error::Data(format!("the encoder `{}` {problem}", self.name))
                })?;
                states.extend(unit);
                done += which.len();
                (self.hears)(done, tokens.len())?;
            }
            let of_pair = |pair: &Pair| {
                let [x, y] = [pair.response, pair.reference].map(|text| (&states[&text], &weights[text]));
                matched(x, y, width)
            };
            scores.par_extend(window.par_iter().map(of_pair));
            states.retain(|text, _| last[*text] >= scores.len());
        }
        Ok(scores)
    }
}

impl Metric for BertScore {
    fn about(&self) -> About {
        self.about_part(Part::F1)
    }

    fn measure(&self, cases: &[Case]) -> Result<Measured> {
        let [_, _, f1] = self.measure_parts(cases)?;
        Ok(f1)
    }
}

/// What is compared with what.
struct Pairs<'a> {
    /// Every text once.
    texts: Vec<&'a str>,
    pairs: Vec<Pair>,
}

/// A case with one of its references.
struct Pair {
    case: usize,
    /// Among the texts.
    response: usize,
    reference: usize,
}

impl<'a> Pairs<'a> {
    fn of(cases: &'a [Case]) -> Self {
        let (mut places, mut texts): (HashMap<&str, usize>, Vec<&str>) = (HashMap::new(), Vec::new());
        let mut place = |text: &'a str| {
            let text = stripped(text);
            *places.entry(text).or_insert_with(|| {
                texts.push(text);
                texts.len() - 1
            })
        };
        let mut pairs = Vec::new();
        for (i, case) in cases.iter().enumerate() {
            for reference in &case.references {
                pairs.push(Pair { case: i, response: place(&case.response), reference: place(reference) });
            }
        }
        Self { texts, pairs }
    }
}

/// As Python's `strip` does it, to which four separators of ASCII are blank too.
fn stripped(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

/// Each row divided by its length; nothing if that cannot be.
fn unit_rows(rows: &[f32], width: usize) -> Option<Vec<f32>> {
    let mut unit = rows.to_vec();
    for row in unit.chunks_exact_mut(width) {
        let length = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
        if !length.is_normal() {
            return None;
        }
        row.iter_mut().for_each(|x| *x /= length);
    }
    Some(unit)
}

/// Precision, recall and F1 of a response's and a reference's states and weights. A text that has nothing between its ends scores 0.
fn matched(response: (&Vec<f32>, &Vec<f32>), reference: (&Vec<f32>, &Vec<f32>), width: usize) -> [f64; 3] {
    let best = best_matches(response.0, reference.0, width);
    let mean = |best: &[f32], weights: &[f32]| {
        let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        best.iter().zip(weights).map(|(b, w)| f64::from(*b) * f64::from(*w)).sum::<f64>() / total
    };
    let [precision, recall] = [mean(&best[0], response.1), mean(&best[1], reference.1)];
    let f1 = 2.0 * precision * recall / (precision + recall);
    let f1 = if f1.is_nan() { 0.0 } else { f1 };
    match response.1.len() == 2 || reference.1.len() == 2 {
        true => [0.0, 0.0, f1],
        false => [precision, recall, f1],
    }
}

/// The baselines of a layer.
fn baseline(path: &Path, layer: usize) -> Result<[f64; 3]> {
    let text = text_of(path)?;
    let row = |line: &str| -> Option<[f64; 4]> {
        let numbers: Vec<f64> = line.split([',', '\t']).map(|n| n.trim().parse().ok()).collect::<Option<_>>()?;
        numbers.try_into().ok()
    };
    let mut found = None;
    for (i, line) in text.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty()) {
        let Some([number, parts @ ..]) = row(line) else {
            let problem = format!("line {}: a layer's number and three baselines were expected (LAYER,P,R,F)", i + 1);
            return Err(Error::file(path, problem));
        };
        if number == layer as f64 {
            if parts.iter().any(|part| !(-1.0..1.0).contains(part)) {
                return Err(Error::file(path, format!("line {}: a baseline is -1 or more and less than 1", i + 1)));
            }
            found = Some(parts);
        }
    }
    found.ok_or_else(|| Error::file(path, format!("no baselines of layer {layer}; is it a file of another model?")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unit vectors of the plane, of which the first and the last stand for the ends.
    #[test]
    fn a_match_by_hand() {
        let x = vec![1.0, 0.0, 0.6, 0.8, 0.0, 1.0];
        let y = vec![1.0, 0.0, 0.8, 0.6, -1.0, 0.0, 0.0, -1.0];
        let (of_x, of_y) = (vec![0.0, 1.0, 0.0], vec![0.0, 2.0, 1.0, 0.0]);
        let [p, r, f1] = matched((&x, &of_x), (&y, &of_y), 2);
        // 0.48 + 0.48 for the response's token. Of the reference's, the second is most like the response's end: 0.
        let recall = 2.0 * 0.96 / 3.0;
        assert!((p - 0.96).abs() < 1e-6 && (r - recall).abs() < 1e-6, "{p} {r}");
        assert!((f1 - 2.0 * 0.96 * recall / (0.96 + recall)).abs() < 1e-6);
        // Nothing but its ends.
        let (ends, of_ends) = (vec![1.0, 0.0, 0.0, 1.0], vec![0.0, 0.0]);
        assert_eq!(matched((&ends, &of_ends), (&y, &of_y), 2), [0.0; 3]);
    }

    #[test]
    fn rows_of_length_one_or_none() {
        assert_eq!(unit_rows(&[3.0, 4.0, 0.0, -2.0], 2), Some(vec![0.6, 0.8, 0.0, -1.0]));
        for broken in [[1.0, f32::NAN], [f32::INFINITY, 0.0], [0.0, 0.0]] {
            assert_eq!(unit_rows(&broken, 2), None);
        }
    }

    #[test]
    fn texts_are_encoded_once_however_they_are_bordered() {
        let case = |response: &str, references: &[&str]| Case {
            response: response.into(),
            references: references.iter().map(ToString::to_string).collect(),
            ..Case::default()
        };
        let cases = [case("a ", &["b", "a"]), case("c", &[]), case("b\u{1f}", &["\na"])];
        let pairs = Pairs::of(&cases);
        let places: Vec<_> = pairs.pairs.iter().map(|pair| (pair.case, pair.response, pair.reference)).collect();
        assert_eq!((pairs.texts, places), (vec!["a", "b"], vec![(0, 0, 1), (0, 0, 0), (2, 1, 0)]));
    }

    #[test]
    fn baselines_of_a_layer() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("baseline.tsv");
        std::fs::write(&path, "LAYER,P,R,F\n0,0.1,0.2,0.3\n1,0.4,0.5,0.6\n").expect("written");
        assert_eq!(baseline(&path, 1).expect("there"), [0.4, 0.5, 0.6]);
        let said = |text: &str| {
            std::fs::write(&path, text).expect("written");
            baseline(&path, 1).expect_err("refused").to_string()
        };
        assert!(said("LAYER,P,R,F\n0,0.1,0.2,0.3\n").contains("no baselines of layer 1"));
        assert!(said("LAYER,P,R,F\n0,0.1,0.2\n").contains("line 2"));
        assert!(said("LAYER,P,R,F\n1,0.1,0.2,1.0\n").contains("less than 1"));
    }
}
