//! The `rpo` program: arguments in, progress and reports out. All the work is the library's.

mod advice;
mod compare;
mod convert;
mod demo;
mod device;
mod flags;
mod generate;
mod init;
mod inspect;
mod interrupt;
mod judge;
mod outcome;
mod progress;
mod report;
mod settings;
mod train;
mod verify;

use clap::{Parser, Subcommand};

/// Train Flan-T5 from scalar feedback by Reward Partitioning Optimization (arXiv 2506.13702).
///
/// Rows of (prompt, response, reward) go in, an ordinary Hugging Face model directory comes out. Models are given as a
/// local directory or a hub id such as google/flan-t5-small.
#[derive(Parser)]
#[command(name = "rpo", version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Arguments),
    Init(init::Arguments),
    Train(Box<train::Arguments>),
    Compare(Box<compare::Arguments>),
    /// See what a file of rated responses holds: `rpo inspect data FILE --tokenizer MODEL`
    #[command(subcommand)]
    Inspect(inspect::What),
    Convert(convert::Arguments),
    Generate(generate::Arguments),
    Verify(verify::Arguments),
}

fn main() -> std::process::ExitCode {
    rpo::keep_freed_memory();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .with_max_level(tracing::Level::INFO)
        .init();
    let command = Arguments::parse().command;
    let result = interrupt::listen().and_then(|()| match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Train(arguments) => train::run(*arguments),
        Command::Compare(arguments) => compare::run(*arguments),
        Command::Inspect(what) => inspect::run(&what),
        Command::Convert(arguments) => convert::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
    });
    match (result, interrupt::status()) {
        (Ok(()), None) => std::process::ExitCode::SUCCESS,
        (Ok(()), Some(status)) => status.into(),
        (Err(problem), Some(status)) => {
            eprintln!("{problem:#}");
            status.into()
        }
        (Err(problem), None) => {
            eprintln!("error: {problem:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
