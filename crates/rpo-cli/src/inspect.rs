//! `rpo inspect`: what is in a file, before anything is trained on it.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use rpo::advice::{one_line, suspicions};
use rpo::checkpoint::Checkpoint;
use rpo::feedback::Limits;
use rpo::inspect::{Bin, DataReport, Distribution, MANY_UNKNOWN, inspect};
use rpo::tokenizer::{Cut, Tokenizer};

use crate::flags::Layout;
use crate::progress;

/// What to look at.
#[derive(clap::Subcommand)]
pub enum What {
    /// Counts, rewards, lengths, duplicates, ties, unknown tokens and what would be cut
    Data(Data),
}

/// Describe a file of rated responses.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  rpo inspect data ratings.jsonl --tokenizer google/flan-t5-small
  rpo inspect data export.csv.gz --tokenizer DIR --reward-column stars --prompt-column question")]
pub struct Data {
    /// Rated responses: files (JSON, CSV, Parquet, Arrow), directories, patterns or a data set of the hub; several are one
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// tokenizer.json, a directory that holds one, or a hub id
    #[arg(long, value_name = "PATH|ID")]
    tokenizer: String,
    /// Longest prompt in tokens that training would keep whole
    #[arg(long, default_value_t = 512)]
    max_prompt_tokens: usize,
    /// Longest response in tokens that training would keep whole
    #[arg(long, default_value_t = 512)]
    max_response_tokens: usize,
    /// Which end of a longer prompt training would cut
    #[arg(long, value_name = "end|start", default_value = "end", value_parser = crate::flags::cut)]
    truncate_prompts: Cut,
    #[command(flatten)]
    columns: Layout,
    /// Print JSON instead
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(what: &What) -> Result<()> {
    let What::Data(data) = what;
    let path = PathBuf::from(&data.tokenizer);
    let tokenizer = match path.exists() {
        true => Tokenizer::load(&path)?,
        false => Tokenizer::load(Checkpoint::find(&data.tokenizer)?.dir())?,
    };
    let options = data.columns.options()?;
    let limits = Limits {
        prompt_tokens: data.max_prompt_tokens,
        response_tokens: data.max_response_tokens,
        cut_prompts: data.truncate_prompts,
    };
    let bar = progress::counter("rated responses read");
    let report =
        inspect(&data.files.clone().into(), &options, &tokenizer, limits, &mut |rows| bar.set_position(rows as u64))?;
    bar.finish_and_clear();
    match data.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", render(&report)?),
    }
    Ok(())
}

fn render(report: &DataReport) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    writeln!(out, "{} rated responses of {} prompts", report.rows, report.prompts)?;
    writeln!(out, "\nresponses per prompt")?;
    let per_prompt = report.responses_per_prompt.iter();
    bars(&mut out, per_prompt.map(|(n, count)| (n.to_string(), *count)).collect())?;
    writeln!(out, "\nrewards  mean {:.4}, standard deviation {:.4}", report.rewards.mean, report.rewards.sd)?;
    let label = |b: &Bin| if b.low == b.high { format!("{}", b.low) } else { format!("{:.4} to {:.4}", b.low, b.high) };
    bars(&mut out, report.reward_histogram.iter().map(|b| (label(b), b.count)).collect())?;
    writeln!(out, "\ntokens        min  median     95 %     max")?;
    for (name, d) in [("prompts", report.prompt_tokens), ("responses", report.response_tokens)] {
        let Distribution { min, median, p95, max, .. } = d;
        writeln!(out, "{name:<10} {min:>6} {median:>7} {p95:>8} {max:>7}")?;
    }
    writeln!(out)?;
    for remark in remarks(report) {
        writeln!(out, "- {remark}")?;
    }
    writeln!(out, "{}", one_line(&report.advice))?;
    Ok(out)
}

/// Rows of label, bar and count, the longest bar being 40 wide.
fn bars(out: &mut String, rows: Vec<(String, usize)>) -> std::fmt::Result {
    let most = rows.iter().map(|(_, n)| *n).max().unwrap_or(1).max(1);
    let width = rows.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    for (label, count) in rows {
        let bar = "█".repeat((count * 40).div_ceil(most));
        writeln!(out, "  {label:>width$} {bar} {count}")?;
    }
    Ok(())
}

/// What the numbers mean for training, and what to do.
fn remarks(report: &DataReport) -> Vec<String> {
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let singles = report.responses_per_prompt.get(&1).copied().unwrap_or(0);
    let mut said = report.notes.clone();
    said.extend([
        format!("{} of the tokens are <unk>", percent(report.unknown_rate)),
        format!(
            "{} of the prompts and {} of the responses would be cut",
            percent(report.truncated_prompts),
            percent(report.truncated_responses)
        ),
        format!(
            "{} rows repeat a response, {} of them with another reward; training takes their mean",
            report.duplicates, report.conflicting_duplicates
        ),
        format!(
            "{} prompts have only equal rewards; {} of all pairs are ties",
            report.tied_prompts,
            percent(report.tied_pairs)
        ),
    ]);
    let counted = [
        (
            report.folded_prompts,
            format!(
                "{} prompts differ as texts only, not to the model, and are one with another; {} of them only by what is cut",
                report.folded_prompts, report.folded_by_cut
            ),
        ),
        (
            report.special_texts,
            format!("{} texts spell out special tokens such as </s> or <extra_id_0>", report.special_texts),
        ),
        (
            report.folded_line_breaks,
            format!("{} texts have line breaks, which are blanks to this tokenizer", report.folded_line_breaks),
        ),
    ];
    said.extend(counted.into_iter().filter(|(n, _)| *n > 0).map(|(_, remark)| remark));
    let warnings = [
        (
            report.rewards.sd == 0.0,
            "all rewards are equal: there is nothing to learn from. Check the reward column".to_string(),
        ),
        (
            singles > 0,
            format!("{singles} prompts have a single response; `--single-response` says what RPO does with them"),
        ),
        (
            report.unknown_rate > MANY_UNKNOWN,
            "many tokens are unknown: this tokenizer is made for other texts".to_string(),
        ),
        (
            report.truncated_prompts.max(report.truncated_responses) > 0.05,
            "many texts would be cut: raise --max-prompt-tokens or --max-response-tokens".to_string(),
        ),
    ];
    said.extend(suspicions(&report.facts));
    said.extend(warnings.into_iter().filter(|(applies, _)| *applies).map(|(_, warning)| warning));
    said
}
