//! Encoders from Hugging Face directories: which files, and under which names their tensors lie.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use super::classifier::Classifier;
use super::config::Config;
use super::texts::{self, Texts};
use super::{Encoder, WORDS};
use crate::error::{Error, Result};
use crate::model::checkpoint::directory;
use crate::model::weights::{Init, Weights};
use crate::store::shards::Shards;
use crate::store::within;

/// A directory that holds an encoder.
#[derive(Clone, Debug)]
pub struct Files {
    name: String,
    dir: PathBuf,
    config: Config,
}

impl Files {
    /// Finds an encoder by local path or, failing that, by hub id (`roberta-large`): first in the local hub cache, then by
    /// download.
    ///
    /// # Errors
    /// If there is none, or its `config.json` is not that of an encoder that is supported.
    pub fn find(name: &str) -> Result<Self> {
        let dir = directory(name, &texts::VOCABULARIES)?;
        let path = dir.join("config.json");
        let text = within::text(&path, within::SETTINGS)?;
        let config = Config::parse(&text).map_err(|problem| Error::file(&path, problem))?;
        Ok(Self { name: name.into(), dir, config })
    }

    /// As it was given: a path or a hub id.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What `config.json` says.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reads the tokenizer.
    ///
    /// # Errors
    /// Those of [`Texts::load`].
    pub fn texts(&self) -> Result<Texts> {
        Texts::load(&self.dir, &self.config)
    }

    /// Reads the first `layers` layers.
    ///
    /// # Errors
    /// If there are fewer, or a tensor is missing, unexpected, of another shape or type, or cut short; the message names it.
    pub fn encoder(&self, layers: usize, device: &Device) -> Result<Encoder> {
        if layers > self.config.layers {
            let problem = format!("layer {layers} was asked for, but there are {}", self.config.layers);
            return Err(Error::file(&self.dir, problem));
        }
        self.read(layers, |weights| Encoder::new(&self.config, layers, weights, device))
    }

    /// Reads a classifier.
    ///
    /// # Errors
    /// Those of [`Self::encoder`].
    pub fn classifier(&self, device: &Device) -> Result<Classifier> {
        self.read(self.config.layers, |weights| Classifier::new(&self.config, weights, device))
    }

    fn read<M>(&self, layers: usize, build: impl FnOnce(&mut dyn Weights) -> Result<M>) -> Result<M> {
        let mut shards = Shards::open(&self.dir)?;
        // A model with a head has its encoder under a name, such as `bert.`; the encoder alone has none.
        let prefix = shards.names().filter_map(|name| name.strip_suffix(WORDS)).min_by_key(|prefix| prefix.len());
        let prefix = prefix.unwrap_or_default().to_string();
        let model = build(&mut Stored { shards: &mut shards, prefix: &prefix })?;
        // Heads and the layers above may stay. What stays of the layers that were read makes them another network.
        shards.check_all_taken(|name| {
            let parts: Vec<&str> = name.strip_prefix(&prefix).unwrap_or(name).split('.').collect();
            !matches!(parts[..], ["encoder" | "transformer", "layer", number, ..]
                if number.parse().is_ok_and(|number: usize| number < layers))
        })?;
        Ok(model)
    }
}

/// A checkpoint's tensors under whichever of their names they are stored.
struct Stored<'a> {
    shards: &'a mut Shards,
    prefix: &'a str,
}

impl Weights for Stored<'_> {
    fn get(&mut self, name: &str, shape: &[usize], _init: Init) -> Result<Vec<f32>> {
        // As TensorFlow called a norm's parameters, and so the first checkpoints.
        let old = match name.rsplit_once("LayerNorm.") {
            Some((before, "weight")) => Some(format!("{before}LayerNorm.gamma")),
            Some((before, "bias")) => Some(format!("{before}LayerNorm.beta")),
            _ => None,
        };
        let names: Vec<String> = std::iter::once(name)
            .chain(old.as_deref())
            .flat_map(|name| [format!("{}{name}", self.prefix), name.to_string()])
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.shards.take(&names, shape)
    }
}
