//! Training objectives: what makes a loss of the policy's scores. One file each; `contract.rs` holds what they share.
//!
//! To add an objective, write its file (formula, configuration, a test worked by hand) and name it here, in
//! [`ObjectiveConfig`]; trainer, program, checkpoints and the contract test need no change.
//!
//! ```
//! use rpo::objective::{ObjectiveConfig, Partition, RpoConfig};
//!
//! let ours = ObjectiveConfig::named("rpo").expect("there is one");
//! assert_eq!(ours, ObjectiveConfig::Rpo(RpoConfig { tau: 0.1, partition: Partition::Fitted, ..RpoConfig::default() }));
//! assert!(ours.build()?.needs().whole_prompts);
//! # Ok::<(), rpo::Error>(())
//! ```

mod contract;
mod dro;
mod group_centred;
mod intercept;
mod kto;
mod qrpo;
mod rpo;
mod sft;
#[cfg(test)]
mod testing;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use contract::{Loss, Needs, Objective, Preparation, Step, ValueNeed};
pub use dro::{Dro, DroConfig};
pub use group_centred::{GroupCentred, GroupCentredConfig};
pub use kto::{Kto, KtoConfig, Threshold, ZeroPoint, balanced};
pub use qrpo::{Qrpo, QrpoConfig, QrpoSingleResponse, Transform};
pub use rpo::{Partition, Rpo, RpoConfig, SingleResponse};
pub use sft::{Sft, SftConfig, SftRows};

use crate::error::Result;
use crate::model::ValueKind;

/// Which objective, with its settings, as written in a configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum ObjectiveConfig {
    /// Reward Partitioning Optimization.
    Rpo(RpoConfig),
    /// Supervised fine-tuning.
    Sft(SftConfig),
    /// Direct Reward Optimization, with a value network.
    Dro(DroConfig),
    /// Kahneman-Tversky Optimization.
    Kto(KtoConfig),
    /// Quantile Reward Policy Optimization.
    Qrpo(QrpoConfig),
    /// Regression of differences within a prompt.
    GroupCentred(GroupCentredConfig),
}

impl ObjectiveConfig {
    /// The names under which objectives are chosen, and what they are.
    pub const ALL: [(&str, &str); 6] = [
        ("rpo", "Reward Partitioning Optimization"),
        ("sft", "Supervised fine-tuning on all, the best, or the well-rated responses"),
        ("dro", "Direct Reward Optimization, with a value network"),
        ("kto", "Kahneman-Tversky Optimization: desirable and undesirable responses"),
        ("qrpo", "Quantile Reward Policy Optimization"),
        ("group-centred", "Regression of log-ratios on rewards within each prompt (all pairs of REBEL)"),
    ];

    /// The objective of this name with its default settings.
    pub fn named(name: &str) -> Option<Self> {
        serde_json::from_value(serde_json::json!({ "name": name })).ok()
    }

    /// The objective of this name as the authors' script of RPO (arXiv 2506.13702) has it.
    pub fn published(name: &str) -> Option<Self> {
        Some(match Self::named(name)? {
            Self::Rpo(_) => Self::Rpo(RpoConfig::published()),
            Self::Dro(dro) => Self::Dro(DroConfig { value_network: ValueKind::SharedEncoder, ..dro }),
            Self::Kto(kto) => Self::Kto(KtoConfig { zero_point: ZeroPoint::Matched, ..kto }),
            other => other,
        })
    }

    /// The objective in its state before `prepare`.
    ///
    /// # Errors
    /// If a setting is impossible.
    pub fn build(&self) -> Result<Box<dyn Objective>> {
        Ok(match self {
            Self::Rpo(config) => Box::new(Rpo::new(config.clone())?),
            Self::Sft(config) => Box::new(Sft::new(config.clone())?),
            Self::Dro(config) => Box::new(Dro::new(config.clone())?),
            Self::Kto(config) => Box::new(Kto::new(config.clone())?),
            Self::Qrpo(config) => Box::new(Qrpo::new(config.clone())?),
            Self::GroupCentred(config) => Box::new(GroupCentred::new(config.clone())?),
        })
    }

    /// Its short name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rpo(_) => "rpo",
            Self::Sft(_) => "sft",
            Self::Dro(_) => "dro",
            Self::Kto(_) => "kto",
            Self::Qrpo(_) => "qrpo",
            Self::GroupCentred(_) => "group-centred",
        }
    }
}
