//! The data of a run, and what is said of them.

use anyhow::Result;
use rpo::feedback::{FeedbackSet, ReadSummary, Source, Split};
use rpo::tokenizer::Tokenizer;

use crate::progress;
use crate::settings::Settings;

/// Reads, describes and splits the data.
pub fn read(settings: &Settings, tokenizer: &Tokenizer) -> Result<Split> {
    let bar = progress::counter("rated responses read");
    let mut count = |rows: usize| bar.set_position(rows as u64);
    let (data, summary) =
        FeedbackSet::read(&settings.data, &settings.columns, tokenizer, settings.limits(), &mut count)?;
    bar.finish_and_clear();
    describe(&settings.data, &summary);
    let split = data.split(settings.validation_fraction, settings.split_seed)?;
    println!(
        "{} responses of {} prompts to train on, {} of {} to validate",
        split.train.responses(),
        split.train.groups.len(),
        split.validation.responses(),
        split.validation.groups.len()
    );
    Ok(split)
}

fn describe(source: &Source, summary: &ReadSummary) {
    let &ReadSummary { rows, prompts, duplicates, single_responses, tokens, .. } = summary;
    println!("{source}: {rows} rated responses of {prompts} prompts, {tokens} tokens");
    summary.notes.iter().for_each(|note| println!("  {note}"));
    let share = |n: usize, of: usize| 100.0 * n as f64 / of as f64;
    let remarks = [
        (duplicates, format!("{duplicates} repeat another response and were merged into it")),
        (single_responses, format!("{single_responses} prompts have a single response")),
        (
            summary.unknown_tokens,
            format!(
                "{:.2} % of the tokens are <unk>: the tokenizer does not know them",
                share(summary.unknown_tokens, tokens)
            ),
        ),
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
}
