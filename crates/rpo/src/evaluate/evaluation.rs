//! What an evaluation found: `evaluation.json`, which `rpo evaluate` writes and reports and cards are made of.
//!
//! Everything is plain data. Fields that a later version adds are passed over, and parts that were not measured are empty.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Estimate;
use super::metric::About;
use super::preference::{Agreements, Judged};
use crate::error::{Error, Result};
use crate::statistics::Difference;
use crate::store::files::write_file;
use crate::store::text_of;

/// What was measured of some models on some prompts. Models are known by their number, from 0, in `models`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Whose answers were measured.
    pub models: Vec<Evaluated>,
    /// What they answered.
    pub prompts: Prompts,
    /// How answers were drawn, as settings by their names.
    #[serde(default)]
    pub decoding: BTreeMap<String, serde_json::Value>,
    /// Automatic metrics.
    #[serde(default)]
    pub metrics: Vec<MetricFound>,
    /// Judges.
    #[serde(default)]
    pub judges: Vec<JudgeFound>,
    /// How far the judges agree, if there are several.
    #[serde(default)]
    pub agreements: Option<Agreements>,
    /// What made it.
    pub provenance: Provenance,
}

/// A model, or a file of answers that somebody made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// What it is called in tables.
    pub name: String,
    /// Its directory, hub id or file, as given.
    #[serde(default)]
    pub path: Option<String>,
    /// Hash of its weights and configuration ([`crate::model::checkpoint::Checkpoint::packed`]); none for a file of answers
    /// whose model is not known.
    #[serde(default)]
    pub fingerprint: Option<String>,
}

/// Prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prompts {
    /// File or data set, as given.
    pub source: String,
    /// How many.
    pub number: usize,
    /// Answers of each model to each.
    #[serde(default = "one")]
    pub seeds: usize,
    /// Hash of them.
    #[serde(default)]
    pub fingerprint: Option<String>,
}

fn one() -> usize {
    1
}

/// What a metric found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricFound {
    /// What its numbers are.
    pub about: About,
    /// Of each model; none where it is not defined.
    pub models: Vec<Option<Estimate>>,
    /// How models differ in it.
    #[serde(default)]
    pub differences: Vec<MetricDifference>,
}

/// How two models differ in a metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricDifference {
    /// The two, by number.
    pub models: [usize; 2],
    /// The first less the second.
    #[serde(flatten)]
    pub difference: Difference,
}

/// What a judge said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeFound {
    /// What it is called in tables, such as the name of its model.
    pub name: String,
    /// What it is: an endpoint, a command, stored verdicts, a model run here.
    #[serde(default)]
    pub kind: String,
    /// The template by which it was asked.
    pub template: String,
    /// Pairs of responses that lack a reply and count nowhere: what is left of them may be a selection.
    #[serde(default)]
    pub incomplete: usize,
    /// What its judgements say, of the models and of itself.
    #[serde(flatten)]
    pub judged: Judged,
}

/// What made an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of the program, with its commit.
    pub version: String,
    /// Day, as `2026-11-26`.
    pub date: String,
    /// The command, without keys.
    pub command: String,
}

impl Evaluation {
    /// Reads a file that was written by [`Self::write`], or by a later version.
    ///
    /// # Errors
    /// If it cannot be read, is no evaluation, or speaks of models that it does not name; the message says where.
    pub fn read(path: &Path) -> Result<Self> {
        let text = text_of(path)?;
        let problem = |e| Error::file(path, format!("not an evaluation as `rpo evaluate` writes it: {e}"));
        let evaluation: Self = serde_json::from_str(&text).map_err(problem)?;
        evaluation.check().map_err(|problem| Error::file(path, problem))?;
        Ok(evaluation)
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::file(path, e.to_string()))?;
        write_file(path, format!("{text}\n").as_bytes())
    }

    /// The number of the model with this fingerprint.
    pub fn model(&self, fingerprint: &str) -> Option<usize> {
        self.models.iter().position(|model| model.fingerprint.as_deref() == Some(fingerprint))
    }

    fn check(&self) -> std::result::Result<(), String> {
        let n = self.models.len();
        let known = |models: &[usize; 2]| models.iter().all(|model| *model < n) && models[0] != models[1];
        for (i, metric) in self.metrics.iter().enumerate() {
            if metric.models.len() != n {
                return Err(format!("metrics[{i}].models: {} values for {n} models", metric.models.len()));
            }
            if let Some(two) = metric.differences.iter().map(|d| d.models).find(|two| !known(two)) {
                return Err(format!("metrics[{i}].differences: {two:?} are not two of the {n} models"));
            }
        }
        for (i, judge) in self.judges.iter().enumerate() {
            if let Some(two) = judge.judged.pairs.iter().map(|pair| pair.models).find(|two| !known(two)) {
                return Err(format!("judges[{i}].pairs: {two:?} are not two of the {n} models"));
            }
            if judge.judged.strengths.models.len() != n {
                let found = judge.judged.strengths.models.len();
                return Err(format!("judges[{i}].strengths: {found} values for {n} models"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::evaluate::judge::{Choice, Pairwise};
    use crate::evaluate::preference::judged;
    use crate::statistics::Interval;

    /// Two models on 40 prompts: one metric, one judge that reads and one that does not.
    pub(crate) fn example() -> Evaluation {
        let judgement = |i: usize, forward, backward| Pairwise {
            prompt: i,
            seed: 0,
            models: [0, 1],
            forward,
            backward,
            lengths: [90 + i % 7, 80 + i % 5],
        };
        let reads = |i: usize| match i % 4 {
            0 => judgement(i, Choice::Second, Choice::First),
            _ => judgement(i, Choice::First, Choice::Second),
        };
        let judge = |name: &str, of: &dyn Fn(usize) -> Pairwise| JudgeFound {
            name: name.into(),
            kind: "endpoint".into(),
            template: "short".into(),
            incomplete: 0,
            judged: judged(&(0..40).map(of).collect::<Vec<_>>(), 2, 1),
        };
        let estimate = |mean: f64| Estimate { interval: Interval { mean, low: mean - 1.0, high: mean + 1.0 }, n: 40 };
        Evaluation {
            models: vec![
                Evaluated { name: "rpo".into(), path: Some("runs/first/best".into()), fingerprint: Some("aa".into()) },
                Evaluated { name: "the | start".into(), path: None, fingerprint: None },
            ],
            prompts: Prompts { source: "data/held-out.jsonl".into(), number: 40, seeds: 1, fingerprint: None },
            decoding: BTreeMap::from([("temperature".into(), 0.7.into())]),
            metrics: vec![MetricFound {
                about: About {
                    name: "rougeL".into(),
                    version: "rouge-score 0.1.2".into(),
                    tokenization: "words".into(),
                    unit: "F1, 0 to 100".into(),
                    higher_is_better: Some(true),
                },
                models: vec![Some(estimate(31.25)), None],
                differences: vec![],
            }],
            judges: vec![judge("mistral", &reads), judge("smollm2", &|i| judgement(i, Choice::First, Choice::First))],
            agreements: None,
            provenance: Provenance {
                version: "0.1.0".into(),
                date: "2026-11-26".into(),
                command: "rpo evaluate".into(),
            },
        }
    }

    #[test]
    fn a_file_reads_back_and_later_fields_are_passed_over() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("evaluation.json");
        example().write(&path).expect("written");
        assert_eq!(Evaluation::read(&path).expect("read"), example());
        let mut later: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&path).expect("text")).expect("JSON");
        later["models"][0]["parameters"] = 7.into();
        later["judges"][0]["diagnostics"]["mood"] = "good".into();
        later["new"] = true.into();
        std::fs::write(&path, later.to_string()).expect("written");
        assert_eq!(Evaluation::read(&path).expect("read"), example());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("evaluation.json");
        let complaint = |evaluation: Evaluation| {
            evaluation.write(&path).expect("written");
            Evaluation::read(&path).expect_err("refused").to_string()
        };
        let mut short = example();
        short.metrics[0].models.pop();
        assert!(complaint(short).contains("metrics[0].models: 1 values for 2 models"));
        let mut stranger = example();
        stranger.judges[1].judged.pairs[0].models = [0, 2];
        assert!(complaint(stranger).contains("judges[1].pairs: [0, 2]"));
        std::fs::write(&path, "{\"models\": []}").expect("written");
        let said = Evaluation::read(&path).expect_err("refused").to_string();
        assert!(said.contains("not an evaluation") && said.contains("prompts"), "{said}");
    }
}
