//! `rpo merge`: the answers of all parts of a run in one file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rpo::store::files::fill_file;

use crate::generate::begun::Begun;
use crate::generate::file::lines;
use crate::generate::shard::Shard;

/// Put the answers of all parts of a run together: `rpo merge answers.jsonl part-*.jsonl`
///
/// The parts are files of `rpo generate --shard I/N --output FILE`, each with its FILE.run.json. They must be of the same run, and
/// all answers must be there, each once; what is missing is named. Answers then stand in the order of the prompts, as one
/// program with --in-order writes them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  rpo generate --model M --input prompts.jsonl --shard 1/2 --output part-1.jsonl
  rpo generate --model M --input prompts.jsonl --shard 2/2 --output part-2.jsonl
  rpo merge answers.jsonl part-1.jsonl part-2.jsonl")]
pub struct Arguments {
    /// New file for all answers
    out: PathBuf,
    /// Files of the parts, in any order
    #[arg(required = true, value_name = "FILE")]
    parts: Vec<PathBuf>,
}

/// Where an answer stands.
struct Place {
    /// Which file.
    part: usize,
    /// Where its line begins.
    at: u64,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    together(&arguments.out, &arguments.parts)
}

/// Puts the answers in `parts` together in `out`.
pub fn together(out: &Path, parts: &[PathBuf]) -> Result<()> {
    if out.exists() {
        bail!("{} already exists; the first name is that of the new file", out.display());
    }
    let begun = parts.iter().map(|part| read(part)).collect::<Result<Vec<Begun>>>()?;
    check(parts, &begun)?;
    let mut places = BTreeMap::new();
    for (i, (part, begun)) in parts.iter().zip(&begun).enumerate() {
        let file = File::open(part).with_context(|| format!("cannot read {}", part.display()))?;
        let found = lines(&file, part, begun)?.keys;
        let expected = (0..begun.prompts).filter(|index| begun.shard.has(*index));
        for (n, (key, at)) in found.into_iter().enumerate() {
            if places.insert(key, Place { part: i, at }).is_some() {
                bail!("{}, line {}: this answer is there twice; remove one", part.display(), n + 1);
            }
        }
        let missing = expected.flat_map(|index| (0..begun.answers).map(move |answer| (index, answer)));
        let missing: Vec<_> = missing.filter(|key| !places.contains_key(key)).collect();
        if let Some((index, _)) = missing.first() {
            bail!(
                "{}: {} of its answers are missing, the first to prompt {} (index {index}); go on with it (rpo generate --shard \
                 {} ... --resume)",
                part.display(),
                missing.len(),
                index + 1,
                begun.shard
            );
        }
    }
    fill_file(out, |file| write(file, out, parts, places.values()))?;
    let Some(first) = begun.first() else { return Ok(()) };
    Begun { shard: Shard::WHOLE, in_order: true, ..first.clone() }.write(out)?;
    eprintln!("{} answers of {} files written to {}", places.len(), parts.len(), out.display());
    Ok(())
}

fn read(part: &Path) -> Result<Begun> {
    if !part.exists() {
        bail!("there is no {}", part.display());
    }
    let Some(begun) = Begun::read(part)? else {
        let beside = Begun::beside(part);
        bail!("{}: {} is missing, so it is not known which part it is", part.display(), beside.display());
    };
    Ok(begun)
}

/// Checks that the parts are of one run, and that each is there once.
fn check(parts: &[PathBuf], begun: &[Begun]) -> Result<()> {
    let Some(first) = begun.first() else { bail!("there is nothing to put together") };
    let mut by_shard = BTreeMap::new();
    for (part, one) in parts.iter().zip(begun) {
        let alike = Begun { shard: first.shard, in_order: first.in_order, ..one.clone() };
        let mut differs = alike.differences(first)?;
        if one.shard.of != first.shard.of {
            differs.push(format!("shard: {} then, {} now", first.shard, one.shard));
        }
        if !differs.is_empty() {
            let (first, part) = (parts[0].display(), part.display());
            bail!("{first} (then) and {part} (now) are not of one run:\n  {}", differs.join("\n  "));
        }
        if let Some(other) = by_shard.insert(one.shard.part, part) {
            bail!("{} and {} are both part {}", other.display(), part.display(), one.shard);
        }
    }
    let of = first.shard.of;
    let missing: Vec<String> =
        (1..=of).filter(|part| !by_shard.contains_key(part)).map(|part| format!("{part}/{of}")).collect();
    match &missing[..] {
        [] => Ok(()),
        [one] => bail!("part {one} is missing"),
        several => bail!("parts {} are missing", several.join(", ")),
    }
}

/// Writes the lines at these places.
fn write<'a>(to: &mut File, out: &Path, parts: &[PathBuf], places: impl Iterator<Item = &'a Place>) -> Result<()> {
    let open = |part: &PathBuf| {
        let file = File::open(part).with_context(|| format!("cannot read {}", part.display()))?;
        Ok((BufReader::with_capacity(1 << 16, file), 0))
    };
    let mut files = parts.iter().map(open).collect::<Result<Vec<(BufReader<File>, u64)>>>()?;
    let mut to = BufWriter::with_capacity(1 << 20, to);
    let mut line = Vec::new();
    for Place { part, at } in places {
        let (file, position) = &mut files[*part];
        let cannot = || format!("cannot read {}", parts[*part].display());
        // Within what was read already, if it can be.
        file.seek_relative(*at as i64 - *position as i64).with_context(cannot)?;
        line.clear();
        file.read_until(b'\n', &mut line).with_context(cannot)?;
        *position = at + line.len() as u64;
        to.write_all(&line).with_context(|| format!("cannot write {}", out.display()))?;
    }
    to.flush().with_context(|| format!("cannot write {}", out.display()))
}
