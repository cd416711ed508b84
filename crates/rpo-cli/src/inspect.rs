//! `rpo inspect`: what is in a file, before anything is trained on it.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use rpo::advice::{one_line, suspicions};
use rpo::feedback::Limits;
use rpo::inspect::{Bin, DataReport, Distribution, inspect};
use rpo::model::checkpoint::Checkpoint;
use rpo::tokenizer::{Cut, Tokenizer};

use crate::flags::{ChatFlags, Layout};
use crate::messages::wrapped;
use crate::progress;
use crate::remarks::{remarks, warnings};

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
    chat: ChatFlags,
    #[command(flatten)]
    columns: Layout,
    /// Print JSON instead
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(what: &What) -> Result<()> {
    let What::Data(data) = what;
    let options = data.columns.options()?;
    let path = PathBuf::from(&data.tokenizer);
    // A model's own tokenizer is used as the model uses it.
    let tokenizer = match path.exists() && !Checkpoint::is_at(&path) {
        true => Tokenizer::load(&path)?,
        false => Checkpoint::find(&data.tokenizer)?.tokenizer(data.chat.chat())?,
    };
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
    writeln!(out, "{} rated responses of {} prompts", report.summary.rows, report.summary.prompts)?;
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
    for sentence in said(report) {
        writeln!(out, "{}", wrapped(&sentence, "- ", "  "))?;
    }
    writeln!(out, "{}", wrapped(&one_line(&report.advice), "", ""))?;
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
fn said(report: &DataReport) -> Vec<String> {
    let mut said = remarks(&report.summary);
    if report.tied_pairs > 0.0 {
        said.push(format!("{:.2} % of the pairs of responses of a prompt are ties", 100.0 * report.tied_pairs));
    }
    if report.rewards.sd == 0.0 {
        said.push("all rewards are equal: there is nothing to learn from. Check the reward column".into());
    }
    said.extend(suspicions(&report.facts));
    said.extend(warnings(&report.summary));
    said
}
