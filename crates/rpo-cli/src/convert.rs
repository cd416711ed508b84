//! `rpo convert`: rated responses of any layout as plain JSON Lines.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rpo::feedback::{ReadOptions, Source, read_rows};
use rpo::store::files::fill_file;

use crate::flags::Layout;
use crate::{messages, progress};

/// Write rated responses as plain JSON Lines: {"prompt": ..., "response": ..., "reward": ...}
///
/// Reads whatever training reads, one row at a time, and writes the rows as training would take them; a prompt of chat messages
/// stays a list of messages.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  rpo convert traces.json --out rows.jsonl --reward-column scores.user-feedback
  rpo convert data/train-*.parquet --out - --reward-column helpfulness*0.7,verbosity*-0.3 | head")]
pub struct Arguments {
    /// Rated responses in any layout; several files are read as one
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// File to write, or - for standard output
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    columns: Layout,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let source = Source::from(arguments.files.clone());
    let options = arguments.columns.options()?;
    let out = &arguments.out;
    if out == Path::new("-") {
        let written = write(&source, &options, out, &mut std::io::stdout().lock());
        return written
            .or_else(|problem| if messages::is_broken_pipe(&problem) { messages::end_unread() } else { Err(problem) });
    }
    if source.reads(out)? {
        bail!("{}: is read and cannot be written; name another --out", out.display());
    }
    if out.file_name().is_none() {
        bail!("{}: not the name of a file", out.display());
    }
    fill_file(out, |file| write(&source, &options, out, file))
}

/// Writes all rows and says what they were.
fn write(source: &Source, options: &ReadOptions, name: &Path, out: &mut dyn Write) -> Result<()> {
    let cannot = || format!("cannot write {}", name.display());
    let bar = progress::counter("rated responses written");
    let mut out = BufWriter::new(out);
    let mut rows = read_rows(source, options)?;
    let mut count = 0_u64;
    for row in rows.by_ref() {
        let row = row?;
        let line = serde_json::json!({"prompt": row.prompt, "response": row.response, "reward": row.reward});
        writeln!(out, "{line}").with_context(cannot)?;
        count += 1;
        bar.set_position(count);
    }
    out.flush().with_context(cannot)?;
    bar.finish_and_clear();
    if count == 0 {
        bail!("{source}: no rated response in it");
    }
    eprintln!("{count} rated responses of {source} written to {}", name.display());
    rows.notes().lines().iter().for_each(|note| eprintln!("  {note}"));
    Ok(())
}
