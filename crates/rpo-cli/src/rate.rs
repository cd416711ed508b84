//! `rpo rate`: a judge rates answers, which so become feedback to train on.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rpo::chat::Prompt;
use rpo::evaluate::judge::{Case, Kind, Outcome, Verdict};
use rpo::feedback::{Answer, ReadOptions, Source, read_all_rows};
use rpo::store::files::fill_file;
use rpo::world::World;
use serde::Serialize;
use serde_json::Value;

use crate::flags::Layout;
use crate::interrupt;
use crate::judge::{self, JudgeFlags, Seat};
use crate::version::version;
use crate::world::{agree, once_any, refuse_standard_input};

/// Let a judge rate answers: `rpo rate answers.jsonl --judge-url URL --judge-model NAME --output rated.jsonl`
///
/// Reads what `rpo generate` writes, or any file of prompts and responses, rated or not, and writes a JSON line for each
/// response that the judge gave a number: id (the record's own, else its number from 0), prompt, response, reward (the rating),
/// judge and template. `rpo train --data` reads these lines: rating and training are one loop. The judge sees prompts as they were
/// written. A reply that is no rating gets no line: it is counted and shown.
///
/// Every request and reply is kept at once in OUTPUT.judge.jsonl (--judge-store), so that nothing is asked twice, whatever ends
/// the command: run it again, with --resume if the output is there. Processes that mpirun or srun starts together share the work of a judge
/// that computes on this machine.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  rpo rate answers.jsonl --judge-url http://127.0.0.1:8000/v1 --judge-model mistral --output rated.jsonl
  RPO_JUDGE_KEY=$KEY rpo rate answers.jsonl --judge-url https://api.openai.com/v1 --judge-model gpt-4o-mini \\
      --judge-price 0.15,0.60 --max-judge-calls 5000 --output rated.jsonl
  rpo rate answers.jsonl --judge-model HuggingFaceTB/SmolLM2-135M-Instruct --output rated.jsonl
  rpo train rpo --model runs/first/best --data rated.jsonl --out runs/second")]
pub struct Arguments {
    /// Answers: files (JSON, CSV, Parquet, Arrow), directories, patterns, a data set of the hub or - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Write the rated answers to this file when all are rated
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Write --output anew although it is there, with what was not rated before
    #[arg(long)]
    resume: bool,
    /// Column of what records are called [default: id, where there is one, else their number from 0]
    #[arg(long, value_name = "NAME")]
    id_column: Option<String>,
    #[command(flatten)]
    judge: JudgeFlags,
    #[command(flatten)]
    columns: Layout,
}

/// Runs the command.
pub fn run(arguments: &Arguments, world: &dyn World) -> Result<()> {
    refuse_standard_input(world, &arguments.files)?;
    once_any(world, || check_output(&arguments.output, arguments.resume))?;
    let answers = Answers::open(arguments)?;
    agree(world, &[("program", version().into()), ("answers", answers.count.to_string())])?;
    let beside = beside(&arguments.output);
    // The first rank's.
    let mut seats = None;
    once_any(world, || {
        let found = arguments.judge.seats(Kind::Pointwise, &beside)?;
        if found.len() != 1 {
            bail!("{} judges are named, and one is to rate", found.len());
        }
        seats = Some(found);
        Ok(())
    })?;
    let hear = |seat: &Seat| Ok(rate(seat, &answers)?.tally);
    judge::hear_together(world, &arguments.judge, (Kind::Pointwise, &beside), seats.as_deref_mut(), &hear)?;
    once_any(world, || seats.iter().flatten().try_for_each(|seat| rate_all(arguments, &answers, seat)))
}

/// Has all answers rated, and writes and tells what came of it.
fn rate_all(arguments: &Arguments, answers: &Answers, seat: &Seat) -> Result<()> {
    let rated = rate(seat, answers).map_err(|problem| seat.ended(&problem))?;
    if rated.ratings.iter().all(Option::is_none) {
        rated.unparsed.iter().for_each(|said| tracing::warn!("{said}"));
        seat.warnings(&rated.tally).iter().for_each(|said| tracing::warn!("{said}"));
        bail!("no answer was rated; nothing is written to {}", arguments.output.display());
    }
    fill_file(&arguments.output, |file| write(file, &arguments.output, answers, &rated, seat))?;
    rated.tell(seat, &arguments.output);
    Ok(())
}

/// Fails before anybody is asked where nothing could be written.
fn check_output(path: &Path, resume: bool) -> Result<()> {
    if path.exists() && !resume {
        bail!("{} already exists; go on with it (--resume), name a new file or remove it", path.display());
    }
    crate::flags::check_directory(path)
}

/// Where replies are kept for the ratings in `output`.
fn beside(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_os_string();
    name.push(".judge.jsonl");
    output.with_file_name(name)
}

/// The answers, read anew each time, so that memory holds none of them; those of standard input can be read once.
struct Answers {
    source: Source,
    options: ReadOptions,
    id: Option<String>,
    held: Option<Vec<Answer>>,
    count: usize,
}

type Each<'a> = Box<dyn Iterator<Item = rpo::Result<Answer>> + Send + 'a>;

impl Answers {
    /// Reads all of them once, so that what is wrong with them is known before anybody is asked.
    fn open(arguments: &Arguments) -> Result<Self> {
        let (options, id) = (arguments.columns.options()?, arguments.id_column.clone());
        let source = Source::from(arguments.files.clone());
        let mut found = read_all_rows(&source, &options, id.as_deref())?;
        let holds = arguments.files.iter().any(|file| file == "-");
        let (mut held, mut count) = (Vec::new(), 0);
        for answer in found.by_ref() {
            let answer = answer?;
            count += 1;
            holds.then(|| held.push(answer));
        }
        found.notes().lines().iter().for_each(|line| tracing::info!("{line}"));
        if count == 0 {
            bail!("{source}: no response in it");
        }
        Ok(Self { source, options, id, held: holds.then_some(held), count })
    }

    fn each(&self) -> rpo::Result<Each<'_>> {
        Ok(match &self.held {
            Some(held) => Box::new(held.iter().cloned().map(Ok)),
            None => Box::new(read_all_rows(&self.source, &self.options, self.id.as_deref())?),
        })
    }
}

/// What the judge said.
struct Rated {
    /// By the number of the answer.
    ratings: Vec<Option<f64>>,
    /// The first replies that are no rating, each with whose it is.
    unparsed: Vec<String>,
    tally: judge::Tally,
}

/// So many replies that are no rating are shown.
const SHOWN: usize = 10;

fn rate(seat: &Seat, answers: &Answers) -> rpo::Result<Rated> {
    let (mut ratings, mut unparsed) = (vec![None; answers.count], BTreeMap::new());
    let case = |(i, answer): (usize, rpo::Result<Answer>)| {
        let Answer { prompt, response, id, .. } = answer?;
        match i < answers.count {
            true => Ok(((i, id), Case::Single { prompt: prompt.text().into_owned(), response })),
            false => Err(changed(&answers.source)),
        }
    };
    // What comes is kept at once; a call under way may end before the program does.
    let saving = interrupt::saving();
    let (bar, show) = seat.bar(answers.count);
    let mut each = |(i, id): (usize, Value), outcome: Outcome| {
        if let Outcome::Heard(heard) = outcome {
            if let Verdict::Rating(rating) = heard.verdict {
                ratings[i] = rating;
            }
            if let Some(said) = heard.unparsed {
                unparsed.insert(i, format!("{id}: no rating, but `{said}`"));
                // The first ones in the order of the answers, whatever came first.
                (unparsed.len() > SHOWN).then(|| unparsed.pop_last());
            }
        }
        Ok(())
    };
    let heard = seat.court().hear(answers.each()?.enumerate().map(case), &mut each, &mut |tally| show(tally));
    bar.finish_and_clear();
    drop(saving);
    Ok(Rated { ratings, unparsed: unparsed.into_values().collect(), tally: heard? })
}

fn changed(source: &Source) -> rpo::Error {
    rpo::Error::Data(format!("{source}: it changed while it was read; run the command again with --resume"))
}

/// A rated answer.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_index: Option<usize>,
    prompt: &'a Prompt,
    response: &'a str,
    reward: f64,
    judge: &'a str,
    template: &'a str,
}

fn write(file: &mut std::fs::File, path: &Path, answers: &Answers, rated: &Rated, seat: &Seat) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let mut out = BufWriter::new(file);
    let mut left = rated.ratings.iter();
    for answer in answers.each()? {
        let Answer { id, within, prompt, response, .. } = &answer?;
        let Some(rating) = left.next() else { return Err(changed(&answers.source).into()) };
        let Some(reward) = *rating else { continue };
        let (judge, template) = (seat.judge.name(), seat.template.name.as_str());
        let row = Row { id, response_index: *within, prompt, response, reward, judge, template };
        writeln!(out, "{}", serde_json::to_string(&row)?).with_context(failed)?;
    }
    if left.next().is_some() {
        return Err(changed(&answers.source).into());
    }
    out.flush().with_context(failed)
}

impl Rated {
    /// Says what came of it.
    fn tell(&self, seat: &Seat, output: &Path) {
        let numbers: Vec<f64> = self.ratings.iter().flatten().copied().collect();
        let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
        println!("{} of {} answers rated by {}", numbers.len(), self.ratings.len(), seat.judge.name());
        println!("template {}, mean rating {mean:.3}", seat.template.name);
        histogram(&numbers).iter().for_each(|line| println!("{line}"));
        seat.summary(&self.tally).iter().for_each(|line| println!("{line}"));
        if self.tally.unparsed > 0 {
            println!("replies that are no rating: {}", self.tally.unparsed);
            self.unparsed.iter().for_each(|said| println!("  {said}"));
            if self.tally.unparsed > self.unparsed.len() {
                println!("  … {} more", self.tally.unparsed - self.unparsed.len());
            }
        }
        seat.warnings(&self.tally).iter().for_each(|said| tracing::warn!("{said}"));
        if let [first, rest @ ..] = &numbers[..]
            && !rest.is_empty()
            && rest.iter().all(|number| number == first)
        {
            tracing::warn!("every rating is {first}: this judge tells nothing apart, and there is nothing to train on");
        }
        if let Some(store) = &seat.store {
            println!("requests and replies: {}", store.path().display());
        }
        println!("rated answers: {}", output.display());
    }
}

/// How many answers have which rating, a line for each whole number.
fn histogram(numbers: &[f64]) -> Vec<String> {
    const WIDTH: usize = 40;
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    numbers.iter().for_each(|number| *counts.entry(number.round() as i64).or_default() += 1);
    let most = counts.values().copied().max().unwrap_or(1);
    let ends = counts.keys().next().zip(counts.keys().next_back()).map(|(low, high)| (*low, *high));
    let Some((low, high)) = ends.filter(|(low, high)| high - low <= 100) else { return Vec::new() };
    let line = |rating: i64| {
        let count = counts.get(&rating).copied().unwrap_or(0);
        format!("{rating:>4}  {:<WIDTH$}  {count}", "#".repeat((count * WIDTH).div_ceil(most)))
    };
    (low..=high).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_has_a_line_for_each_rating_between_the_ends() {
        let lines = histogram(&[1.0, 3.0, 3.0, 2.6, 4.0]);
        let counts: Vec<&str> = lines.iter().map(|line| line.rsplit(' ').next().expect("a count")).collect();
        assert_eq!(counts, ["1", "0", "3", "1"]);
        assert!(lines[2].starts_with(&format!("   3  {}", "#".repeat(40))), "{}", lines[2]);
        assert!(histogram(&[]).is_empty());
    }
}
