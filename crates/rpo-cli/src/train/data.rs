//! The data of a run, and what is said of them.

use anyhow::Result;
use rpo::feedback::{FeedbackSet, ReadSummary, Source, Split};
use rpo::inspect::MANY_UNKNOWN;
use rpo::tokenizer::Tokenizer;

use crate::progress;
use crate::settings::Settings;

/// Reads, describes and splits the data.
pub fn read(settings: &Settings, tokenizer: &Tokenizer) -> Result<Split> {
    let data = set(settings, &settings.data, tokenizer)?;
    let split = match &settings.validation_data {
        Some(source) => {
            let (split, dropped) = Split::of(data, set(settings, source, tokenizer)?)?;
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
    Ok(split)
}

fn set(settings: &Settings, source: &Source, tokenizer: &Tokenizer) -> Result<FeedbackSet> {
    let bar = progress::counter("rated responses read");
    let mut count = |rows: usize| bar.set_position(rows as u64);
    let cache = settings.cache.join("tokens");
    let (data, summary, _) =
        FeedbackSet::cached(source, &settings.columns, tokenizer, settings.limits(), &cache, &mut count)?;
    bar.finish_and_clear();
    describe(source, &summary);
    Ok(data)
}

fn describe(source: &Source, summary: &ReadSummary) {
    let &ReadSummary { rows, prompts, duplicates, single_responses, tokens, folded_prompts, special_texts, .. } =
        summary;
    println!("{source}: {rows} rated responses of {prompts} prompts, {tokens} tokens");
    summary.notes.iter().for_each(|note| println!("  {note}"));
    let share = |n: usize, of: usize| 100.0 * n as f64 / of as f64;
    let unknown = share(summary.unknown_tokens, tokens);
    let remarks = [
        (
            folded_prompts,
            format!("{folded_prompts} prompts differ as texts only, not to the model, and are one with another"),
        ),
        (duplicates, format!("{duplicates} repeat another response and were merged into it")),
        (single_responses, format!("{single_responses} prompts have a single response")),
        (special_texts, format!("{special_texts} texts spell out special tokens such as </s> or <extra_id_0>")),
        (summary.unknown_tokens, format!("{unknown:.2} % of the tokens are <unk>: the tokenizer does not know them")),
        (
            summary.truncated_prompts,
            format!("{:.1} % of the prompts are cut (--max-prompt-tokens)", share(summary.truncated_prompts, prompts)),
        ),
        (
            summary.truncated_responses,
            format!(
                "{:.1} % of the responses are cut (--max-response-tokens)",
                share(summary.truncated_responses, rows)
            ),
        ),
    ];
    remarks.iter().filter(|(n, _)| *n > 0).for_each(|(_, remark)| println!("  {remark}"));
    if summary.folded_by_cut > 0 {
        tracing::warn!(
            "{} prompts became the same by the cut at --max-prompt-tokens; raise it, or keep the other end with \
             --truncate-prompts start",
            summary.folded_by_cut
        );
    }
    if unknown > 100.0 * MANY_UNKNOWN {
        tracing::warn!("{unknown:.1} % of the tokens are unknown: this tokenizer is made for other texts");
    }
}
