//! The `rpo` program: arguments in, progress and reports out. All the work is the library's.

mod advice;
mod card;
mod compare;
mod config;
mod convert;
mod demo;
mod doctor;
mod evaluate;
mod flags;
mod generate;
mod init;
mod inspect;
mod interrupt;
mod judge;
mod merge;
mod messages;
mod outcome;
mod place;
mod plan;
mod progress;
mod push;
mod rate;
mod remarks;
mod report;
mod score;
mod settings;
mod train;
mod verify;
mod version;
mod world;

use std::path::PathBuf;

use anyhow::{Context, Result};
use world::Work;

use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

/// Train Flan-T5 and decoder-only models from scalar feedback by Reward Partitioning Optimization (arXiv 2506.13702).
///
/// Rows of (prompt, response, reward) go in, an ordinary Hugging Face model directory comes out. Models are given as a
/// local directory or a hub id such as google/flan-t5-small.
#[derive(Parser)]
#[command(name = "rpo", version = version::version(), max_term_width = 110, after_help = EXAMPLES)]
struct Arguments {
    /// Also tell what is of interest when something goes wrong
    #[arg(short, long, global = true, conflicts_with = "quiet", help_heading = MESSAGES)]
    verbose: bool,
    /// Results and errors alone: no warnings, notes and progress
    #[arg(short, long, global = true, help_heading = MESSAGES)]
    quiet: bool,
    /// Colours in messages
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = MESSAGES)]
    color: ColorChoice,
    /// Use the files of models and runs as they are, without comparing them with the checksums that were saved with them
    #[arg(long, global = true, help_heading = "Files")]
    no_verify: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Arguments),
    Init(init::Arguments),
    Train(Box<train::Arguments>),
    Compare(Box<compare::Arguments>),
    Plan(plan::Arguments),
    /// See what a file of rated responses holds: `rpo inspect data FILE --tokenizer MODEL`
    #[command(subcommand)]
    Inspect(inspect::What),
    Convert(convert::Arguments),
    Generate(Box<generate::Arguments>),
    Merge(merge::Arguments),
    Rate(Box<rate::Arguments>),
    Score(score::Arguments),
    Evaluate(Box<evaluate::Arguments>),
    Card(card::Arguments),
    Push(push::Arguments),
    Config(config::Arguments),
    Doctor(doctor::Arguments),
    Verify(verify::Arguments),
    /// Print what makes a shell complete rpo's commands and flags: `rpo completions bash`
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one a command, into a directory
    Man {
        /// Directory for the pages
        dir: PathBuf,
    },
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Self::Demo(_) => "demo",
            Self::Init(_) => "init",
            Self::Train(_) => "train",
            Self::Compare(_) => "compare",
            Self::Plan(_) => "plan",
            Self::Inspect(_) => "inspect",
            Self::Convert(_) => "convert",
            Self::Generate(_) => "generate",
            Self::Merge(_) => "merge",
            Self::Rate(_) => "rate",
            Self::Score(_) => "score",
            Self::Evaluate(_) => "evaluate",
            Self::Card(_) => "card",
            Self::Push(_) => "push",
            Self::Config(_) => "config",
            Self::Doctor(_) => "doctor",
            Self::Verify(_) => "verify",
            Self::Completions { .. } => "completions",
            Self::Man { .. } => "man",
        }
    }

    /// What it does where several processes were started together.
    fn work(&self) -> Work {
        match self {
            Self::Train(_)
            | Self::Compare(_)
            | Self::Evaluate(_)
            | Self::Plan(_)
            | Self::Verify(_)
            | Self::Score(_)
            | Self::Rate(_) => Work::Together,
            Self::Generate(arguments) if arguments.can_be_shared() => Work::Together,
            Self::Generate(_) | Self::Inspect(_) | Self::Config(_) | Self::Doctor(_) | Self::Completions { .. } => {
                Work::Apart
            }
            _ => Work::One,
        }
    }
}

/// Heads the flags that all commands have.
const MESSAGES: &str = "Messages";

const EXAMPLES: &str = "\
Examples:
  rpo demo
  rpo inspect data ratings.jsonl --tokenizer google/flan-t5-small
  rpo train rpo --model google/flan-t5-small --data ratings.jsonl --out runs/first
  rpo generate --model runs/first/best \"translate English to German: Good morning.\"";

/// Writes the manual pages of the program and its commands.
fn man(dir: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot write {}", dir.display()))?;
    clap_mangen::generate_to(Arguments::command(), dir).with_context(|| format!("cannot write {}", dir.display()))?;
    println!("{0}: manual pages; read them with `man -l {0}/rpo.1`", dir.display());
    Ok(())
}

fn main() -> std::process::ExitCode {
    rpo::keep_freed_memory();
    messages::end_with_the_reader();
    let commands = Arguments::command().color(messages::colour_of(std::env::args_os()));
    let parsed = commands.try_get_matches().and_then(|matches| Arguments::from_arg_matches(&matches));
    let parsed = parsed.unwrap_or_else(|problem| {
        let status = problem.exit_code();
        world::say_once(|| problem.exit());
        std::process::exit(status)
    });
    let Arguments { verbose, quiet, color, no_verify, command } = parsed;
    let joined = match world::Joined::join(command.name(), command.work()) {
        Ok(joined) => joined,
        Err(problem) => {
            world::say_once(|| eprintln!("error: {problem:#}"));
            return std::process::ExitCode::FAILURE;
        }
    };
    let world = joined.world();
    // The first of several processes speaks for all.
    messages::show(verbose, quiet || !world.leads(), color);
    if no_verify {
        rpo::store::checksums::do_not_verify();
    }
    // What computes on this thread alone.
    if matches!(
        command,
        Command::Demo(_) | Command::Train(_) | Command::Compare(_) | Command::Plan(_) | Command::Score(_)
    ) {
        rpo::compute_on_this_thread();
    }
    let result = world::hush(world).and_then(|()| interrupt::listen()).and_then(|()| match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Train(arguments) => train::run(*arguments, world),
        Command::Compare(arguments) => compare::run(*arguments, world),
        Command::Plan(arguments) => plan::run(&arguments, world),
        Command::Inspect(what) => inspect::run(&what),
        Command::Convert(arguments) => convert::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments, world),
        Command::Merge(arguments) => merge::run(&arguments),
        Command::Rate(arguments) => rate::run(&arguments, world),
        Command::Score(arguments) => score::run(&arguments, world),
        Command::Evaluate(arguments) => evaluate::run(&arguments, world),
        Command::Card(arguments) => card::run(&arguments),
        Command::Push(arguments) => push::run(&arguments),
        Command::Config(arguments) => config::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments, world),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "rpo", &mut script);
            print!("{}", String::from_utf8_lossy(&script));
            Ok(())
        }
        Command::Man { dir } => man(&dir),
    });
    match (result, interrupt::status()) {
        (Ok(()), None) => std::process::ExitCode::SUCCESS,
        (Ok(()), Some(status)) => status.into(),
        (Err(problem), Some(status)) => {
            joined.failed(status, |whose| eprintln!("{whose}{problem:#}"));
            status.into()
        }
        (Err(problem), None) => {
            joined.failed(1, |whose| eprintln!("error: {whose}{problem:#}"));
            std::process::ExitCode::FAILURE
        }
    }
}
