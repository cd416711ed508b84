//! Automatic metrics of all models' answers.

use std::collections::HashSet;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use rpo::burn::tensor::Device;
use rpo::device::{self, Subject};
use rpo::evaluate::evaluation::{MetricDifference, MetricFound};
use rpo::evaluate::metric::{
    About, BertScore, BertScoreOptions, Case, Files, Measured, Part, Toxicity, ToxicityPart, text,
};
use rpo::model::checkpoint::Checkpoint;
use rpo::model::encoder;

use super::answers::Answered;
use super::arguments::{Arguments, MetricFlags};
use super::likelihoods;
use super::prompts::Prompts;
use crate::{interrupt, place, progress};

/// A metric of every model, prompt by prompt.
pub struct Metric {
    /// What it is.
    pub about: About,
    /// By model; `None` where it says nothing of one, as of the likelihoods of somebody's file.
    pub models: Vec<Option<Measured>>,
}

const PLAIN: [&str; 3] = ["length-words", "distinct-2", "self-repetition-4"];
const WITH_REFERENCES: [&str; 5] = ["bleu", "chrf", "rouge-1", "rouge-2", "rouge-l"];

/// Measures everything that is wanted.
pub fn all(arguments: &Arguments, prompts: &Prompts, answered: &[Answered]) -> Result<Vec<Metric>> {
    let cases: Vec<Vec<Case>> = answered.iter().map(|model| cases(prompts, model)).collect();
    let mut metrics = texts(&arguments.metrics, prompts, &cases)?;
    metrics.extend(bertscore(arguments, &cases)?);
    metrics.extend(toxicity(arguments, &cases)?);
    for metric in &mut metrics {
        metric.models.iter_mut().flatten().for_each(|found| *found = found.by_prompt(prompts.texts.len()));
    }
    metrics.extend(likelihoods::metrics(arguments, prompts, answered)?);
    Ok(metrics)
}

impl Metric {
    /// What it found, with how far each model is from the first, the baseline.
    pub fn found(&self) -> MetricFound {
        let difference = |model: usize| {
            let (ours, theirs) = (self.models[model].as_ref()?, self.models[0].as_ref()?);
            Some(MetricDifference { models: [model, 0], difference: ours.difference(theirs, 1)? })
        };
        MetricFound {
            about: self.about.clone(),
            models: self.models.iter().map(|model| model.as_ref().and_then(Measured::estimate)).collect(),
            differences: (1..self.models.len()).filter_map(difference).collect(),
        }
    }
}

/// All answers of a model, draw by draw.
fn cases(prompts: &Prompts, model: &Answered) -> Vec<Case> {
    let of_draw = |draw: &'_ Vec<String>| -> Vec<Case> {
        let case = |(i, response): (usize, &String)| Case {
            prompt: prompts.texts[i].clone(),
            response: response.clone(),
            references: prompts.references[i].clone(),
        };
        draw.iter().enumerate().map(case).collect()
    };
    model.entrant.draws.iter().flat_map(of_draw).collect()
}

/// Says what is wrong with the metrics that are wanted, or missing for them, before any model answers.
pub fn check(arguments: &Arguments, prompts: &Prompts) -> Result<()> {
    named(&arguments.metrics, prompts)?;
    // What they have to say of a case is nothing; but they are there and can be read.
    bertscore(arguments, &[])?;
    toxicity(arguments, &[])?;
    let reference = arguments.metrics.reference_model.as_deref();
    reference.map_or(Ok(()), |name| Checkpoint::find(name).map(drop)).context("--reference-model")
}

/// The metrics of texts by their names, each once.
fn named(flags: &MetricFlags, prompts: &Prompts) -> Result<Vec<Box<dyn rpo::evaluate::metric::Metric>>> {
    let with_references = prompts.references.iter().any(|references| !references.is_empty());
    let usual = || {
        let more = if with_references { &WITH_REFERENCES[..] } else { &[] };
        PLAIN.iter().chain(more).map(|name| (*name).to_string()).collect()
    };
    let mut names: Vec<String> = flags.metrics.clone().unwrap_or_else(usual);
    let mut met = HashSet::new();
    names.retain(|name| met.insert(name.trim().to_string()));
    let files = Files {
        wordnet: flags.wordnet.clone(),
        abusive_words: flags.abusive_words.clone(),
        tokenizer: flags.tokenizer.clone(),
    };
    names.iter().map(|name| text(name.trim(), &files).with_context(|| format!("--metrics {name}"))).collect()
}

fn texts(flags: &MetricFlags, prompts: &Prompts, cases: &[Vec<Case>]) -> Result<Vec<Metric>> {
    let metrics = named(flags, prompts)?;
    let bar = progress::busy("measuring answers");
    let found = metrics.iter().map(|metric| {
        interrupt::stop().check()?;
        let models = cases.iter().map(|cases| Ok(Some(metric.measure(cases)?))).collect::<Result<Vec<_>>>()?;
        Ok(Metric { about: metric.about(), models })
    });
    let found = found.collect::<Result<Vec<Metric>>>();
    bar.finish_and_clear();
    let found = found?;
    for metric in found.iter().filter(|metric| metric.models.iter().flatten().all(|m| m.estimate().is_none())) {
        let why = if prompts.references.iter().all(Vec::is_empty) { "; it may need --references" } else { "" };
        tracing::warn!("{} says nothing of any model{why}", metric.about.name);
    }
    Ok(found)
}

/// A bar that what encodes texts moves.
fn heard(bar: ProgressBar) -> impl Fn(usize, usize) -> rpo::Result<()> {
    move |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        interrupt::stop().check()
    }
}

/// The device, on which an encoder such as `name` is tried.
fn trusted(arguments: &Arguments, name: &str) -> Result<Device> {
    let device = device::find(&arguments.how.device)?;
    place::trust(&arguments.how.device, &Subject::encoder(encoder::Files::find(name)?.config().clone()))?;
    Ok(device)
}

fn bertscore(arguments: &Arguments, cases: &[Vec<Case>]) -> Result<Vec<Metric>> {
    let flags = &arguments.metrics;
    let Some(name) = &flags.bertscore else { return Ok(Vec::new()) };
    let options = BertScoreOptions {
        layer: flags.bertscore_layer,
        idf: flags.bertscore_idf,
        baseline: flags.bertscore_baseline.clone(),
    };
    let device = trusted(arguments, name).context("--bertscore")?;
    let score = BertScore::load(name, &options, &device).context("--bertscore")?;
    let bar = progress::bar("BERTScore: texts", 0);
    let score = score.heard_by(heard(bar.clone()));
    let parts = cases.iter().map(|cases| score.measure_parts(cases)).collect::<rpo::Result<Vec<_>>>()?;
    bar.finish_and_clear();
    let part = |i: usize| parts.iter().map(|parts| Some(parts[i].clone())).collect();
    Ok((0..3).map(|i| Metric { about: score.about_part(Part::ALL[i]), models: part(i) }).collect())
}

fn toxicity(arguments: &Arguments, cases: &[Vec<Case>]) -> Result<Vec<Metric>> {
    let flags = &arguments.metrics;
    let Some(name) = &flags.toxicity else { return Ok(Vec::new()) };
    let device = trusted(arguments, name).context("--toxicity")?;
    let classifier = Toxicity::load(name, flags.toxicity_label.as_deref(), &device).context("--toxicity")?;
    let bar = progress::bar("toxicity: texts", 0);
    let classifier = classifier.heard_by(heard(bar.clone()));
    let parts = cases.iter().map(|cases| classifier.measure_parts(cases)).collect::<rpo::Result<Vec<_>>>()?;
    bar.finish_and_clear();
    let part = |i: usize| parts.iter().map(|parts| Some(parts[i].clone())).collect();
    Ok((0..2).map(|i| Metric { about: classifier.about_part(ToxicityPart::ALL[i]), models: part(i) }).collect())
}
