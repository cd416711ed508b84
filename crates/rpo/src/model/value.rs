//! A value network: the expected reward of a prompt, which DRO learns beside the policy. It knows prompts, not rewards.

use burn::module::Module;
use burn::tensor::{Tensor, activation};
use rpo_ops::segment_mean;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::linear::{Linear, embed};
use super::t5::Encoder;
use super::weights::{Builder, Init};
use super::{Llama, Model, NamedParameters, RandomWeights};
use crate::batch::PackedBatch;
use crate::error::Result;

/// What the value network reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ValueKind {
    /// Its own encoder, which starts as a copy of the reference's, and a linear head: nothing is shared with the policy.
    #[default]
    OwnEncoder,
    /// The policy's encoder, through which its gradient then also flows, and a head with one hidden layer, as the
    /// published comparison with RPO has it. For comparison only.
    SharedEncoder,
}

/// `V(x)`: mean of a prompt's encoder states, then a head. The head starts at zero, the mean of standardised rewards: a random
/// head would begin with values as noisy as the rewards themselves, which the policy follows until they are unlearned.
#[derive(Module, Debug)]
pub struct ValueNetwork {
    /// Absent when it reads the policy's encoder.
    own: Option<Reader>,
    /// Absent when the head is linear.
    hidden: Option<Linear>,
    head: Linear,
}

/// What reads the prompts, by family.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of it")]
pub(crate) enum Reader {
    T5(ValueEncoder),
    Llama(Llama),
}

#[derive(Module, Debug)]
pub(crate) struct ValueEncoder {
    pub(crate) shared: Linear,
    pub(crate) encoder: Encoder,
}

impl ValueNetwork {
    /// A network beside `policy`, which is still the reference; `seed` decides the head.
    ///
    /// # Errors
    /// None with random weights.
    pub fn new(policy: &Model, kind: ValueKind, seed: u64) -> Result<Self> {
        let device = policy.device();
        let mut weights = RandomWeights::new(seed);
        let mut root = Builder::new(&mut weights, &device);
        let d_model = policy.d_model();
        let init = Init::Normal((d_model as f64).powf(-0.5));
        // Tells zero of everything at first.
        let zero = |at: Builder<'_>| Linear::biased(at, [d_model, 1], Init::Constant(0.0), true);
        let own = || {
            let copy = match policy {
                Model::T5(policy) => {
                    let (shared, encoder) = policy.reader();
                    Reader::T5(ValueEncoder { shared: shared.clone(), encoder: encoder.clone() })
                }
                Model::Llama(policy) => Reader::Llama(policy.reader()),
            };
            // Mapped so that the copies are leaves of their own.
            copy.map_parameters(|_, _, values| values)
        };
        Ok(match kind {
            ValueKind::OwnEncoder => Self { own: Some(own()), hidden: None, head: zero(root.at("value_head"))? },
            ValueKind::SharedEncoder => Self {
                own: None,
                hidden: Some(Linear::biased(root.at("value_hidden"), [d_model; 2], init, true)?),
                head: zero(root.at("value_head"))?,
            },
        })
    }

    /// What the values are read from: encoder states of the prompts, its own or `prompts`, the policy's; both
    /// `(prompt tokens, d_model)`.
    pub fn states(&self, prompts: &Tensor<2>, batch: &PackedBatch) -> Tensor<2> {
        match &self.own {
            None => prompts.clone(),
            Some(Reader::T5(own)) => own.encoder.forward(embed(&own.shared, &batch.prompt_ids), &batch.prompts),
            Some(Reader::Llama(own)) => own.encode(&batch.prompt_ids, &batch.prompts),
        }
    }

    /// What reads the prompts, unless that is the policy.
    pub(crate) fn reader(&self) -> Option<&Reader> {
        self.own.as_ref()
    }

    /// `V(x)` of every response's prompt from its [`Self::states`]: `(responses)`, in units of the reward.
    pub fn forward(&self, states: Tensor<2>, batch: &PackedBatch) -> Tensor<1> {
        let mut x = segment_mean(states, &batch.prompts);
        if let Some(hidden) = &self.hidden {
            x = activation::relu(hidden.forward(x));
        }
        let values = self.head.forward(x).reshape([batch.prompts.len()]);
        let prompts = rpo_ops::index_tensor(batch.prompt_of.iter().copied(), &values.device());
        values.select(0, prompts)
    }
}
