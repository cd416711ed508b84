//! Models packed for decoding on the CPU, built from named weights as the others are. A family says in its folder how its layers
//! are made; what is done with them is here.

use std::collections::BTreeMap;

pub use rpo_ops::decode::Precision;
use rpo_ops::decode::{Head, Past, Sequence, Stack};

use super::weights::{Init, Weights};
use super::{Config, Model, llama, lora, t5};
use crate::error::{Error, Result};
use crate::host::host;
use crate::store::shards::Stored;

/// Most tokens of prompts that are read together: more would take memory and gain no speed.
const READ_TOGETHER: usize = 2048;
/// Most tokens of prompts that are remembered for the beginnings of others, beside the latest prompt.
const REMEMBERED: usize = 2048;
/// Fewest tokens that a prompt shares with one that is read now for which it waits until that is done.
const WORTH_WAITING: usize = 64;
/// Values of a tensor that are hashed together.
const HASHED: usize = 1 << 20;

/// A model packed for decoding.
pub struct PackedModel {
    /// What reads prompts, if that is not the decoder.
    encoder: Option<Stack>,
    decoder: Stack,
    embeddings: Head,
    /// Absent when the head is the embeddings.
    head: Option<Head>,
    /// Prompts that the decoder has read, the latest last.
    remembered: Vec<(Vec<u32>, Past)>,
}

impl PackedModel {
    /// The model that `config` describes.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(config: &Config, weights: &mut dyn Weights, precision: Precision) -> Result<Self> {
        match config {
            Config::T5(config) => t5::packed(config, weights, precision),
            Config::Llama(config) => llama::packed(config, weights, precision),
        }
    }

    /// What `model` is now, with its adapters merged into the matrices that they change.
    ///
    /// # Errors
    /// If its device fails.
    pub fn of(model: &Model, precision: Precision) -> Result<Self> {
        Self::new(&model.config(), &mut Named::of(model), precision)
    }

    pub(super) fn from_parts(encoder: Option<Stack>, decoder: Stack, embeddings: Head, head: Option<Head>) -> Self {
        Self { encoder, decoder, embeddings, head, remembered: Vec::new() }
    }

    /// Reads prompts; their answers are to begin.
    pub fn read(&mut self, prompts: &[Vec<u32>]) -> Vec<Sequence> {
        match self.encoder {
            Some(_) => self.encode(prompts),
            None => self.read_causally(prompts),
        }
    }

    fn encode(&mut self, prompts: &[Vec<u32>]) -> Vec<Sequence> {
        let mut read = Vec::new();
        for prompts in batches(prompts) {
            let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
            let embedded = self.embeddings.embed(&prompts.concat());
            let Some(encoder) = &mut self.encoder else { break };
            let mut alone = vec![Sequence { own: encoder.past(false), memory: None }; prompts.len()];
            let states = encoder.states(embedded, &mut alone, &lengths);
            let memories = self.decoder.memories(states, &lengths);
            read.extend(memories.into_iter().map(|m| Sequence { own: self.decoder.past(true), memory: Some(m) }));
        }
        read
    }

    /// Prompts that begin alike are read once as far as they do.
    fn read_causally(&mut self, prompts: &[Vec<u32>]) -> Vec<Sequence> {
        let mut read = vec![Sequence { own: self.decoder.past(true), memory: None }; prompts.len()];
        let mut left: Vec<usize> = (0..prompts.len()).collect();
        while !left.is_empty() {
            let (mut now, mut later): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
            for i in left {
                let known = self.known(&prompts[i]).unwrap_or_else(|| self.decoder.past(true));
                let beside = now.iter().map(|&other| common(&prompts[i], &prompts[other])).max().unwrap_or(0);
                if beside >= known.len() + WORTH_WAITING {
                    later.push(i);
                } else {
                    read[i].own = known;
                    now.push(i);
                }
            }
            self.read_rest(prompts, &now, &mut read);
            for i in now {
                self.remember(&prompts[i], &read[i].own);
            }
            left = later;
        }
        read
    }

    /// Reads what is not yet read of the prompts `now`, so many tokens at a time.
    fn read_rest(&mut self, prompts: &[Vec<u32>], now: &[usize], read: &mut [Sequence]) {
        loop {
            let (mut tokens, mut counts, mut places) = (Vec::new(), Vec::new(), Vec::new());
            for &i in now {
                let rest = &prompts[i][read[i].own.len()..];
                let some = rest.len().min(READ_TOGETHER - tokens.len());
                if some > 0 {
                    tokens.extend(&rest[..some]);
                    counts.push(some);
                    places.push(i);
                }
            }
            if tokens.is_empty() {
                return;
            }
            let mut sequences: Vec<Sequence> = places.iter().map(|&i| read[i].clone()).collect();
            // What is read is the new ones' alone.
            places.iter().for_each(|&i| read[i].own = self.decoder.past(true));
            let embedded = self.embeddings.embed(&tokens);
            self.decoder.read(embedded, &mut sequences, &counts);
            places.into_iter().zip(sequences).for_each(|(i, sequence)| read[i] = sequence);
        }
    }

    /// The longest beginning of a prompt that was read before.
    fn known(&self, prompt: &[u32]) -> Option<Past> {
        let longest = self.remembered.iter().map(|(ids, past)| (common(prompt, ids), past)).max_by_key(|(n, _)| *n);
        longest.map(|(n, past)| past.beginning(n)).filter(|past| !past.is_empty())
    }

    fn remember(&mut self, prompt: &[u32], past: &Past) {
        self.remembered.retain(|(ids, _)| !prompt.starts_with(ids));
        self.remembered.push((prompt.to_vec(), past.clone()));
        let mut all: usize = self.remembered.iter().map(|(ids, _)| ids.len()).sum();
        while all > REMEMBERED && self.remembered.len() > 1 {
            all -= self.remembered.remove(0).0.len();
        }
    }

    /// Forgets prompts that were read for the beginnings of others.
    pub fn forget(&mut self) {
        self.remembered.clear();
    }

    /// Appends a token to each sequence. Returns what `choose` makes of the logits of each one's next token.
    pub fn step<R: Send>(
        &mut self,
        tokens: &[u32],
        sequences: &mut [Sequence],
        choose: &(impl Fn(usize, &mut [f32]) -> R + Sync),
    ) -> Vec<R> {
        let embedded = self.embeddings.embed(tokens);
        self.decoder.step(embedded, sequences, self.head.as_ref().unwrap_or(&self.embeddings), choose)
    }
}

/// How many tokens two texts begin with alike.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Prompts whose tokens are few enough together, or a longer one alone.
fn batches(mut prompts: &[Vec<u32>]) -> Vec<&[Vec<u32>]> {
    let mut batches = Vec::new();
    while !prompts.is_empty() {
        let mut tokens = 0;
        let fits = |prompt: &&Vec<u32>| {
            tokens += prompt.len();
            tokens <= READ_TOGETHER
        };
        let n = prompts.iter().take_while(fits).count().max(1);
        let (batch, rest) = prompts.split_at(n);
        batches.push(batch);
        prompts = rest;
    }
    batches
}

/// A model's own parameters, each given once.
struct Named(BTreeMap<String, Stored>);

impl Named {
    fn of(model: &Model) -> Self {
        Self(lora::merged(&model.inference()).into_iter().map(|stored| (stored.name.clone(), stored)).collect())
    }
}

impl Weights for Named {
    fn get(&mut self, name: &str, shape: &[usize], _: Init) -> Result<Vec<f32>> {
        match self.0.remove(name) {
            Some(stored) if stored.shape == shape => host((stored.values)()),
            Some(stored) => Err(Error::Data(format!("tensor `{name}` has shape {:?}, not {shape:?}", stored.shape))),
            None => Err(Error::Data(format!("tensor `{name}` is missing"))),
        }
    }
}

/// The hash that [`super::checkpoint::Checkpoint::packed`] gives, of what `model` is now.
///
/// # Errors
/// If its device fails.
pub(crate) fn fingerprint(model: &Model) -> Result<String> {
    let mut named = Named::of(model);
    let shapes: Vec<(String, Vec<usize>)> =
        named.0.iter().map(|(name, stored)| (name.clone(), stored.shape.clone())).collect();
    let mut hashed = Hashed::new(&mut named);
    shapes.iter().try_for_each(|(name, shape)| hashed.get(name, shape, Init::Constant(0.0)).map(drop))?;
    Ok(hashed.fingerprint(&model.config()))
}

/// Weights that are hashed as they are given.
pub(super) struct Hashed<'a> {
    weights: &'a mut dyn Weights,
    hashes: BTreeMap<String, blake3::Hash>,
}

impl<'a> Hashed<'a> {
    pub(super) fn new(weights: &'a mut dyn Weights) -> Self {
        Self { weights, hashes: BTreeMap::new() }
    }

    /// A hash of all that was given, whatever the order, and of the configuration; in hexadecimal.
    pub(super) fn fingerprint(self, config: &Config) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(config.to_json("float32").as_bytes());
        for (name, hash) in self.hashes {
            hasher.update(name.as_bytes());
            hasher.update(hash.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

impl Weights for Hashed<'_> {
    fn get(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Vec<f32>> {
        let values = self.weights.get(name, shape, init)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{shape:?}").as_bytes());
        for some in values.chunks(HASHED) {
            let bytes: Vec<u8> = some.iter().flat_map(|value| value.to_le_bytes()).collect();
            hasher.update_rayon(&bytes);
        }
        self.hashes.insert(name.into(), hasher.finalize());
        Ok(values)
    }
}

/// Names tensors below a prefix.
pub(super) struct Names<'a> {
    weights: &'a mut dyn Weights,
    prefix: String,
}

impl<'a> Names<'a> {
    pub(super) fn new(weights: &'a mut dyn Weights) -> Self {
        Self { weights, prefix: String::new() }
    }

    /// What lies below `name`.
    pub(super) fn at(&mut self, name: impl std::fmt::Display) -> Names<'_> {
        Names { prefix: format!("{}{name}.", self.prefix), weights: self.weights }
    }

    /// Its tensor `name`, flat.
    ///
    /// # Errors
    /// If it is missing, has another shape, or holds what is no finite number: rounding would hide that.
    pub(super) fn get(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let name = format!("{}{name}", self.prefix);
        // Where weights are drawn, for measurements, what goes through them keeps its scale.
        let init = match shape {
            [_, inputs] => Init::Normal((*inputs as f64).powf(-0.5)),
            _ => Init::Constant(1.0),
        };
        let values = self.weights.get(&name, shape, init)?;
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(Error::Data(format!(
                "tensor `{name}` holds {value}, which is no finite number: the model is damaged"
            ))),
            None => Ok(values),
        }
    }
}
