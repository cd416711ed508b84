//! Metrics that models themselves compute: how far each has moved from a reference, and whether rated responses follow.

use std::path::Path;

use anyhow::{Context, Result};
use rpo::burn::tensor::Device;
use rpo::device::{self, Subject};
use rpo::evaluate::metric::{About, Measured};
use rpo::feedback::{Limits, ReadOptions, Source};
use rpo::likelihood::{Given, Reading};
use rpo::model::checkpoint::Checkpoint;
use rpo::reference::ReferenceCache;
use rpo::world::Alone;

use super::answers::Answered;
use super::arguments::Arguments;
use super::measure::Metric;
use super::prompts::Prompts;
use crate::{interrupt, place, progress, settings};

/// Tokens computed at once.
const BUDGET: usize = 4096;

/// The mean log-ratio of each model's own answers, and, with rated responses, the rank correlation of their log-ratios and
/// rewards.
pub fn metrics(arguments: &Arguments, prompts: &Prompts, answered: &[Answered]) -> Result<Vec<Metric>> {
    let Some(name) = &arguments.metrics.reference_model else { return Ok(Vec::new()) };
    let reference = Checkpoint::find(name).context("--reference-model")?;
    let device = device::find(&arguments.how.device)?;
    place::trust(&arguments.how.device, &Subject::of(reference.config()?))?;
    let ratios = Ratios { arguments, reference, device };
    let (mut own, mut rated) = (Vec::new(), Vec::new());
    for answered in answered {
        // Those of files have no likelihoods.
        let Some(named) = arguments.models.iter().find(|named| named.name == answered.entrant.name) else {
            own.push(None);
            rated.push(None);
            continue;
        };
        let model = Checkpoint::find(&named.place)?;
        let file = Source::from(vec![answered.file.display().to_string()]);
        own.push(Some(ratios.of_own_answers(&model, &file, prompts).with_context(|| named.name.clone())?));
        if let Some(files) = &arguments.metrics.rated {
            rated.push(Some(ratios.with_rewards(&model, &files.clone().into()).with_context(|| named.name.clone())?));
        }
    }
    let about = |name: &str, unit: &str, higher_is_better| About {
        name: name.into(),
        version: format!("beside {}", shared(ratios.reference.name())),
        tokenization: "of each model".into(),
        unit: unit.into(),
        higher_is_better,
    };
    let unit = "log p(y|x) - log p_ref(y|x) of the model's own answers, nats an answer; for answers drawn plainly an estimate of \
        KL(model || reference)";
    let mut found = vec![Metric { about: about("log-ratio", unit, None), models: own }];
    if arguments.metrics.rated.is_some() {
        let unit = "Kendall's tau-b of log-ratio and reward of the rated responses of a prompt, -1 to 1";
        found.push(Metric { about: about("reward-tau-b", unit, Some(true)), models: rated });
    }
    Ok(found)
}

/// A hub id as it is; of a directory of this machine the last part.
fn shared(name: &str) -> String {
    let path = Path::new(name);
    match path.file_name().filter(|_| path.is_dir()) {
        Some(last) => last.to_string_lossy().into_owned(),
        None => name.into(),
    }
}

/// What log-ratios are made with.
struct Ratios<'a> {
    arguments: &'a Arguments,
    reference: Checkpoint,
    device: Device,
}

impl Ratios<'_> {
    fn of_own_answers(&self, model: &Checkpoint, file: &Source, prompts: &Prompts) -> Result<Measured> {
        let (given, ratios) = self.of(model, file)?;
        let mut by_prompt = vec![Vec::new(); prompts.texts.len()];
        for (row, ratio) in given.rows.iter().zip(ratios) {
            let place = row.id.as_u64().and_then(|id| by_prompt.get_mut(id as usize));
            place.into_iter().for_each(|ratios| ratios.push(ratio));
        }
        let mean = |ratios: Vec<f64>| rpo::statistics::mean(&ratios);
        Ok(Measured::of_values(by_prompt.into_iter().map(mean)))
    }

    fn with_rewards(&self, model: &Checkpoint, rated: &Source) -> Result<Measured> {
        let (given, ratios) = self.of(model, rated)?;
        Ok(Measured::of_values(given.rank_correlations(&ratios)))
    }

    /// The responses of `source` with their log-ratios.
    fn of(&self, model: &Checkpoint, source: &Source) -> Result<(Given, Vec<f64>)> {
        let tokenizer = model.tokenizer(self.arguments.how.chat.chat())?;
        let limits = Limits {
            prompt_tokens: self.arguments.how.max_prompt_tokens,
            response_tokens: usize::MAX,
            cut_prompts: self.arguments.how.truncate_prompts,
        };
        let reading = Reading { options: &ReadOptions::default(), id: None, limits, end: true };
        let given = Given::read(source, &reading, &tokenizer, &mut |_| {})?;
        given.check_tokenizer(&tokenizer, &self.reference.tokenizer(self.arguments.how.chat.chat())?)?;
        let [ours, theirs] = [(model, "log-probabilities"), (&self.reference, "log-probabilities by the reference")]
            .map(|(checkpoint, what)| self.score(&given, checkpoint, what));
        let ratios = ours?.into_iter().zip(theirs?).map(|(ours, theirs)| ours - theirs).collect();
        Ok((given, ratios))
    }

    fn score(&self, given: &Given, checkpoint: &Checkpoint, what: &'static str) -> Result<Vec<f64>> {
        let model = checkpoint.load(&self.device)?;
        let cache = ReferenceCache::new(&settings::cache().join("reference"), &model)?;
        let bar = progress::bar(what, given.distinct());
        let mut count = |done: usize| {
            bar.set_position(done as u64);
            interrupt::stop().check()
        };
        let (scores, _) = given.score(&model, BUDGET, false, Some(&cache), &Alone, &mut count)?;
        bar.finish_and_clear();
        Ok(scores.sums)
    }
}
