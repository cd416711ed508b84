//! What is done to a row of logits before a token is chosen, with transformers' semantics and order. No tensors here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Processors in the order in which they act; those from the temperature on only shape what is drawn from.
///
/// "Just said" are the decoder's last inputs: the answer so far behind the start token, or behind the prompt of a decoder-only
/// model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Processors {
    /// Added to the logit of the last token of a sequence, where the others were just said; a sequence of one token counts
    /// everywhere.
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    /// Divides positive and multiplies negative logits of tokens that already occurred (arXiv 1909.05858); 1 is off.
    pub repetition_penalty: f32,
    /// Bans tokens that would repeat an n-gram of this length; 0 is off.
    pub no_repeat_ngram_size: usize,
    /// Sequences of tokens that are not completed. A single token that ends answers is no such sequence: see `min_new_tokens`.
    pub bad_words_ids: Vec<Vec<u32>>,
    /// The first token of every answer of an encoder-decoder model; as in transformers, decoder-only models have no such token.
    pub forced_bos_token_id: Option<u32>,
    /// The last token of an answer that reaches `max_new_tokens` is one of these.
    pub forced_eos_token_id: Vec<u32>,
    /// Tokens that are never chosen.
    pub suppress_tokens: Vec<u32>,
    /// Tokens that are not chosen first (behind a forced first token: second).
    pub begin_suppress_tokens: Vec<u32>,
    /// Divides all logits; 1 is off.
    pub temperature: f32,
    /// Keeps the k most likely tokens and those tied with the last of them; 0 is off.
    pub top_k: usize,
    /// Keeps the most likely tokens that together reach this probability (arXiv 1904.09751); 1 is off.
    pub top_p: f32,
    /// Keeps tokens at least this part as likely as the most likely (arXiv 2407.01082); 0 is off.
    pub min_p: f32,
    /// Keeps tokens whose surprise is nearest to the entropy and that together reach this probability (arXiv 2202.00666); 1 is
    /// off. Without `top_k`, `top_p` or `min_p` it sorts the whole vocabulary.
    pub typical_p: f32,
    /// Keeps tokens of at least this probability, and the most likely (arXiv 2210.15191); 0 is off.
    pub epsilon_cutoff: f32,
    /// The same with `min(eta, sqrt(eta) exp(-entropy))` for the bound (arXiv 2210.15191); 0 is off.
    pub eta_cutoff: f32,
}

impl Default for Processors {
    fn default() -> Self {
        Self {
            sequence_bias: Vec::new(),
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            bad_words_ids: Vec::new(),
            forced_bos_token_id: None,
            forced_eos_token_id: Vec::new(),
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            epsilon_cutoff: 0.0,
            eta_cutoff: 0.0,
        }
    }
}

/// Where an answer stands when its next token is chosen.
pub(super) struct Place<'a> {
    /// The decoder's inputs so far, the start token or the prompt among them, as transformers counts them.
    pub(super) ids: &'a [u32],
    /// How many of them are the answer's.
    pub(super) done: usize,
    /// Tokens that end answers.
    pub(super) ends: &'a [u32],
    /// Whether it may end now.
    pub(super) may_end: bool,
    /// Whether this token is the last in any case.
    pub(super) last: bool,
}

impl Processors {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        let refuse = |field, problem: String| Err(Error::Setting { field, problem });
        let within = |field, value: f32, is: bool, allowed: &str| match is {
            true => Ok(()),
            false => refuse(field, format!("{value} is not {allowed}")),
        };
        let positive = |field, value: f32| within(field, value, value.is_finite() && value > 0.0, "a positive number");
        let part = |field, value: f32| within(field, value, value > 0.0 && value <= 1.0, "in (0, 1]");
        let cutoff = |field, value: f32| within(field, value, (0.0..1.0).contains(&value), "in [0, 1)");
        positive("repetition-penalty", self.repetition_penalty)?;
        positive("temperature", self.temperature)?;
        part("top-p", self.top_p)?;
        within("min-p", self.min_p, (0.0..=1.0).contains(&self.min_p), "in [0, 1]")?;
        part("typical-p", self.typical_p)?;
        cutoff("epsilon-cutoff", self.epsilon_cutoff)?;
        cutoff("eta-cutoff", self.eta_cutoff)?;
        if self.bad_words_ids.iter().any(Vec::is_empty) {
            return refuse("bad-words-ids", "a sequence of no tokens cannot be banned".into());
        }
        let mut known = BTreeSet::new();
        for (sequence, bias) in &self.sequence_bias {
            let problem = match () {
                () if sequence.is_empty() => "a sequence of no tokens has no bias".into(),
                () if !bias.is_finite() => format!("the bias {bias} of {sequence:?} is not a finite number"),
                () if !known.insert(sequence) => format!("{sequence:?} has two biases"),
                () => continue,
            };
            return refuse("sequence-bias", problem);
        }
        let suppressed = |id: &u32| self.suppress_tokens.contains(id);
        match &self.forced_eos_token_id[..] {
            [first, ..] if self.forced_eos_token_id.iter().all(suppressed) => {
                refuse("forced-eos-token-id", format!("token {first} is also among suppress-tokens"))
            }
            _ => match self.forced_bos_token_id.filter(suppressed) {
                Some(id) => refuse("forced-bos-token-id", format!("token {id} is also among suppress-tokens")),
                None => Ok(()),
            },
        }
    }

    /// Every token that the settings name, each with the setting.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let biased = self.sequence_bias.iter().map(|(sequence, _)| ("sequence-bias", &sequence[..]));
        let banned = self.bad_words_ids.iter().map(|sequence| ("bad-words-ids", &sequence[..]));
        let others = [
            ("forced-bos-token-id", self.forced_bos_token_id.as_slice()),
            ("forced-eos-token-id", &self.forced_eos_token_id),
            ("suppress-tokens", &self.suppress_tokens),
            ("begin-suppress-tokens", &self.begin_suppress_tokens),
        ];
        let all = biased.chain(banned).chain(others);
        all.flat_map(|(field, ids)| ids.iter().map(move |id| (field, *id)))
    }

    /// Applies to the logits of the next token what depends on where the answer stands.
    pub(super) fn edit(&self, at: &Place<'_>, logits: &mut Edited<'_>) {
        add_biases(&self.sequence_bias, at.ids, logits);
        if self.repetition_penalty != 1.0 {
            penalise_repetition(at.ids, self.repetition_penalty, logits);
        }
        if self.no_repeat_ngram_size > 0 {
            ban_repeated_ngrams(at.ids, self.no_repeat_ngram_size, logits);
        }
        for sequence in &self.bad_words_ids {
            match sequence[..] {
                [token] if at.ends.contains(&token) => {}
                _ => logits.forbid(completion(sequence, at.ids).as_slice()),
            }
        }
        if !at.may_end {
            logits.forbid(at.ends);
        }
        // transformers forces a first token where there is a single input, which a prompt of ours never is.
        let first = self.forced_bos_token_id.filter(|_| at.ids.len() == at.done + 1);
        if at.done == 0 {
            first.iter().for_each(|token| logits.force(&[*token]));
        }
        if at.last && !self.forced_eos_token_id.is_empty() {
            logits.force(&self.forced_eos_token_id);
        }
        logits.forbid(&self.suppress_tokens);
        if at.done == usize::from(first.is_some()) {
            logits.forbid(&self.begin_suppress_tokens);
        }
    }
}

/// A row of logits of which a few are changed; it remembers what they were.
pub(super) struct Edited<'a> {
    logits: &'a mut [f32],
    /// Tokens with what their logits were, the latest change last.
    changes: Vec<(u32, f32)>,
}

impl<'a> Edited<'a> {
    pub(super) fn new(logits: &'a mut [f32]) -> Self {
        Self { logits, changes: Vec::new() }
    }

    /// As it is now.
    pub(super) fn logits(&self) -> &[f32] {
        self.logits
    }

    /// What the logit of `token` was before any change.
    pub(super) fn original(&self, token: u32) -> f32 {
        let changed = self.changes.iter().find(|(changed, _)| *changed == token);
        changed.map_or_else(|| self.logits[token as usize], |(_, logit)| *logit)
    }

    /// Changes the logit of `token`, if there is such a token.
    fn change(&mut self, token: u32, change: impl FnOnce(f32) -> f32) {
        if let Some(logit) = self.logits.get_mut(token as usize) {
            self.changes.push((token, *logit));
            *logit = change(*logit);
        }
    }

    /// Keeps `tokens` from being chosen.
    pub(super) fn forbid(&mut self, tokens: &[u32]) {
        tokens.iter().for_each(|&token| self.change(token, |_| f32::NEG_INFINITY));
    }

    /// Leaves nothing to choose but `tokens`, all alike.
    fn force(&mut self, tokens: &[u32]) {
        self.changes.extend((0..).zip(self.logits.iter().copied()));
        self.logits.fill(f32::NEG_INFINITY);
        tokens.iter().for_each(|&token| self.change(token, |_| 0.0));
    }
}

/// The token that completes `sequence` behind `ids`. As in transformers, a sequence is only looked for among at least as many
/// tokens as it has.
fn completion(sequence: &[u32], ids: &[u32]) -> Option<u32> {
    let (last, before) = sequence.split_last()?;
    (before.is_empty() || ids.len() > before.len() && ids.ends_with(before)).then_some(*last)
}

fn add_biases(biases: &[(Vec<u32>, f32)], ids: &[u32], logits: &mut Edited<'_>) {
    let mut sums: BTreeMap<u32, f32> = BTreeMap::new();
    for (sequence, bias) in biases {
        if let Some(token) = completion(sequence, ids) {
            *sums.entry(token).or_default() += bias;
        }
    }
    sums.into_iter().for_each(|(token, bias)| logits.change(token, |logit| logit + bias));
}

fn penalise_repetition(previous: &[u32], penalty: f32, logits: &mut Edited<'_>) {
    let mut seen = previous.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for token in seen {
        logits.change(token, |logit| if logit < 0.0 { logit * penalty } else { logit / penalty });
    }
}

fn ban_repeated_ngrams(previous: &[u32], n: usize, logits: &mut Edited<'_>) {
    if previous.len() + 1 < n {
        return;
    }
    let prefix = &previous[previous.len() + 1 - n..];
    for window in previous.windows(n) {
        if &window[..n - 1] == prefix {
            logits.forbid(&window[n - 1..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(processors: &Processors, ids: &[u32], done: usize, last: bool) -> Vec<f32> {
        let mut logits: Vec<f32> = (0..8).map(|i| i as f32 / 4.0).collect();
        let at = Place { ids, done, ends: &[1], may_end: true, last };
        processors.edit(&at, &mut Edited::new(&mut logits));
        logits
    }

    #[test]
    fn what_was_forced_remembers_its_logit() {
        let mut logits = vec![0.5, 1.5, 2.5];
        let mut edited = Edited::new(&mut logits);
        edited.forbid(&[1]);
        edited.force(&[1]);
        assert_eq!(edited.logits(), [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY]);
        assert_eq!([0, 1, 2].map(|token| edited.original(token)), [0.5, 1.5, 2.5]);
    }

    #[test]
    fn the_first_token_is_forced_behind_a_start_token_only() {
        let processors =
            Processors { forced_bos_token_id: Some(3), begin_suppress_tokens: vec![7], ..Processors::default() };
        let open = |logits: Vec<f32>| (0..8).filter(|i| logits[*i] > f32::NEG_INFINITY).collect::<Vec<_>>();
        assert_eq!(open(edited(&processors, &[0], 0, false)), [3]);
        assert_eq!(open(edited(&processors, &[0, 3], 1, false)), [0, 1, 2, 3, 4, 5, 6]);
        // A prompt of two tokens.
        assert_eq!(open(edited(&processors, &[0, 3], 0, false)), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(open(edited(&processors, &[0, 3, 4], 1, false)).len(), 8);
        let processors = Processors { forced_eos_token_id: vec![1, 5], ..Processors::default() };
        assert_eq!(open(edited(&processors, &[0, 3, 4], 2, true)), [1, 5]);
        assert_eq!(open(edited(&processors, &[0, 3, 4], 2, false)).len(), 8);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let said = |change: fn(&mut Processors)| {
            let mut processors = Processors::default();
            change(&mut processors);
            processors.validate().expect_err("out of range").to_string()
        };
        assert_eq!(said(|p| p.top_p = 0.0), "top-p: 0 is not in (0, 1]");
        assert_eq!(said(|p| p.temperature = f32::NAN), "temperature: NaN is not a positive number");
        assert_eq!(said(|p| p.min_p = 1.5), "min-p: 1.5 is not in [0, 1]");
        assert_eq!(said(|p| p.typical_p = 0.0), "typical-p: 0 is not in (0, 1]");
        assert_eq!(said(|p| p.epsilon_cutoff = 1.0), "epsilon-cutoff: 1 is not in [0, 1)");
        assert_eq!(said(|p| p.eta_cutoff = -0.5), "eta-cutoff: -0.5 is not in [0, 1)");
        assert_eq!(said(|p| p.bad_words_ids = vec![vec![]]), "bad-words-ids: a sequence of no tokens cannot be banned");
        assert!(
            said(|p| p.sequence_bias = vec![(vec![2], f32::NEG_INFINITY)]).starts_with("sequence-bias: the bias -inf")
        );
        assert_eq!(
            said(|p| p.sequence_bias = vec![(vec![2], 1.0), (vec![2], 2.0)]),
            "sequence-bias: [2] has two biases"
        );
        assert_eq!(
            said(|p| (p.suppress_tokens, p.forced_bos_token_id) = (vec![4, 5], Some(5))),
            "forced-bos-token-id: token 5 is also among suppress-tokens"
        );
        assert!(Processors::default().validate().is_ok());
    }
}
