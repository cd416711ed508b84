//! `rpo convert`: rated responses of any layout as plain JSON Lines.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rpo::chat::Prompt;
use rpo::feedback::{ReadOptions, Source, read_rows};
use rpo::store::files::fill_file;

use crate::flags::Layout;
use crate::{messages, progress};

/// Write rated responses as plain JSON Lines: {"prompt": ..., "response": ..., "reward": ...}
///
/// Reads whatever training reads, one row at a time, and writes the rows as training would take them; a prompt of chat messages
/// stays a list of messages. With --held-out, the rows of some prompts go into a file of their own, to validate and evaluate on:
/// which ones, is decided by each prompt's text and the seed alone, so that no prompt is in both files and more data move none.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  rpo convert traces.json --out rows.jsonl --reward-column scores.user-feedback
  rpo convert data/train-*.parquet --out - --reward-column helpfulness*0.7,verbosity*-0.3 | head
  rpo convert openbmb/UltraFeedback --out train.jsonl --held-out test.jsonl --fraction 0.02")]
pub struct Arguments {
    /// Rated responses in any layout; several files are read as one
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// File to write, or - for standard output
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// A second file, for the rows of the prompts that are held out
    #[arg(long, value_name = "FILE")]
    held_out: Option<PathBuf>,
    /// About which share of the prompts is held out [default: 0.1]
    #[arg(long, value_name = "SHARE", requires = "held_out")]
    fraction: Option<f64>,
    /// Decides which prompts are held out [default: 42]
    #[arg(long, value_name = "N", requires = "held_out")]
    split_seed: Option<u64>,
    #[command(flatten)]
    columns: Layout,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let source = Source::from(arguments.files.clone());
    let options = arguments.columns.options()?;
    let out = &arguments.out;
    let to_stdout = out == Path::new("-");
    for path in [Some(out), arguments.held_out.as_ref()].into_iter().flatten().filter(|path| *path != Path::new("-")) {
        if source.reads(path)? {
            bail!("{}: is read and cannot be written; name another file", path.display());
        }
        if path.file_name().is_none() {
            bail!("{}: not the name of a file", path.display());
        }
    }
    let job = Job { source: &source, options: &options, name: out };
    let Some(path) = &arguments.held_out else {
        return match to_stdout {
            true => unread(job.write(&mut std::io::stdout().lock(), None)),
            false => fill_file(out, |file| job.write(file, None)),
        };
    };
    if out == path || path == Path::new("-") {
        bail!("--held-out {}: name a file of its own", path.display());
    }
    let fraction = arguments.fraction.unwrap_or(0.1);
    if !(fraction > 0.0 && fraction < 1.0) {
        bail!("--fraction {fraction}: it is a share between 0 and 1");
    }
    let seed = arguments.split_seed.unwrap_or(42);
    fill_file(path, |held| {
        let mut held_out =
            HeldOut { file: BufWriter::new(held), name: path, fraction, seed, rows: 0, prompts: HashSet::new() };
        match to_stdout {
            true => unread(job.write(&mut std::io::stdout().lock(), Some(&mut held_out))),
            false => fill_file(out, |file| job.write(file, Some(&mut held_out))),
        }
    })
}

/// Whoever reads standard output may have had enough.
fn unread(written: Result<()>) -> Result<()> {
    written.or_else(|problem| if messages::is_broken_pipe(&problem) { messages::end_unread() } else { Err(problem) })
}

/// Where the rows of held-out prompts go.
struct HeldOut<'a> {
    file: BufWriter<&'a mut File>,
    name: &'a Path,
    fraction: f64,
    seed: u64,
    rows: u64,
    prompts: HashSet<[u8; 8]>,
}

impl HeldOut<'_> {
    /// Whether a prompt is held out.
    fn has(&mut self, prompt: &Prompt) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(prompt.text().trim().as_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        let is = (u64::from_le_bytes(bytes) as f64) < self.fraction * 2f64.powi(64);
        if is {
            self.rows += 1;
            self.prompts.insert(bytes);
        }
        is
    }
}

/// What is read and written.
struct Job<'a> {
    source: &'a Source,
    options: &'a ReadOptions,
    name: &'a Path,
}

impl Job<'_> {
    /// Writes all rows and says what they were.
    fn write(&self, out: &mut dyn Write, mut held_out: Option<&mut HeldOut<'_>>) -> Result<()> {
        let Self { source, options, name } = self;
        let cannot = |name: &Path| format!("cannot write {}", name.display());
        let bar = progress::counter("rated responses written");
        let mut out = BufWriter::new(out);
        let mut rows = read_rows(source, options)?;
        let mut count = 0_u64;
        for row in rows.by_ref() {
            let row = row?;
            let line = serde_json::json!({"prompt": row.prompt, "response": row.response, "reward": row.reward});
            let is_held_out = held_out.as_deref_mut().is_some_and(|held_out| held_out.has(&row.prompt));
            match &mut held_out {
                Some(held_out) if is_held_out => {
                    writeln!(held_out.file, "{line}").with_context(|| cannot(held_out.name))?;
                }
                _ => writeln!(out, "{line}").with_context(|| cannot(name))?,
            }
            count += 1;
            bar.set_position(count);
        }
        out.flush().with_context(|| cannot(name))?;
        bar.finish_and_clear();
        if count == 0 {
            bail!("{source}: no rated response in it");
        }
        let mut kept = count;
        if let Some(held_out) = held_out {
            held_out.file.flush().with_context(|| cannot(held_out.name))?;
            kept -= held_out.rows;
            if held_out.rows == 0 || kept == 0 {
                bail!("--fraction {}: all prompts of {source} fall on one side; choose another", held_out.fraction);
            }
            let (rows, prompts) = (held_out.rows, held_out.prompts.len());
            eprintln!("{rows} rated responses of {prompts} held-out prompts written to {}", held_out.name.display());
        }
        eprintln!("{kept} rated responses of {source} written to {}", name.display());
        rows.notes().lines().iter().for_each(|note| eprintln!("  {note}"));
        Ok(())
    }
}
