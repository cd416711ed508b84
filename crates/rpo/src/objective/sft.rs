//! Supervised fine-tuning: `loss = -mean ell_theta(y|x)` over the chosen responses, whatever else their rewards say.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contract::{Loss, Needs, Objective, Preparation, Step};
use crate::error::{Error, Result};
use crate::feedback::Split;
use crate::reference::References;
use crate::score::{LogProb, Scores};

/// Which responses to imitate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SftRows {
    /// Every response.
    #[default]
    All,
    /// The best response of each prompt (all of them where several are equally good).
    Best,
    /// Responses whose reward is at least this.
    Above(f64),
}

/// Settings of SFT.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct SftConfig {
    /// Which responses to imitate.
    pub rows: SftRows,
    /// Sum or mean over a response's tokens.
    pub log_prob: LogProb,
}

/// SFT with the rows that `prepare` chose.
pub struct Sft {
    config: SftConfig,
    chosen: Vec<bool>,
}

impl Sft {
    /// # Errors
    /// If the reward threshold is not a number.
    pub fn new(config: SftConfig) -> Result<Self> {
        match config.rows {
            SftRows::Above(t) if !t.is_finite() => {
                Err(Error::Setting { field: "rows", problem: format!("the threshold {t} is not a number") })
            }
            _ => Ok(Self { config, chosen: Vec::new() }),
        }
    }
}

impl Objective for Sft {
    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn prepare(&mut self, split: &Split, _references: &References) -> Result<Preparation> {
        let groups = || split.train.groups.iter().chain(&split.validation.groups);
        self.chosen = vec![false; split.rows()];
        for group in groups() {
            let best = group.responses.iter().map(|r| r.reward).fold(f64::NEG_INFINITY, f64::max);
            for r in &group.responses {
                self.chosen[r.row] = match self.config.rows {
                    SftRows::All => true,
                    SftRows::Best => r.reward >= best,
                    SftRows::Above(threshold) => r.reward >= threshold,
                };
            }
        }
        let used = split.train.iter().filter(|r| self.chosen[r.row]).count();
        if used == 0 {
            return Err(Error::Data(format!(
                "no training response is chosen by `rows = {:?}`; lower the threshold",
                self.config.rows
            )));
        }
        Ok(Preparation { facts: vec![("training responses".into(), used as f64)] })
    }

    fn uses(&self, row: usize) -> bool {
        self.chosen[row]
    }

    fn loss(&self, scores: &Scores, _step: Step<'_>) -> Result<Loss> {
        let ell = scores.ell(self.config.log_prob);
        Ok(Loss { sum: ell.sum().neg(), count: scores.rows.len(), metrics: Vec::new() })
    }
}
