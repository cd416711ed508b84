//! What runs the model below the engine: rows of unfinished answers, fed one token each at a time.

use rayon::prelude::*;
use rpo_ops::Segments;
use rpo_ops::decode::Sequence;

use crate::burn::tensor::{Device, Tensor};
use crate::error::{Error, Result};
use crate::host::host;
use crate::model::checkpoint::Checkpoint;
use crate::model::{Cache, Config, Model, PackedModel, Precision, fingerprint};

/// Rows of unfinished answers and what is remembered of them.
pub(super) enum Runner {
    /// On the CPU.
    Packed {
        /// The model.
        model: Box<PackedModel>,
        /// The rows.
        sequences: Vec<Sequence>,
    },
    /// On every other device, in terms of Burn's operations; rows enter together.
    Composed {
        /// The model.
        model: Box<Model>,
        /// `(d_model, vocabulary)`.
        head: Box<Tensor<2>>,
        /// The rows.
        cache: Option<Box<Cache>>,
    },
}

impl Runner {
    /// A runner of what `model` is now.
    ///
    /// # Errors
    /// If its device fails.
    pub(super) fn new(model: &Model) -> Result<Self> {
        if rpo_ops::is_host(&model.device()) {
            return Ok(PackedModel::of(model, Precision::F32)?.into());
        }
        let model = Box::new(model.inference());
        Ok(Self::Composed { head: Box::new(model.head().transpose()), model, cache: None })
    }

    /// A runner of the model in `checkpoint`, with its configuration and a hash of its weights.
    ///
    /// # Errors
    /// If it cannot be loaded, or `device` holds models in f32 alone.
    pub(super) fn load(
        checkpoint: &Checkpoint,
        device: &Device,
        precision: Precision,
    ) -> Result<(Self, Config, String)> {
        if rpo_ops::is_host(device) {
            let (model, config, fingerprint) = checkpoint.packed(precision)?;
            return Ok((model.into(), config, fingerprint));
        }
        if precision != Precision::F32 {
            let problem = "only the CPU holds a model otherwise than in f32".into();
            return Err(Error::Setting { field: "weights", problem });
        }
        let model = checkpoint.load(device)?;
        Ok((Self::new(&model)?, model.config(), fingerprint(&model)?))
    }

    /// Whether rows can enter beside those that are there.
    pub(super) fn may_enter(&self) -> bool {
        match self {
            Self::Packed { .. } => true,
            Self::Composed { cache, .. } => cache.is_none(),
        }
    }

    /// Whether a prompt may be read of which there is nothing.
    pub(super) fn may_read_nothing(&self) -> bool {
        matches!(self, Self::Packed { .. })
    }

    /// Reads prompts; each gives as many rows as `copies` says, after those that are there.
    pub(super) fn enter(&mut self, prompts: &[Vec<u32>], copies: &[usize]) {
        match self {
            Self::Packed { model, sequences } => {
                let read = model.read(prompts).into_iter().zip(copies);
                sequences.extend(read.flat_map(|(sequence, &copies)| vec![sequence; copies]));
            }
            Self::Composed { model, cache: place, .. } => {
                let segments = Segments::from_lengths(prompts.iter().map(Vec::len));
                let mut cache = model.begin(&prompts.concat(), &segments);
                if copies.iter().any(|&copies| copies != 1) {
                    let rows = copies.iter().enumerate().flat_map(|(prompt, &copies)| vec![prompt; copies]);
                    cache.keep(&rows.collect::<Vec<_>>());
                }
                *place = Some(Box::new(cache));
            }
        }
    }

    /// Forgets prompts that nothing continues.
    pub(super) fn forget(&mut self) {
        if let Self::Packed { model, .. } = self {
            model.forget();
        }
    }

    /// Keeps only the rows `kept`, in that order; one may be kept several times.
    pub(super) fn keep(&mut self, kept: &[usize]) {
        match self {
            Self::Packed { sequences, .. } => *sequences = kept.iter().map(|&row| sequences[row].clone()).collect(),
            Self::Composed { cache: Some(cache), .. } if !kept.is_empty() => cache.keep(kept),
            Self::Composed { cache, .. } => *cache = None,
        }
    }

    /// Feeds each row its token. Returns what `choose` makes of each row's logits.
    ///
    /// # Errors
    /// If the device fails.
    pub(super) fn step<R: Send>(
        &mut self,
        tokens: &[u32],
        choose: &(impl Fn(usize, &mut [f32]) -> R + Sync),
    ) -> Result<Vec<R>> {
        match self {
            Self::Packed { model, sequences } => Ok(model.step(tokens, sequences, choose)),
            Self::Composed { model, head, cache: Some(cache) } => {
                let logits = model.step(tokens, cache).matmul(*head.clone());
                let [_, vocabulary] = logits.dims();
                let mut logits = host(logits)?;
                let rows = logits.par_chunks_exact_mut(vocabulary).enumerate();
                Ok(rows.map(|(row, logits)| choose(row, logits)).collect())
            }
            Self::Composed { cache: None, .. } => Ok(Vec::new()),
        }
    }
}

impl From<PackedModel> for Runner {
    fn from(model: PackedModel) -> Self {
        Self::Packed { model: Box::new(model), sequences: Vec::new() }
    }
}
