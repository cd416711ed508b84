//! What an objective, or a look at the held-out responses, needs of the reference: passes over the data whose results are
//! cached. A pass that was stopped goes on where it was.

use anyhow::Result;
use rpo::features::PromptFeatures;
use rpo::feedback::Split;
use rpo::objective::Needs;
use rpo::reference::{ReferenceScores, References};
use rpo::t5::T5;

use crate::progress;
use crate::settings::Settings;

/// A pass over responses, and what it is called.
pub type Pass = (&'static str, Split);

/// The passes that `references` makes over responses and those over mismatched pairs, cached or not.
pub fn passes(needs: Needs, split: &Split, mismatched: Option<&Split>) -> (Option<Pass>, Option<Pass>) {
    let matched = match (needs.reference, split.validation.groups.is_empty()) {
        (true, _) => Some(("reference scores", split.clone())),
        // To show what becomes of the held-out responses.
        (false, false) => {
            let held_out = Split { validation: split.validation.clone(), ..Split::default() };
            Some(("reference scores of the held-out responses", held_out))
        }
        (false, true) => None,
    };
    (matched, mismatched.map(|split| ("reference scores of mismatched pairs", split.clone())))
}

/// What the objective, or a look at the held-out responses, needs of `reference`, which must not track gradients.
pub fn references(
    settings: &Settings,
    needs: Needs,
    reference: &T5,
    split: &Split,
    mismatched: Option<&Split>,
) -> Result<References> {
    let (matched, mismatched) = passes(needs, split, mismatched);
    let scores = |pass: Option<Pass>| pass.map(|(what, split)| scores(settings, reference, what, &split)).transpose();
    Ok(References {
        matched: scores(matched)?,
        mismatched: scores(mismatched)?,
        features: (needs.features && split.mostly_single())
            .then(|| features(settings, reference, split))
            .transpose()?,
    })
}

fn scores(settings: &Settings, reference: &T5, what: &'static str, split: &Split) -> Result<ReferenceScores> {
    let bar = progress::pass(what, split.train.responses() + split.validation.responses());
    let mut count = |done: usize| {
        bar.set_position(done as u64);
        Ok(())
    };
    let budget = settings.train.micro_batch_tokens.max(1);
    let cache = settings.cache.join("reference");
    let (scores, cached) = ReferenceScores::cached(reference, split, budget, &cache, &mut count)?;
    bar.finish_and_clear();
    let how = if cached { "taken from the cache in" } else { "computed and cached in" };
    println!("{what}: {how} {}", settings.cache.display());
    Ok(scores)
}

/// What the reference's encoder says of the prompts.
fn features(settings: &Settings, reference: &T5, split: &Split) -> Result<PromptFeatures> {
    let bar = progress::pass("features of prompts", split.train.groups.len() + split.validation.groups.len());
    let mut count = |done: usize| {
        bar.set_position(done as u64);
        Ok(())
    };
    let (budget, cache) = (settings.train.micro_batch_tokens.max(1), settings.cache.join("reference"));
    let (features, cached) = PromptFeatures::cached(reference, split, budget, &cache, &mut count)?;
    bar.finish_and_clear();
    let how = if cached { "taken from the cache" } else { "computed and cached" };
    println!("features of prompts: {how}");
    Ok(features)
}
