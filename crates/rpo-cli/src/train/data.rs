//! The data of a run, and what is said of them.

use anyhow::Result;
use rpo::feedback::{FeedbackSet, ReadSummary, Source, Split};
use rpo::tokenizer::Tokenizer;

use crate::progress;
use crate::remarks::{remarks, warnings};
use crate::settings::Settings;

/// The data of a run.
pub struct Data {
    /// What is trained and what is validated on.
    pub split: Split,
    /// Whether a chat template wrote prompts of what is trained on.
    pub templated: bool,
}

/// Reads, describes and splits the data.
pub fn read(settings: &Settings, tokenizer: &Tokenizer) -> Result<Data> {
    let (data, summary) = set(settings, &settings.data, tokenizer)?;
    let split = match &settings.validation_data {
        Some(source) => {
            let (split, dropped) = Split::of(data, set(settings, source, tokenizer)?.0)?;
            if dropped > 0 {
                tracing::warn!("{dropped} prompts to train on are among those of {source}; they are not trained on");
            }
            split
        }
        None => data.split(settings.validation_fraction, settings.split_seed)?,
    };
    println!(
        "{} responses of {} prompts to train on, {} of {} to validate",
        split.train.responses(),
        split.train.groups.len(),
        split.validation.responses(),
        split.validation.groups.len()
    );
    Ok(Data { split, templated: summary.templated_prompts > 0 })
}

fn set(settings: &Settings, source: &Source, tokenizer: &Tokenizer) -> Result<(FeedbackSet, ReadSummary)> {
    let bar = progress::counter("rated responses read");
    let mut count = |rows: usize| bar.set_position(rows as u64);
    let cache = settings.cache.join("tokens");
    let (data, summary, _) =
        FeedbackSet::cached(source, &settings.columns, tokenizer, settings.limits(), &cache, &mut count)?;
    bar.finish_and_clear();
    println!("{source}: {} rated responses of {} prompts, {} tokens", summary.rows, summary.prompts, summary.tokens);
    remarks(&summary).iter().for_each(|remark| println!("  {remark}"));
    warnings(&summary).iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok((data, summary))
}
