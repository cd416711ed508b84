//! What an objective, or a look at the held-out responses, needs of the reference: passes over the data whose results are
//! cached. A pass that was stopped goes on where it was.

use std::borrow::Cow;

use anyhow::Result;
use rpo::features::PromptFeatures;
use rpo::feedback::Split;
use rpo::model::Model;
use rpo::objective::Needs;
use rpo::reference::{Cached, ReferenceCache, ReferenceScores, References};

use crate::progress;
use crate::settings::Settings;

/// A pass over responses, and what it is called.
pub type Pass<'a> = (&'static str, Cow<'a, Split>);

/// The passes that `references` makes over responses and those over mismatched pairs, cached or not.
pub fn passes<'a>(
    needs: Needs,
    split: &'a Split,
    mismatched: Option<&'a Split>,
) -> (Option<Pass<'a>>, Option<Pass<'a>>) {
    let what = if needs.reference { "reference scores" } else { "reference scores of the held-out responses" };
    let matched = References::scored(needs, split).map(|split| (what, split));
    (matched, mismatched.map(|split| ("reference scores of mismatched pairs", Cow::Borrowed(split))))
}

/// Where the results of passes of `reference` are kept.
pub fn cache(settings: &Settings, reference: &Model) -> Result<ReferenceCache> {
    Ok(ReferenceCache::new(&settings.cache.join("reference"), reference)?)
}

/// What the objective, or a look at the held-out responses, needs of `reference`, which must not track gradients.
pub fn references(
    settings: &Settings,
    needs: Needs,
    reference: &Model,
    split: &Split,
    mismatched: Option<&Split>,
) -> Result<References> {
    let (matched, mismatched) = passes(needs, split, mismatched);
    let featured = needs.features && split.mostly_single();
    if matched.is_none() && mismatched.is_none() && !featured {
        return Ok(References::default());
    }
    let cache = cache(settings, reference)?;
    let scores = |pass: Option<Pass<'_>>| {
        pass.map(|(what, split)| scores(settings, reference, &cache, what, &split)).transpose()
    };
    Ok(References {
        matched: scores(matched)?,
        mismatched: scores(mismatched)?,
        features: featured.then(|| features(settings, reference, &cache, split)).transpose()?,
    })
}

fn scores(
    settings: &Settings,
    reference: &Model,
    cache: &ReferenceCache,
    what: &'static str,
    split: &Split,
) -> Result<ReferenceScores> {
    let bar = progress::pass(what, split.train.responses() + split.validation.responses());
    let mut count = |done: usize| {
        bar.set_position(done as u64);
        Ok(())
    };
    let budget = settings.train.micro_batch_tokens.max(1);
    let (scores, cached) = ReferenceScores::cached(reference, split, budget, cache, &mut count)?;
    bar.finish_and_clear();
    tell(what, cached, settings);
    Ok(scores)
}

/// What the reference's encoder says of the prompts.
fn features(settings: &Settings, reference: &Model, cache: &ReferenceCache, split: &Split) -> Result<PromptFeatures> {
    let bar = progress::pass("features of prompts", split.train.groups.len() + split.validation.groups.len());
    let mut count = |done: usize| {
        bar.set_position(done as u64);
        Ok(())
    };
    let budget = settings.train.micro_batch_tokens.max(1);
    let (features, cached) = PromptFeatures::cached(reference, split, budget, cache, &mut count)?;
    bar.finish_and_clear();
    tell("features of prompts", cached, settings);
    Ok(features)
}

fn tell(what: &str, cached: Cached, settings: &Settings) {
    let dir = settings.cache.display();
    match cached {
        Cached::Found => println!("{what}: taken from the cache in {dir}"),
        Cached::Left => println!("{what}: computed and cached in {dir}"),
        Cached::Failed => println!("{what}: computed, not cached"),
    }
}
