//! What an objective, or a look at the held-out responses, needs of the reference: passes over the data whose results are
//! cached. A pass that was stopped goes on where it was.

use anyhow::Result;
use rpo::feedback::Split;
use rpo::model::Model;
use rpo::reference::{Cached, PromptFeatures, ReferenceCache, ReferenceScores, References};
use rpo::train::Passes;
use rpo::world::World;

use crate::progress;
use crate::settings::Settings;

/// Where the results of passes of `reference` are kept.
pub fn cache(settings: &Settings, reference: &Model) -> Result<ReferenceCache> {
    Ok(ReferenceCache::new(&settings.cache.join("reference"), reference)?)
}

/// What `passes` read of `reference`.
pub fn references(
    settings: &Settings,
    passes: &Passes<'_>,
    reference: &Model,
    world: &dyn World,
) -> Result<References> {
    if passes.matched.is_none() && passes.mismatched.is_none() && passes.features.is_none() {
        return Ok(References::default());
    }
    let cache = cache(settings, reference)?;
    let named = match &passes.matched {
        Some(split) if split.train.groups.is_empty() => "reference scores of the held-out responses",
        _ => "reference scores",
    };
    let scores = |what, split: &Split| scores(settings, reference, &cache, what, split, world);
    Ok(References {
        matched: passes.matched.as_deref().map(|split| scores(named, split)).transpose()?,
        mismatched: passes.mismatched.map(|split| scores("reference scores of mismatched pairs", split)).transpose()?,
        features: passes.features.map(|split| features(settings, reference, &cache, split, world)).transpose()?,
    })
}

fn scores(
    settings: &Settings,
    reference: &Model,
    cache: &ReferenceCache,
    what: &'static str,
    split: &Split,
    world: &dyn World,
) -> Result<ReferenceScores> {
    let bar = progress::pass(what, split.train.responses() + split.validation.responses());
    let mut count = |done: usize| {
        bar.set_position(done as u64);
        Ok(())
    };
    let budget = settings.train.micro_batch_tokens.max(1);
    let (scores, cached) = ReferenceScores::cached(reference, split, budget, cache, world, &mut count)?;
    bar.finish_and_clear();
    tell(what, cached, settings);
    Ok(scores)
}

/// What the reference's encoder says of the prompts.
fn features(
    settings: &Settings,
    reference: &Model,
    cache: &ReferenceCache,
    split: &Split,
    world: &dyn World,
) -> Result<PromptFeatures> {
    let bar = progress::pass("features of prompts", split.train.groups.len() + split.validation.groups.len());
    let mut count = |done: usize| {
        bar.set_position(done as u64);
        Ok(())
    };
    let budget = settings.train.micro_batch_tokens.max(1);
    let (features, cached) = PromptFeatures::cached(reference, split, budget, cache, world, &mut count)?;
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
